"""Notifications by ``LISTEN`` and ``NOTIFY``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import psycopg

from ...errors import CloudRuntimesError, UnsupportedError
from ...spi.operation import Method, Operation
from .._net.notify import Notifier
from .connection import Connection
from .failures import ConnectionLost, SqlFailure
from .pool import Hosts
from .statement import Statement

LISTEN_TIMEOUT: Final = 10.0
_LISTEN: Final = Method("postgres", "listen", repeatable=True, writes=False)
_SESSION: Final = Statement("SELECT pg_backend_pid()")
_NOTIFY: Final = Statement("SELECT pg_notify(channel, '') FROM unnest($1::text[]) AS channel", "text[]")


def notification(schema: str, channels: list[str]) -> tuple[Statement, tuple[Any, ...]]:
    """Return the statement that notifies channels once its transaction is committed."""
    return _NOTIFY, ([f"{schema}.{channel}" for channel in channels],)


class PostgresNotifier(Notifier):
    """The channels of one database.

    Args:
        conninfo: of a session of its own.
        schema: the channels' prefix.
        direct: the operator says that there is no pooler in transaction mode before the server.
    """

    failures = (ConnectionLost, SqlFailure, CloudRuntimesError, psycopg.Error, OSError)

    def __init__(self, conninfo: str, schema: str, *, direct: bool) -> None:
        super().__init__("postgres")
        self._hosts = Hosts(conninfo)
        self._direct = direct
        self._schema = schema

    def connect(self) -> _Listener:
        connection = Connection(self._schema, prepares=False)
        op = Operation(_LISTEN, "postgres", LISTEN_TIMEOUT)
        try:
            self._hosts.open(connection, op)
            # a pooler gives the client another number than that of the process that serves it
            if not self._direct:
                (session,) = connection.run(op, connection.execute(_SESSION)).rows[0]
                if session != connection.pg.backend_pid:
                    raise UnsupportedError(
                        "a pooler is before the server: set listen_url to the same database without it"
                    )
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
        self._run([(_SESSION, ())])

    def _run(self, calls: Sequence[tuple[Statement, tuple[()]]]) -> None:
        self._connection.run(Operation(_LISTEN, "postgres", LISTEN_TIMEOUT), self._connection.pipeline(calls))
