"""etcd: a home for many machines, and the store that clusters keep their configuration in. State, configuration, locks, jobs, and the registry of services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ...errors import UnsupportedError
from ...spi.component import Component, no_native
from ...spi.operation import Method, Operation
from .._net.engines import EngineComponent
from .settings import EtcdSettings

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from .engine import EtcdEngine

__all__ = ["EtcdComponent", "EtcdSettings", "component"]

_DRIVERS: Final = {
    "configuration": "EtcdConfiguration",
    "lock": "EtcdLock",
    "rpc": "EtcdRpc",
    "schedule": "EtcdSchedule",
    "state": "EtcdState",
}
_READY: Final = Method("etcd", "wait_ready", repeatable=True, writes=False)


class EtcdComponent(EngineComponent["EtcdEngine"]):
    """Drivers over one cluster."""

    name = "etcd"
    Settings = EtcdSettings
    services = tuple(_DRIVERS)
    home_schemes = ("etcd", "etcds")

    settings: EtcdSettings
    # values and fences of other homes need not fit: nothing is copied
    names = Component.names
    portable = Component.portable

    def _acquire(self) -> EtcdEngine:
        from .engine import EtcdEngine

        return EtcdEngine.acquire(self.settings)

    def key(self, service: str, name: str, *rest: str) -> bytes:
        """Return a key; a name has no slash then, and the last part what it has."""
        *parts, last = (quote(name, safe=""), *rest)
        return "/".join((self.settings.prefix, service, *parts, last)).encode()

    def native(self, service: str, name: str) -> Any:
        """Refuse: this component speaks the protocol itself."""
        raise no_native(service, name)

    def driver(self, service: str, name: str) -> Driver:
        if service not in _DRIVERS:
            raise UnsupportedError(f"etcd has no {service}: add [{service}.{name}] with a component that has it")
        result: Driver = getattr(self._module(service), _DRIVERS[service])(self, name)
        return result

    def ready(self) -> None:
        self.engine.ready(Operation(_READY, self.name, 5.0))


component = EtcdComponent
