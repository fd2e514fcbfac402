"""SQLAlchemy: any database that it has a dialect for, and without a URL an SQLite file per store name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from ..._core.home import home_folder, is_memory
from ..._core.os_folders import NO_NAME
from ..._core.threads import Mutex
from ...config import ClientSettings, setting, without_values
from ...errors import InvalidArgumentError
from ...spi.component import Component

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from .pool import ConnectionPool

__all__ = ["SqlAlchemyComponent", "SqlAlchemySettings", "component"]

_APART: Final = "\0apart"
"""Behind a store name: its pool for what does not wait for the application's transactions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlAlchemySettings:
    """Settings of the component.

    Attributes:
        url: of the database, as SQLAlchemy has it: ``postgresql://user:password@host/name``, ``sqlite:///orders.db``; none: an SQLite file of its own per store name, in ``home/databases``.
        home: folder of these files, else ``CLOUD_RUNTIMES_HOME``, else ``./.cloud_runtimes``; ``":memory:"``: one database per client and store name, in the process.
        schemas: of PostgreSQL: each store name is a schema of the database, made when it is first used.
        pool_size: connections at most; a transaction and an unfinished stream hold one each. Where events wait in a server's database for a broker there is one more.
        durability: for SQLite: ``"full"``: what is committed survives a power cut; ``"relaxed"``: a power cut may cost the last commits. Default: ``CLOUD_RUNTIMES_DURABILITY``, else full.
    """

    url: str | None = setting(None, help="of the database")
    home: str | None = setting(None, help="folder of the databases")
    schemas: bool = setting(False, help="a schema of PostgreSQL for each store name")
    pool_size: int = setting(10, help="connections at most")
    durability: Literal["full", "relaxed"] | None = setting(None, help="full or relaxed")

    def __post_init__(self) -> None:
        if self.url is not None and self.home is not None:
            raise ValueError("give url or home, not both")
        if self.url is not None and "://" not in self.url:
            raise ValueError("url: give one such as postgresql://user:password@host/name")
        if not 1 <= self.pool_size <= 1000:
            raise ValueError("pool_size must be 1 to 1,000")


class SqlAlchemyComponent(Component):
    """Component with one pool of connections per store name."""

    name = "sqlalchemy"
    Settings = SqlAlchemySettings
    services = ("database",)
    home_schemes = ("postgresql", "postgres")

    settings: SqlAlchemySettings

    def __init__(self, settings: SqlAlchemySettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        durability = settings.durability or os.environ.get("CLOUD_RUNTIMES_DURABILITY") or "full"
        if durability not in ("full", "relaxed"):
            raise InvalidArgumentError("CLOUD_RUNTIMES_DURABILITY: give full or relaxed")
        self._durable = durability == "full"
        self._lock = Mutex()
        self._pools: dict[str, ConnectionPool] = {}

    @classmethod
    def home_table(cls, service: str, url: str) -> dict[str, Any]:
        return {"url": f"postgresql+psycopg://{url.partition('://')[2]}", "schemas": True}

    def driver(self, service: str, name: str) -> Driver:
        from .driver import SqlDatabase

        url = self.settings.url or "sqlite:"
        # a file has no transactions side by side, and one in memory no second connection
        apart = (
            None
            if url.startswith("sqlite")
            else lambda: self._pools.get(f"{name}{_APART}") or self._make(name, apart=True)
        )
        return SqlDatabase(lambda: self._pools.get(name) or self._make(name), url, apart)

    def native(self, service: str, name: str) -> Any:
        """Return SQLAlchemy's ``Engine``."""
        return (self._pools.get(name) or self._make(name)).engine

    @without_values
    def _make(self, name: str, *, apart: bool = False) -> ConnectionPool:
        from ..._core import extras

        key = f"{name}{_APART}" if apart else name
        with extras.importing(f"database {name!r}", "database"), self._lock:
            pool = self._pools.get(key)
            if pool is None:
                from .pool import ConnectionPool

                pool = self._pools[key] = ConnectionPool(
                    name,
                    self.settings.url or self._embedded(name),
                    self.executor,
                    pool_size=1 if apart else self.settings.pool_size,
                    durable=self._durable,
                    embedded=self.settings.url is None,
                    schema=name if self.settings.schemas else None,
                )
            return pool

    def _embedded(self, name: str) -> object:
        """Return the URL of the file of a store name."""
        from sqlalchemy import URL

        home = home_folder(self.settings.home)
        if is_memory(home):
            return URL.create("sqlite")
        return URL.create("sqlite", database=os.path.join(home, "databases", _file_name(name)))

    def ready(self) -> None:
        from ...spi.database import ListTables
        from ...spi.operation import Method, Operation
        from .driver import SqlDatabase

        if self.settings.url is not None:
            op = Operation(Method("database", "wait_ready", repeatable=True, writes=False), self.name, 5.0)
            SqlDatabase(lambda: self._make("ready"), "").run(op, ListTables())

    def close(self, timeout: float | None) -> None:
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close(timeout)


def _file_name(name: str) -> str:
    """Return a file name that is safe on every system, and another for each store name, whatever is in it."""
    safe = quote(name, safe=" ")
    if name.startswith((".", "~")) or len(safe) > 200 or NO_NAME.search(f"{safe}.db"):
        return f"%{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}.db"
    return f"{safe}.db"


component = SqlAlchemyComponent
