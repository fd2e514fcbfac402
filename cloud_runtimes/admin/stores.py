"""Names that there are: those that the configuration declares, and those with data on a home."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from ..spi.component import Runtime
from ..spi.operation import Operation

_SERVICES: Final = ("state", "configuration", "file", "lock", "pubsub")


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A name of a service that keeps something: state, configuration, files, locks or events.

    Attributes:
        service: ``"state"``, ``"configuration"``, ``"file"``, ``"lock"`` or ``"pubsub"``.
        name: of the store.
        component: that holds its data.
        declared: whether the configuration declares it; else it lives on the home.
    """

    service: str
    name: str
    component: str
    declared: bool


def list_stores(op: Operation, runtime: Runtime) -> list[StoreInfo]:
    """Return the stores of a runtime, in the order of services and names."""
    declared = runtime.declared()
    return [
        StoreInfo(service, name, runtime.vendor(service, name), (service, name) in declared)
        for service in _SERVICES
        for name in runtime.names(op, service)
    ]


async def list_stores_async(op: Operation, runtime: Runtime) -> list[StoreInfo]:
    """Asynchronous `list_stores`."""
    return await runtime.executor.in_thread(partial(list_stores, op, runtime), op)
