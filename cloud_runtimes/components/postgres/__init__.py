"""PostgreSQL: a home for many machines. One database and one schema for all services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..._core.extras import importing
from ..._core.home import is_durable
from ...config import ClientSettings
from ...errors import ClosedError
from ...spi.operation import Method, Operation
from .._home import HomeComponent
from .settings import PostgresSettings

if TYPE_CHECKING:
    from ...spi.change import Change
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from .connection import Connection, Flow
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


class PostgresComponent(HomeComponent):
    """Drivers over one shared database."""

    name = "postgres"
    Settings = PostgresSettings
    services = tuple(_DRIVERS)

    settings: PostgresSettings

    def __init__(self, settings: PostgresSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self.durable = is_durable(settings.durability)
        self._database: PostgresDatabase | None = None

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

    def commit(self, op: Operation, changes: Sequence[Change], *, relaxed: bool = False) -> None:
        """Apply changes in one transaction."""
        self.database.run(op, self._committing(changes, relaxed))

    async def commit_async(self, op: Operation, changes: Sequence[Change]) -> None:
        """Apply changes in one transaction."""
        await self.database.run_async(op, self._committing(changes, False), self.executor)

    def _committing(self, changes: Sequence[Any], relaxed: bool) -> Callable[[Connection], Flow[None]]:
        from .changes import commit

        settings = self.settings
        relaxed = relaxed or not self.durable
        return lambda connection: commit(
            connection, changes, schema=settings.schema, retention=settings.retention, relaxed=relaxed
        )

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

    def ready(self) -> None:
        self.database.open(Operation(_READY, self.name, 5.0))

    def close(self, timeout: float | None) -> None:
        super().close(timeout)
        with self._lock:
            database, self._database = self._database, None
        if database is not None:
            database.notifier.wake_all()  # who waits for this client looks whether it is open
            database.release()


component = PostgresComponent
