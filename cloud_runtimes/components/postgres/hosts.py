"""The servers that a URL names: which one a new connection goes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg import conninfo

from ...errors import DeadlineExceededError
from ...spi.operation import Operation
from .connection import Connection
from .failures import ConnectionLost

_PATIENCE: Final = 5.0
"""Seconds for one of several servers."""
_DEFAULTS: Final = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""A connection over which nothing is sent learns in a minute that its server is gone."""


class Hosts:
    """See the module. The server that took the last connection is asked first, so one that hangs is not asked each time."""

    def __init__(self, url: str) -> None:
        self._each = _split(url)

    def open(self, connection: Connection, op: Operation) -> None:
        """Connect to the first server that is there and is what the URL wants.

        Raises:
            Lost, DeadlineExceededError: of the last one.
        """
        for index, part in self._attempts(op):
            try:
                connection.run(part, connection.open(self._each[index]))
                return self._first(index)
            except (ConnectionLost, DeadlineExceededError):
                if part is op:
                    raise
                connection.close()

    async def open_async(self, connection: Connection, op: Operation) -> None:
        """Asynchronous `open`."""
        for index, part in self._attempts(op):
            try:
                await connection.run_async(part, connection.open(self._each[index]))
                return self._first(index)
            except (ConnectionLost, DeadlineExceededError):
                if part is op:
                    raise
                connection.close()

    def _attempts(self, op: Operation) -> Iterator[tuple[int, Operation]]:
        """Yield the servers in turn, each with its share of the time; the last one has all that is left."""
        count = len(self._each)
        for index in range(count - 1):
            remaining = op.remaining()
            yield index, op.limited(_PATIENCE if remaining is None else min(_PATIENCE, remaining / (count - index)))
        yield count - 1, op

    def _first(self, index: int) -> None:
        if index:
            each = self._each
            self._each = [each[index], *each[:index], *each[index + 1 :]]


def _split(url: str) -> list[str]:
    """Return a conninfo for each server."""
    try:
        given: dict[str, Any] = {**_DEFAULTS, **conninfo.conninfo_to_dict(url)}
    except psycopg.Error:
        return [url]  # what is wrong with it is said when it is used
    names = [name for name in ("host", "hostaddr", "port") if name in given]
    lists = {name: str(given[name]).split(",") for name in names}
    count = max((len(each) for each in lists.values()), default=1)
    if count == 1 or given.get("target_session_attrs") == "prefer-standby":  # which libpq decides by looking at all
        return [conninfo.make_conninfo(**given)]
    conninfos = []
    for index in range(count):
        given |= {name: each[index % len(each)] for name, each in lists.items()}
        conninfos.append(conninfo.make_conninfo(**given))
    return conninfos
