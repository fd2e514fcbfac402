"""Codec: MessagePack and JSON."""

from __future__ import annotations

import json as standard
from typing import Any

import msgpack as peer
import msgspec
import orjson
import pytest

from cloud_runtimes.codec import json, msgpack

PAYLOADS = ("event", "order")


@pytest.fixture(params=PAYLOADS)
def payload(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return {"event": "small event", "order": "order"}[request.param], request.getfixturevalue(request.param)


def bench_msgpack_encode(beside: Any, payload: tuple[str, Any]) -> None:
    name, value = payload
    encode = msgspec.msgpack.Encoder().encode
    assert peer.unpackb(msgpack.encode(value)) == value
    beside(
        f"MessagePack encode, {name}",
        lambda: msgpack.encode(value),
        {
            "msgspec": lambda: encode(value),
            "msgpack": lambda: peer.packb(value),
        },
        goals={"msgspec": 1.5, "msgpack": 3.6} if name == "small event" else None,
    )


def bench_msgpack_decode(beside: Any, payload: tuple[str, Any]) -> None:
    name, value = payload
    data = peer.packb(value)
    decode = msgspec.msgpack.Decoder().decode
    assert msgpack.decode(data) == value
    beside(
        f"MessagePack decode, {name}",
        lambda: msgpack.decode(data),
        {
            "msgspec": lambda: decode(data),
            "msgpack": lambda: peer.unpackb(data),
        },
        goals={"msgspec": 0.95, "msgpack": 1.7} if name == "small event" else None,
    )


@pytest.mark.parametrize("null", [True, False], ids=["with a null", "without a null"])
def bench_json_encode(beside: Any, event: dict[str, Any], null: bool) -> None:
    """To bytes of our own, which is more than into a batch (bench_producer.py): there they are copied into memory that is there."""
    value = event if null else {name: each for name, each in event.items() if each is not None}
    assert json.encode(value) == orjson.dumps(value)
    beside(
        f"JSON encode to bytes, small event {'with' if null else 'without'} a null",
        lambda: json.encode(value),
        {"orjson": lambda: orjson.dumps(value), "json": lambda: standard.dumps(value).encode()},
    )


def bench_json_decode(beside: Any, payload: tuple[str, Any]) -> None:
    name, value = payload
    data = orjson.dumps(value)
    assert json.decode(data) == value
    beside(
        f"JSON decode, {name}",
        lambda: json.decode(data),
        {"orjson": lambda: orjson.loads(data), "json": lambda: standard.loads(data)},
    )
