"""Fallback: the Python twins, where the compiled kernels are not."""

from __future__ import annotations

from typing import Any

import msgpack as peer
import orjson
import pytest
from bench_envelope import by_hand

from cloud_runtimes._native import msgpack_peer, payload_py
from cloud_runtimes.codec import cloudevents, json, msgpack


@pytest.fixture(autouse=True)
def fallback() -> None:
    """The twins with what they stand on: C code of `ormsgpack` and of orjson."""
    assert msgpack_peer.backend().startswith("ormsgpack ")
    payload_py.use(*json.reader())


def bench_fallback_encode(beside: Any, event: dict[str, Any]) -> None:
    assert msgpack_peer.encode(event) == peer.packb(event)
    beside(
        "MessagePack encode, small event",
        lambda: msgpack_peer.encode(event),
        {"msgpack": lambda: peer.packb(event), "ours, compiled": lambda: msgpack.encode(event)},
        goals={"msgpack": 0.9},
    )


def bench_fallback_decode(beside: Any, event: dict[str, Any]) -> None:
    data = peer.packb(event)
    assert msgpack_peer.decode(data) == event
    beside(
        "MessagePack decode, small event",
        lambda: msgpack_peer.decode(data),
        {"msgpack": lambda: peer.unpackb(data), "ours, compiled": lambda: msgpack.decode(data)},
        goals={"msgpack": 0.9},
    )


def bench_fallback_envelope(beside: Any, event: dict[str, Any]) -> None:
    def ours() -> bytes:
        return payload_py.encode_event(event, "/bench", "bench.event")

    assert orjson.loads(ours())["data"] == event
    assert orjson.loads(ours()).keys() == orjson.loads(by_hand(event)).keys()
    beside(
        "envelope with a fresh id and time",
        ours,
        {
            "orjson, uuid4 and now by hand": lambda: by_hand(event),
            "ours, compiled": lambda: cloudevents.encode(event, "/bench", "bench.event"),
        },
        goals={"orjson, uuid4 and now by hand": 1},
    )
