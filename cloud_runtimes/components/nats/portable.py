"""State and configuration on NATS as records that move to another home and back; files are copied by their driver."""

from __future__ import annotations

import json
from functools import partial
from typing import Final

from ...errors import UnsupportedError
from ...spi.operation import Operation
from ...spi.portable import Portable
from .._copy.stores import StoredConfiguration, StoredState
from .._unreadable import read_entries
from . import NatsComponent
from .configuration import NatsConfiguration
from .entries import decode
from .requests import Batch, Flow, Request
from .state import NatsState

_TOKENS: Final = 1000
"""Of locks in a second at least: their tokens count from the milliseconds when a bucket was made."""


def names(component: NatsComponent, op: Operation, service: str) -> list[str]:
    """Return the names of a service that have data."""
    if service not in ("lock", "pubsub"):
        _check(service)
    return component.engine.run(op, names_of(component, service))


def names_of(component: NatsComponent, service: str) -> Flow[list[str]]:
    """Return a flow that lists the names of a service by their buckets."""
    result: list[str] = []
    seen = 0
    while True:
        ((message,),) = yield Batch(Request("$JS.API.STREAM.NAMES", json.dumps({"offset": seen}).encode()))
        page = json.loads(message.data)
        streams = page.get("streams") or []
        stores = read_entries("buckets", streams, str, partial(_store, component.settings.prefix, service))
        result += [store for store in stores if store is not None]
        seen += len(streams)
        if not streams or seen >= page["total"]:
            return sorted(result)


def portable(component: NatsComponent, service: str, name: str) -> Portable:
    """Return the data of a name."""
    _check(service)
    engine = component.engine
    if service == "state":
        state = NatsState(component, name)
        return StoredState(state, lambda op, keys: engine.run(op, state.fences(keys)), _TOKENS)
    configuration = NatsConfiguration(component, name)
    return StoredConfiguration(configuration, lambda op: engine.run(op, configuration.scopes()))


def _check(service: str) -> None:
    if service not in ("state", "configuration", "file"):
        raise UnsupportedError(
            f"{service} of the component 'nats' is not copied: choose state, configuration and file with --service; "
            "docs/how-to/move-to-nats.md says how the rest moves",
            service=service,
        )


def _store(prefix: str, service: str, stream: str) -> str | None:
    """Return the store whose bucket is a stream; ``None``: it is none of that service."""
    kind = {"file": "OBJ_", "pubsub": ""}.get(service, "KV_")
    head = f"{kind}{prefix}-{service}-"
    plain = stream.removeprefix(head)
    if plain == stream:
        return None
    return decode(plain[1:]) if plain.startswith("_") else plain
