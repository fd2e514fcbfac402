"""The registry of services on PostgreSQL: one row per server, a lease by the server's clock, and one secret for the schema."""

from __future__ import annotations

import os
from typing import Final

from ...rpc.registry import Entry, Registry, RegistryRpc
from ...spi.operation import Operation
from .._rpc import read_servers
from . import PostgresComponent
from .connection import Connection, Flow
from .database import on_connection
from .statement import RELAXED, Statement

_SIZE: Final = 32
_FIND: Final = Statement(
    "SELECT instance, address FROM {schema}.services WHERE app_id = $1 AND deadline > {schema}.now_ms()", "text"
)
_ENTER: Final = Statement(
    "INSERT INTO {schema}.services (instance, app_id, address, about, deadline) "
    "VALUES ($1, $2, $3, $4, {schema}.now_ms() + $5) "
    "ON CONFLICT (instance) DO UPDATE SET about = excluded.about, deadline = excluded.deadline",
    "text text text text int8",
)
_TIDY: Final = Statement("DELETE FROM {schema}.services WHERE deadline <= {schema}.now_ms()")
_LEAVE: Final = Statement("DELETE FROM {schema}.services WHERE instance = $1", "text")
_SECRET: Final = Statement("SELECT value FROM {schema}.secrets WHERE name = 'rpc'")
_MAKE_SECRET: Final = Statement(
    "INSERT INTO {schema}.secrets (name, value) VALUES ('rpc', $1) ON CONFLICT DO NOTHING", "bytea"
)


class _Registry(Registry):
    def __init__(self, component: PostgresComponent) -> None:
        self._component = component
        self.database, self.executor = component.engine, component.executor
        self._secret: bytes | None = None

    @property
    def where(self) -> str:
        return self.database.where

    def _find(self, connection: Connection, app_id: str, /) -> Flow[list[Entry]]:
        return read_servers(app_id, (yield from connection.execute(_FIND, app_id)).rows)

    find, find_async = on_connection(_find)

    def find_all(self, op: Operation, prefix: str, /) -> list[Entry]:
        from .._inventory import list_servers
        from .portable import DatabaseTables

        return list_servers(DatabaseTables(self._component), op, prefix)

    def secret(self, op: Operation) -> bytes:
        if self._secret is None:
            self._secret = self.database.run(op, self._find_secret)
        return self._secret

    def _find_secret(self, connection: Connection) -> Flow[bytes]:
        rows = (yield from connection.execute(_SECRET)).rows
        if not rows:
            yield from connection.execute(_MAKE_SECRET, os.urandom(_SIZE))
            rows = (yield from connection.execute(_SECRET)).rows
        secret: bytes = rows[0][0]
        return secret

    def own_host(self, op: Operation) -> str:
        return self.database.run(op, self._own_host) or super().own_host(op)

    def _own_host(self, connection: Connection) -> Flow[str | None]:
        yield from ()
        return connection.own_host()

    def enter(self, op: Operation, entry: Entry, seconds: float, *, first: bool) -> None:
        # a registration is worth nothing after a crash of the server
        calls = [(RELAXED, ()), *([(_TIDY, ())] if first else []), (_ENTER, (*entry, int(seconds * 1000)))]
        self.database.run(op, lambda connection: connection.pipeline(calls))

    def leave(self, op: Operation, entry: Entry) -> None:
        self.database.run(op, lambda connection: connection.execute(_LEAVE, entry.instance))


class PostgresRpc(RegistryRpc):
    """RPC driver of one service, which the registry of one schema resolves.

    Whoever may read its secret may call and be called."""

    registry = _Registry
