"""PostgreSQL: a home for many machines. One database and one schema for all services."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..._core.extras import importing
from ..._core.threads import Mutex
from ...config import ClientSettings
from ...errors import ClosedError, InvalidArgumentError
from ...spi.component import Component
from ...spi.operation import Method, Operation
from .settings import PostgresSettings

if TYPE_CHECKING:
    from ...rpc.peers import Peers
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from .database import PostgresDatabase
    from .rpc import PostgresRegistry

__all__ = ["PostgresComponent", "PostgresSettings", "component"]


class PostgresComponent(Component):
    """Drivers over one shared database."""

    name = "postgres"
    Settings = PostgresSettings
    services = ("configuration", "file", "lock", "pubsub", "rpc", "state")

    settings: PostgresSettings

    def __init__(self, settings: PostgresSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self._lock = Mutex()
        self._database: PostgresDatabase | None = None
        self._known_registry: PostgresRegistry | None = None
        self._known_peers: Peers | None = None
        self._closed = False
        durability = settings.durability or os.environ.get("CLOUD_RUNTIMES_DURABILITY") or "full"
        if durability not in ("full", "relaxed"):
            raise InvalidArgumentError("CLOUD_RUNTIMES_DURABILITY: give full or relaxed")
        self.durable = durability == "full"

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

    def _registry(self) -> PostgresRegistry:
        database = self.database
        with self._lock:
            if self._known_registry is None:
                from .rpc import PostgresRegistry

                self._known_registry = PostgresRegistry(database, self.executor)
            return self._known_registry

    def _peers(self) -> Peers:
        with self._lock:
            if self._known_peers is None:
                from ...rpc.peers import Peers

                self._known_peers = Peers()
            return self._known_peers

    def check_open(self) -> None:
        """Refuse to go on waiting once the client was closed, though the database may serve others."""
        if self._closed:
            raise ClosedError("the client was closed while this call waited")

    def behind(self, work: Any) -> None:
        """Run a flow in the background; see `PostgresDatabase.behind`."""
        try:
            self.database.behind(work)
        except ClosedError:
            pass  # the lease expires

    def native(self, service: str, name: str) -> Any:
        """Return a new ``psycopg.Connection`` to the database. Its caller closes it."""
        self.ready()
        import psycopg

        return psycopg.connect(self.settings.url)

    def driver(self, service: str, name: str) -> Driver:
        if service == "state":
            from .state import PostgresState

            return PostgresState(self, name)
        if service == "lock":
            from .lock import PostgresLock

            return PostgresLock(self, name)
        if service == "file":
            from .files import PostgresFiles

            return PostgresFiles(self, name)
        if service == "rpc":
            from ...rpc.registry import RegistryRpc

            return RegistryRpc(self._registry, self._peers, name, self.context.app_id)
        if service == "pubsub":
            from .pubsub import PostgresPubSub

            return PostgresPubSub(self, name)
        from .configuration import PostgresConfiguration

        return PostgresConfiguration(self, name)

    def ready(self) -> None:
        self.database.open(Operation(Method("postgres", "wait_ready", repeatable=True, writes=False), self.name, 5.0))

    def close(self, timeout: float | None) -> None:
        with self._lock:
            self._closed = True
            database, self._database = self._database, None
            peers, self._known_peers = self._known_peers, None
        if peers is not None:
            peers.close()
        if database is not None:
            database.release()


component = PostgresComponent
