"""PostgreSQL: a home for many machines. One database and one schema for all services."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..._core.extras import importing
from ..._core.home import is_durable
from ..._core.threads import Mutex
from ...config import ClientSettings
from ...errors import ClosedError
from ...spi.component import Component
from ...spi.operation import Method, Operation
from .settings import PostgresSettings

if TYPE_CHECKING:
    from ...rpc.peers import Peers
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from ...spi.portable import Portable
    from .database import PostgresDatabase

__all__ = ["PostgresComponent", "PostgresSettings", "component"]

_DRIVERS: Final = {
    "configuration": "PostgresConfiguration",
    "file": "PostgresFiles",
    "lock": "PostgresLock",
    "pubsub": "PostgresPubSub",
    "rpc": "PostgresRpc",
    "schedule": "PostgresSchedule",
    "state": "PostgresState",
}
_READY: Final = Method("postgres", "wait_ready", repeatable=True, writes=False)


class PostgresComponent(Component):
    """Drivers over one shared database.

    Attributes:
        durable: wait until a commit is on the server's disk.
    """

    name = "postgres"
    Settings = PostgresSettings
    services = tuple(_DRIVERS)

    settings: PostgresSettings

    def __init__(self, settings: PostgresSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self.durable = is_durable(settings.durability)
        self._lock = Mutex()
        self._database: PostgresDatabase | None = None
        self._peers: Peers | None = None
        self._closed = False

    @property
    def database(self) -> PostgresDatabase:
        """The database, made without I/O.

        Raises:
            ClosedError: the client was closed.
            UnsupportedError: psycopg is not installed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if self._database is None:
                with importing("PostgreSQL", "postgres"):
                    from .database import acquire

                self._database = acquire(self.settings)
            return self._database

    @property
    def peers(self) -> Peers:
        """The connections to services that the registry knows."""
        with self._lock:
            if self._peers is None:
                from ...rpc.peers import Peers

                self._peers = Peers()
            return self._peers

    def check_open(self) -> None:
        """Refuse to go on waiting once the client was closed, though the database may serve others."""
        if self._closed:
            raise ClosedError("the client was closed while this call waited")

    def behind(self, work: Any) -> None:
        """Run a flow in the background; see `PostgresDatabase.behind`."""
        with suppress(ClosedError):  # then the lease expires
            self.database.behind(work)

    def native(self, service: str, name: str) -> Any:
        """Return a new ``psycopg.Connection`` to the database. Its caller closes it."""
        self.ready()
        import psycopg

        return psycopg.connect(self.settings.url)

    def driver(self, service: str, name: str) -> Driver:
        with importing("PostgreSQL", "postgres"):
            made: Driver = getattr(import_module(f".{service}", __package__), _DRIVERS[service])(self, name)
        return made

    def names(self, op: Operation, service: str) -> list[str]:
        with importing("PostgreSQL", "postgres"):
            from .portable import names
        return names(self, op, service)

    def portable(self, service: str, name: str) -> Portable:
        with importing("PostgreSQL", "postgres"):
            from .portable import portable
        return portable(self, service, name)

    def ready(self) -> None:
        self.database.open(Operation(_READY, self.name, 5.0))

    def close(self, timeout: float | None) -> None:
        with self._lock:
            self._closed = True
            database, self._database = self._database, None
            peers, self._peers = self._peers, None
        if peers is not None:
            peers.close()
        if database is not None:
            database.release()


component = PostgresComponent
