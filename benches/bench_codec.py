"""MessagePack and JSON beside the libraries that users would take."""

from __future__ import annotations

import json as standard
from collections.abc import Callable
from typing import Any

import msgpack as peer
import orjson
import pytest

from cloud_runtimes.codec import json, msgpack

ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "msgpack-ours": msgpack.encode,
    "msgpack-msgpack": peer.packb,
    "json-ours": json.encode,
    "json-orjson": orjson.dumps,
    "json-standard": lambda value: standard.dumps(value).encode(),
}
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "msgpack-ours": msgpack.decode,
    "msgpack-msgpack": peer.unpackb,
    "json-ours": json.decode,
    "json-orjson": orjson.loads,
    "json-standard": standard.loads,
}


@pytest.mark.parametrize("name", ENCODERS)
def bench_encode(benchmark: Any, event: dict[str, Any], name: str) -> None:
    benchmark.group = f"encode {name.split('-')[0]}"
    data = benchmark(ENCODERS[name], event)
    assert DECODERS[name](data) == event


@pytest.mark.parametrize("name", DECODERS)
def bench_decode(benchmark: Any, event: dict[str, Any], name: str) -> None:
    benchmark.group = f"decode {name.split('-')[0]}"
    assert benchmark(DECODERS[name], ENCODERS[name](event)) == event
