"""The registry of services on PostgreSQL: one row per server, a lease by the server's clock, and one secret for the schema."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ...rpc.registry import LEASE, Entry, Registry
from ...spi.operation import Operation
from .connection import Connection, Flow
from .statement import RELAXED, Statement

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .database import PostgresDatabase

__all__ = ["PostgresRegistry"]

_SIZE: Final = 32
_FIND: Final = Statement(
    "SELECT instance, app_id, address FROM {schema}.services WHERE app_id = $1 AND deadline > {schema}.now_ms()", "text"
)
_ENTER: Final = Statement(
    "INSERT INTO {schema}.services (instance, app_id, address, deadline) VALUES ($1, $2, $3, {schema}.now_ms() + $4) "
    "ON CONFLICT (instance) DO UPDATE SET deadline = excluded.deadline",
    "text text text int8",
)
_TIDY: Final = Statement("DELETE FROM {schema}.services WHERE deadline <= {schema}.now_ms()")
_LEAVE: Final = Statement("DELETE FROM {schema}.services WHERE instance = $1", "text")
_SECRET: Final = Statement("SELECT value FROM {schema}.secrets WHERE name = 'rpc'")
_MAKE_SECRET: Final = Statement(
    "INSERT INTO {schema}.secrets (name, value) VALUES ('rpc', $1) ON CONFLICT DO NOTHING", "bytea"
)


class PostgresRegistry(Registry):
    """The registry of one schema. Whoever may read its secret may call and be called."""

    def __init__(self, database: PostgresDatabase, executor: Executor) -> None:
        self._database = database
        self._executor = executor
        self._secret: bytes | None = None

    @property
    def where(self) -> str:
        return self._database.where

    def find(self, op: Operation, app_id: str) -> list[Entry]:
        return self._database.run(op, lambda connection: self._find(connection, app_id))

    async def find_async(self, op: Operation, app_id: str) -> list[Entry]:
        return await self._database.run_async(op, lambda connection: self._find(connection, app_id), self._executor)

    def _find(self, connection: Connection, app_id: str) -> Flow[list[Entry]]:
        return [Entry(*row) for row in (yield from connection.run(_FIND, app_id)).rows]

    def secret(self, op: Operation) -> bytes:
        if self._secret is None:
            self._secret = self._database.run(op, self._find_secret)
        return self._secret

    def _find_secret(self, connection: Connection) -> Flow[bytes]:
        rows = (yield from connection.run(_SECRET)).rows
        if not rows:
            yield from connection.run(_MAKE_SECRET, os.urandom(_SIZE))
            rows = (yield from connection.run(_SECRET)).rows
        secret: bytes = rows[0][0]
        return secret

    def enter(self, op: Operation, entry: Entry, *, first: bool) -> None:
        # a registration is worth nothing after a crash of the server
        calls = [(RELAXED, ()), *([(_TIDY, ())] if first else []), (_ENTER, (*entry, int(LEASE * 1000)))]
        self._database.run(op, lambda connection: connection.pipeline(calls))

    def leave(self, op: Operation, entry: Entry) -> None:
        self._database.run(op, lambda connection: connection.run(_LEAVE, entry.instance))
