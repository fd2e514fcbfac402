"""Base of every driver: a runtime hands drivers to services, and they move bytes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType

from .executor import Blocking

__all__ = ["Driver"]


class Driver(Blocking):
    """Base of the SPI of every service.

    Obligations, whatever the service:

    * A driver does not retry, log, decode payloads or look at the client's settings. It may raise native errors; those in its component's table become ours, the rest `InternalError`.
    * Its methods take the `Operation` first and keep its deadline (`op.remaining()`): past it they raise `op.timed_out(…)` and say in ``maybe_applied`` whether the write may have happened.
    * Any number of threads and loops call it at once. Making one does no I/O; the first call connects.
    * An ``_async`` method never blocks the loop. Those that a driver does not have run their siblings in threads.
    * It keeps none of the bytes it is given after it has returned.

    Attributes:
        features: what this driver can do beyond the minimum, by the service's feature names. The service refuses the rest before any I/O, so a feature that is declared must work and one that is not must not be needed.
        alternatives: feature that it does not declare → what to do instead, for the message that refuses it.
        engine: what commits its transactions. Drivers of which it is equal write each other's changes (`cloud_runtimes.spi.change`); ``None``: none does.
        system: what spans call the engine, as in OpenTelemetry's ``db.system.name`` and ``messaging.system``; ``""``: not known. A runtime sets it where the driver does not.
        server: host of what it talks to, or the path of a socket, and the port, for spans; ``None``: nothing, or it is not known. A runtime sets it where the driver does not.
    """

    features: frozenset[str] = frozenset()
    alternatives: Mapping[str, str] = MappingProxyType({})
    system: str = ""
    server: tuple[str, int | None] | None = None

    @property
    def engine(self) -> Hashable:
        return None
