"""The registry of services in the embedded store: one row per server.

A row is a lease (boot id, CLOCK_BOOTTIME) with the process's name, so that a dead one is not called.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from ..._core.clocks import is_alive, process_name
from ...rpc.registry import Entry, Registry, RegistryRpc
from ...spi.operation import Operation
from .._rpc import read_servers
from . import SqliteComponent
from .secret import home_secret, restore_secret
from .writes import WriteTask

_FIND: Final = "SELECT instance, address, process FROM services WHERE app_id = ? AND boot = ? AND deadline > ?"
_ENTER: Final = (
    "INSERT INTO services (instance, app_id, address, about, process, boot, deadline) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (instance) DO UPDATE SET about = excluded.about, deadline = excluded.deadline"
)


class _Registry(Registry):
    """The rows of one store."""

    def __init__(self, context: SqliteComponent) -> None:
        self._context = context
        self._engine = context.engine
        process = process_name(os.getpid()) or f"{os.getpid()}::"
        self._holder = (process, context.clocks.boot_id())

    @property
    def where(self) -> str:
        return self._context.engine.path

    def check(self) -> str | None:
        if self._context.engine.memory:
            return "it is not in this process, and a store in memory has no registry"
        return None

    def find(self, op: Operation, app_id: str) -> list[Entry]:
        return self._living(app_id, self._context.engine.query(op, _FIND, self._lookup(app_id)))

    async def find_async(self, op: Operation, app_id: str) -> list[Entry]:
        return self._living(app_id, await self._context.engine.query_async(op, _FIND, self._lookup(app_id)))

    def _lookup(self, app_id: str) -> tuple[Any, ...]:
        return app_id, self._context.clocks.boot_id(), self._context.clocks.boot_ms()

    @staticmethod
    def _living(app_id: str, rows: list[Any]) -> list[Entry]:
        return read_servers(app_id, [row[:2] for row in rows if is_alive(row[2])])

    def find_all(self, op: Operation, prefix: str, /) -> list[Entry]:
        from .._inventory import list_servers
        from .portable import DatabaseTables

        return list_servers(DatabaseTables(self._context), op, prefix)

    def secret(self, op: Operation) -> bytes:
        engine = self._context.engine
        engine.open(op)
        return home_secret(Path(engine.path).parent)

    def enter(self, op: Operation, entry: Entry, seconds: float, *, first: bool) -> None:
        clocks = self._context.clocks

        def body(connection: sqlite3.Connection) -> None:
            now = clocks.boot_ms()
            if first:
                connection.execute("DELETE FROM services WHERE boot <> ? OR deadline <= ?", (self._holder[1], now))
            connection.execute(_ENTER, (*entry, *self._holder, now + int(seconds * 1000)))

        engine = self._context.engine
        engine.run(WriteTask(body, durable=False), op)  # a registration is worth nothing after a power cut
        if engine is not self._engine:  # the home was removed or emptied, and the secret with it
            restore_secret(Path(engine.path).parent)
            self._engine = engine

    def leave(self, op: Operation, entry: Entry) -> None:
        delete = "DELETE FROM services WHERE instance = ?"
        task = WriteTask(lambda connection: connection.execute(delete, (entry.instance,)), durable=False)
        self._context.engine.run(task, op)


class SqliteRpc(RegistryRpc):
    """RPC driver of one service, which it finds in the registry of a store."""

    registry = _Registry
