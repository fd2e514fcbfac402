"""Fallback: the Python twins, where the compiled kernels are not."""

from __future__ import annotations

from typing import Any

import msgpack as peer
import orjson
import pytest

from benches.bench_envelope import by_hand
from cloud_runtimes._native import msgpack_py, payload_py
from cloud_runtimes.codec import cloudevents, json, msgpack


@pytest.fixture(autouse=True)
def fallback() -> None:
    """The twins with what they stand on: C code of `msgpack` and of orjson."""
    assert msgpack_py.backend.startswith("msgpack ")
    payload_py.use(*json.reader())


@pytest.fixture(params=["small event", "order"])
def document(request: pytest.FixtureRequest) -> tuple[str, Any]:
    fixture = {"small event": "event", "order": "order"}[request.param]
    return request.param, request.getfixturevalue(fixture)


def bench_fallback_encode(beside: Any, document: tuple[str, Any]) -> None:
    name, value = document
    assert msgpack_py.encode(value) == peer.packb(value)
    beside(
        f"MessagePack encode, {name}",
        lambda: msgpack_py.encode(value),
        {"msgpack": lambda: peer.packb(value), "ours, compiled": lambda: msgpack.encode(value)},
        goals={"msgpack": 0.8},
    )


def bench_fallback_decode(beside: Any, document: tuple[str, Any]) -> None:
    name, value = document
    data = peer.packb(value)
    assert msgpack_py.decode(data) == value
    beside(
        f"MessagePack decode, {name}",
        lambda: msgpack_py.decode(data),
        {"msgpack": lambda: peer.unpackb(data), "ours, compiled": lambda: msgpack.decode(data)},
        # to bound the depth takes a look at each byte, a fifth of what a small event takes
        goals={"msgpack": 0.7 if name == "small event" else 0.8},
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
