"""etcd: a home for many machines, and the store that clusters keep their configuration in. State, configuration, locks, jobs, and the registry of services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from ...config import duration, setting
from ...spi.component import Component
from .._net.engines import EngineComponent

if TYPE_CHECKING:
    from ...spi.operation import Operation
    from .engine import EtcdEngine

__all__ = ["EtcdComponent", "EtcdSettings", "component"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """Settings of the component.

    Attributes:
        url: of the servers, ``etcd://user:password@host:2379``, with ``etcds://`` for TLS. Several servers of a cluster: ``etcd://user:password@a:2379,b:2379,c:2379``.
        prefix: of all keys; applications with the same one share their data. It may have slashes.
        max_value_bytes: largest value of state, value of configuration and data of a job, encoded. The server's ``--max-request-bytes``, 1.5 MiB by default, is a limit of each request too.
        max_operations: of one transaction, as the server's ``--max-txn-ops`` has it.
        history: seconds that the record of a job's run stays.
        history_runs: how many records of one job stay at most.
        tls_ca: file of the certificates that the server's must descend from, else those of the system.
        tls_certificate: file of this client's own certificate.
        tls_key: file of its key.
    """

    url: str = setting(None, help="of the servers")
    prefix: str = setting("cr", help="of all keys")
    max_value_bytes: int = setting(1024 * 1024, help="largest value")
    max_operations: int = setting(128, help="of one transaction, as the server has it")
    history: float = setting(7 * 86400.0, parse=duration, help="how long records of runs stay")
    history_runs: int = setting(1000, help="records of runs of one job")
    tls_ca: str | None = setting(None, help="file of trusted certificates")
    tls_certificate: str | None = setting(None, help="file of the client's certificate")
    tls_key: str | None = setting(None, help="file of its key")

    def __post_init__(self) -> None:
        if not self.url or not self.url.startswith(("etcd://", "etcds://")):
            raise ValueError('give url = "etcd://user:password@host:2379", or one with etcds:// for TLS')
        if not self.prefix.isprintable() or not 1 <= len(self.prefix) <= 128 or self.prefix.endswith("/"):
            raise ValueError("prefix must be 1 to 128 printable characters, the last one no slash")
        if not 1 <= self.max_value_bytes <= 64 * 1024 * 1024:
            raise ValueError("max_value_bytes must be 1 to 67,108,864")
        if not 8 <= self.max_operations <= 100_000:
            raise ValueError("max_operations must be 8 to 100,000")
        if self.history < 1:
            raise ValueError("history must be at least 1 s")
        if self.history_runs < 1:
            raise ValueError("history_runs must be at least 1")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give tls_certificate and tls_key together")
        if self.url.startswith("etcd://") and (self.tls_ca or self.tls_certificate):
            raise ValueError("tls_ca, tls_certificate and tls_key are for a url with etcds://")


class EtcdComponent(EngineComponent["EtcdEngine"]):
    """Drivers over one cluster."""

    name = "etcd"
    Settings = EtcdSettings
    engine_class = ("engine", "EtcdEngine")
    drivers: ClassVar = {
        "configuration": "EtcdConfiguration",
        "lock": "EtcdLock",
        "rpc": "EtcdRpc",
        "schedule": "EtcdSchedule",
        "state": "EtcdState",
    }
    services = tuple(drivers)
    home_schemes = ("etcd", "etcds")

    settings: EtcdSettings
    _engine: EtcdEngine | None
    # values and fences of other homes need not fit: nothing is copied
    portable = Component.portable

    def names(self, op: Operation, service: str) -> list[str]:
        names: list[str] = self.engine.run(op, self._module("engine").names_of(self, service))
        return names

    def key(self, service: str, name: str, *rest: str) -> bytes:
        """Return a key; a name has no slash then, and the last part what it has."""
        *parts, last = (quote(name, safe=""), *rest)
        return "/".join((self.settings.prefix, service, *parts, last)).encode()


component = EtcdComponent
