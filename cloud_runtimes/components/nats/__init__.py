"""NATS with JetStream: a home for many machines. Its key-value buckets carry state, configuration, locks and jobs, its streams events, its object store files."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..._core.threads import Background
from ...config import ClientSettings
from ...errors import ClosedError, CloudRuntimesError, UnsupportedError
from ...spi.component import no_native
from ...spi.operation import Method, Operation
from .._home import HomeComponent
from .settings import NatsSettings

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from ...spi.portable import Portable
    from .engine import NatsEngine
    from .requests import Flow

__all__ = ["NatsComponent", "NatsSettings", "component"]

_DRIVERS: Final = {
    "configuration": "NatsConfiguration",
    "file": "NatsFiles",
    "lock": "NatsLock",
    "pubsub": "NatsPubSub",
    "rpc": "NatsRpc",
    "schedule": "NatsSchedule",
    "state": "NatsState",
}
_READY: Final = Method("nats", "wait_ready", repeatable=True, writes=False)
_BEHIND: Final = Method("nats", "undo", repeatable=True)


class NatsComponent(HomeComponent):
    """Drivers over one cluster."""

    name = "nats"
    Settings = NatsSettings
    services = tuple(_DRIVERS)

    settings: NatsSettings

    def __init__(self, settings: NatsSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self._engine: NatsEngine | None = None

    @property
    def engine(self) -> NatsEngine:
        """The engine, made without I/O.

        Raises:
            ClosedError: the client was closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if self._engine is None:
                from .engine import acquire

                self._engine = acquire(self.settings)
            return self._engine

    def behind(self, flow: Flow[Any]) -> None:
        """Run a flow in a thread, for what a caller left behind; where that fails, a lease expires."""

        def run() -> None:
            with suppress(CloudRuntimesError):
                self.engine.run(Operation(_BEHIND, self.name, 5.0), flow)

        Background(run, "cloud-runtimes-nats-behind").start()

    def native(self, service: str, name: str) -> Any:
        """Refuse: this component speaks the protocol itself, and nats-py has no connection without an event loop."""
        raise no_native(service, name)

    def driver(self, service: str, name: str) -> Driver:
        if service not in _DRIVERS:
            raise UnsupportedError(f"NATS has no {service} yet: add [{service}.{name}] with a component that has it")
        made: Driver = getattr(import_module(f".{service}", __package__), _DRIVERS[service])(self, name)
        return made

    def names(self, op: Operation, service: str) -> list[str]:
        from .portable import names

        return names(self, op, service)

    def portable(self, service: str, name: str) -> Portable:
        from .portable import portable

        return portable(self, service, name)

    def ready(self) -> None:
        self.engine.run(Operation(_READY, self.name, 5.0), _ping())

    def close(self, timeout: float | None) -> None:
        super().close(timeout)
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.notifier.wake_all()  # who waits for this client looks whether it is open
            engine.release()


def _ping() -> Flow[None]:
    from .requests import Batch, Request

    yield Batch(Request("$JS.API.INFO"))


component = NatsComponent
