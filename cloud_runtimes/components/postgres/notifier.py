"""Notifications by ``LISTEN`` and ``NOTIFY``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import psycopg

from ...errors import CloudRuntimesError
from ...spi.operation import Method, Operation
from .._notify import Notifier
from .connection import Connection, drive
from .failures import Lost, SqlFailure
from .statement import Statement

__all__ = ["PostgresNotifier", "notification"]

_LISTEN: Final = Method("postgres", "listen", repeatable=True, writes=False)
_NOTIFY: Final = Statement("SELECT pg_notify(channel, '') FROM unnest($1::text[]) AS channel", "text[]")


def notification(schema: str, channels: list[str]) -> tuple[Statement, tuple[Any, ...]]:
    """Return the statement that notifies channels once its transaction is committed."""
    return _NOTIFY, ([f"{schema}.{channel}" for channel in channels],)


class PostgresNotifier(Notifier):
    """The channels of one database.

    Args:
        conninfo: of a session of its own.
        schema: the channels' prefix.
    """

    failures = (Lost, SqlFailure, CloudRuntimesError, psycopg.Error, OSError)

    def __init__(self, conninfo: str, schema: str) -> None:
        super().__init__("postgres")
        self._conninfo = conninfo
        self._schema = schema

    def connect(self) -> _Listener:
        connection = Connection(self._schema, prepares=False)
        try:
            drive(connection.open(self._conninfo), connection, Operation(_LISTEN, "postgres", 10.0))
        except BaseException:
            connection.close()
            raise
        return _Listener(connection, self._schema)


class _Listener:
    """A session that listens."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def fileno(self) -> int:
        return self._connection.socket

    def close(self) -> None:
        self._connection.close()

    def follow(self, fresh: Collection[str], stale: Collection[str]) -> Collection[str]:
        calls = [(Statement(f'LISTEN "{self._schema}.{channel}"'), ()) for channel in fresh]
        calls += [(Statement(f'UNLISTEN "{self._schema}.{channel}"'), ()) for channel in stale]
        self._run(calls)
        return fresh

    def receive(self) -> Iterator[str]:
        pg = self._connection.pg
        pg.consume_input()
        while (notify := pg.notifies()) is not None:
            yield notify.relname.decode()[len(self._schema) + 1 :]

    def ask(self) -> None:
        self._run([(Statement("SELECT 1"), ())])

    def _run(self, calls: Sequence[tuple[Statement, tuple[()]]]) -> None:
        drive(self._connection.pipeline(calls), self._connection, Operation(_LISTEN, "postgres", 10.0))
