"""State and configuration on etcd as records that move to another home and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from ...errors import UnsupportedError
from ...spi.operation import Operation
from ...spi.portable import Portable
from .._portable_stores import StoredConfiguration, StoredState
from .configuration import EtcdConfiguration
from .engine import Flow, Request
from .messages import RANGE, range_of, read_range, under
from .state import EtcdState

if TYPE_CHECKING:
    from . import EtcdComponent

__all__ = ["names", "portable"]

_TOKENS: Final = 0
"""Of locks in a second: they are revisions, and count from 1."""


def names(component: EtcdComponent, op: Operation, service: str) -> list[str]:
    """Return the names of a service that have data."""
    _check(service)
    prefix = f"{component.settings.prefix}/{service}/".encode()

    def listed() -> Flow[list[str]]:
        found: list[str] = []
        first = prefix
        while True:
            asked = range_of(first, under(prefix), limit=1, keys_only=True)
            items = read_range((yield Request(RANGE, asked))).found
            if not items:
                return found
            name = items[0].key[len(prefix) :].partition(b"/")[0]
            found.append(unquote(name.decode()))
            first = under(prefix + name + b"/")

    return sorted(component.engine.run(op, listed()))


def portable(component: EtcdComponent, service: str, name: str) -> Portable:
    """Return the data of a name."""
    _check(service)
    engine = component.engine
    if service == "state":
        state = EtcdState(component, name)
        return StoredState(state, lambda op, keys: engine.run(op, state.fences(keys)), _TOKENS)
    configuration = EtcdConfiguration(component, name)
    return StoredConfiguration(configuration, lambda op: engine.run(op, configuration.places()))


def _check(service: str) -> None:
    if service not in ("state", "configuration"):
        raise UnsupportedError(
            f"{service} of the component 'etcd' is not copied: choose state and configuration with --service",
            service=service,
        )
