"""PostgreSQL: a home for many machines. One database and one schema for all services."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from ..._core.extras import importing
from ..._core.home import is_durable
from ...config import ClientSettings, duration, setting
from ...spi.operation import Operation
from .._net.engines import EngineComponent

if TYPE_CHECKING:
    from ...spi.change import Change
    from ...spi.executor import Executor
    from .connection import Connection, Flow
    from .database import PostgresDatabase
    from .relay import PostgresRelay

__all__ = ["PostgresComponent", "PostgresSettings", "component"]


_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """Settings of the component.

    Attributes:
        url: of the database, as libpq has it: ``postgresql://user:password@host/name?sslmode=verify-full``.
        listen_url: of the same database without a pooler, for ``LISTEN``, where ``url`` goes through PgBouncer in transaction mode.
        schema: that holds the tables; applications with the same one share their data.
        ensure: ``"create"``: the component makes and migrates its tables; ``"check"``: it refuses a schema that is missing or old, for accounts that may not create.
        max_connections: of one process. A waiter for a free one waits to its deadline.
        prepare: keep prepared statements; ``false`` behind PgBouncer before 1.21 in transaction mode.
        durability: ``"full"``: what is acknowledged is on the server's disk, and on its synchronous standbys. ``"relaxed"`` (``synchronous_commit = off``): a crash of the server may cost the last moments of everything but grants of locks. With ``listen_url`` that holds for events alone. Default: ``CLOUD_RUNTIMES_DURABILITY``, else full.
        max_value_bytes: largest value of state or configuration, or event payload, encoded.
        retention: seconds that an event stays at least, settled or not.
        group_expiry: seconds after which a consumer group that nobody asked for holds nothing back.
        history: seconds that the record of a job's run stays.
        history_runs: how many records of one job stay at most.
    """

    url: str = setting(None, help="of the database")
    listen_url: str | None = setting(None, help="of the database without a pooler")
    schema: str = setting("cloud_runtimes", help="that holds the tables")
    ensure: Literal["create", "check"] = setting("create", help="make the tables, or only check them")
    max_connections: int = setting(10, help="of one process")
    prepare: bool = setting(True, help="keep prepared statements")
    durability: Literal["full", "relaxed"] | None = setting(None, help="full or relaxed")
    max_value_bytes: int = setting(16 * 1024 * 1024, help="largest value or event")
    retention: float = setting(86400.0, parse=duration, help="how long events stay at least")
    group_expiry: float = setting(7 * 86400.0, parse=duration, help="when an unseen group holds nothing")
    history: float = setting(7 * 86400.0, parse=duration, help="how long records of runs stay")
    history_runs: int = setting(1000, help="records of runs of one job")

    def __post_init__(self) -> None:
        if not self.url:
            raise ValueError('give url = "postgresql://user:password@host/name"')
        for name, url in (("url", self.url), ("listen_url", self.listen_url)):
            if url is not None and not url.startswith(("postgresql://", "postgres://")):
                raise ValueError(f"{name}: give one such as postgresql://user:password@host/name")
        if not _SCHEMA.fullmatch(self.schema):
            raise ValueError("schema: at most 40 small letters, digits and underscores")
        if not 2 <= self.max_connections <= 1000:
            raise ValueError("max_connections must be 2 to 1,000")
        if not 1 <= self.max_value_bytes <= 256 * 1024 * 1024:
            raise ValueError("max_value_bytes must be 1 to 268,435,456")
        if self.history_runs < 1:
            raise ValueError("history_runs must be at least 1")


class PostgresComponent(EngineComponent["PostgresDatabase"]):
    """Drivers over one shared database."""

    name = "postgres"
    system = "postgresql"
    Settings = PostgresSettings
    engine_class = ("database", "PostgresDatabase")
    drivers: ClassVar = {
        "configuration": "PostgresConfiguration",
        "file": "PostgresFiles",
        "lock": "PostgresLock",
        "pubsub": "PostgresPubSub",
        "rpc": "PostgresRpc",
        "schedule": "PostgresSchedule",
        "state": "PostgresState",
    }
    services = tuple(drivers)
    home_schemes = ("postgresql", "postgres")

    settings: PostgresSettings
    _engine: PostgresDatabase | None
    _changes: Any = None

    def __init__(self, settings: PostgresSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self.durable = is_durable(settings.durability)

    def _module(self, name: str) -> Any:
        with importing("PostgreSQL", "postgres"):
            return super()._module(name)

    def commit(self, op: Operation, changes: Sequence[Change], *, relaxed: bool = False, shares: bool = False) -> None:
        """Apply changes in one transaction; a ``relaxed`` one does not wait for the server's disk, and one that ``shares`` may be part of a batch."""
        run = self.engine.share if shares else self.engine.run
        run(op, self._committing(changes, relaxed))

    async def commit_async(self, op: Operation, changes: Sequence[Change], *, relaxed: bool = False) -> None:
        """Asynchronous `commit`."""
        await self.engine.share_async(op, self._committing(changes, relaxed), self.executor)

    def _committing(self, changes: Sequence[Any], relaxed: bool) -> Callable[[Connection], Flow[None]]:
        if self._changes is None:
            self._changes = self._module("changes")
        settings, commit = self.settings, self._changes.commit
        return lambda connection: commit(
            connection, changes, schema=settings.schema, retention=settings.retention, relaxed=relaxed
        )

    def relay(self, name: str) -> PostgresRelay:
        relay: PostgresRelay = self._module("relay").PostgresRelay(self, name)
        return relay

    def native(self, service: str, name: str) -> Any:
        """Return a new ``psycopg.Connection`` to the database. Its caller closes it."""
        self.ready()
        import psycopg

        return psycopg.connect(self.settings.url)


component = PostgresComponent
