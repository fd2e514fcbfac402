"""PostgreSQL: a home for many machines. One database and one schema for all services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..._core.extras import importing
from ..._core.home import is_durable
from ...config import ClientSettings
from ...spi.operation import Method, Operation
from .._net.engines import EngineComponent
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


class PostgresComponent(EngineComponent["PostgresDatabase"]):
    """Drivers over one shared database."""

    name = "postgres"
    system = "postgresql"
    Settings = PostgresSettings
    services = tuple(_DRIVERS)
    home_schemes = ("postgresql", "postgres")

    settings: PostgresSettings

    def __init__(self, settings: PostgresSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self.durable = is_durable(settings.durability)

    def _acquire(self) -> PostgresDatabase:
        database: PostgresDatabase = self._module("database").PostgresDatabase.acquire(self.settings)
        return database

    def _module(self, name: str) -> Any:
        with importing("PostgreSQL", "postgres"):
            return super()._module(name)

    def commit(self, op: Operation, changes: Sequence[Change], *, relaxed: bool = False) -> None:
        """Apply changes in one transaction; a ``relaxed`` one does not wait for the server's disk."""
        self.engine.run(op, self._committing(changes, relaxed))

    async def commit_async(self, op: Operation, changes: Sequence[Change], *, relaxed: bool = False) -> None:
        """Asynchronous `commit`."""
        await self.engine.run_async(op, self._committing(changes, relaxed), self.executor)

    def _committing(self, changes: Sequence[Any], relaxed: bool) -> Callable[[Connection], Flow[None]]:
        from .changes import commit

        settings = self.settings
        return lambda connection: commit(
            connection, changes, schema=settings.schema, retention=settings.retention, relaxed=relaxed
        )

    def native(self, service: str, name: str) -> Any:
        """Return a new ``psycopg.Connection`` to the database. Its caller closes it."""
        self.ready()
        import psycopg

        return psycopg.connect(self.settings.url)

    def driver(self, service: str, name: str) -> Driver:
        instance: Driver = getattr(self._module(service), _DRIVERS[service])(self, name)
        return instance

    def ready(self) -> None:
        self.engine.open(Operation(_READY, self.name, 5.0))


component = PostgresComponent
