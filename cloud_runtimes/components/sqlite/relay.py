"""Events that wait in the log of a home for a broker of another engine: frames of topics under a hidden pub/sub name."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

from ..._core.arguments import HIDDEN
from ..._core.home import is_memory
from ...spi.operation import Operation
from ...spi.pubsub import OutgoingBatch
from ...spi.relay import Backlog, SpoolLog, Waiting
from . import SqliteComponent, log
from .pubsub import SqlitePubSub
from .state import SqliteState
from .writes import SqliteChange, WriteTask

_PAGE: Final = 1000
"""Frames whose sizes are looked at together."""
_TOPICS: Final = """
SELECT t.id, EXISTS (SELECT 1 FROM delayed d WHERE d.topic = t.id AND d.due <= ?)
FROM topics t WHERE t.pubsub = ? ORDER BY t.id
"""
_SIZES: Final = "SELECT id, size FROM frames WHERE topic = ? AND id > ? ORDER BY id LIMIT ?"
_FRAMES: Final = "SELECT id, count, created, body FROM frames WHERE topic = ? AND id > ? AND id <= ? ORDER BY id"
_BACKLOG: Final = """
SELECT coalesce(sum(f.count), 0), coalesce(sum(f.size), 0), min(f.created) FROM topics t JOIN frames f ON f.topic = t.id WHERE t.pubsub = :name
UNION ALL SELECT coalesce(sum(d.count), 0), coalesce(sum(length(d.body)), 0), NULL
FROM topics t JOIN delayed d ON d.topic = t.id WHERE t.pubsub = :name
"""
_FORWARDED: Final = "forwarded:"
_DROPPED: Final = "dropped_oldest:"
_REJECTED: Final = "rejected:"
_COUNTERS: Final = "SELECT name, value FROM counters WHERE name IN (?, ?, ?)"
_NAMES: Final = f"""
SELECT DISTINCT pubsub FROM topics t WHERE pubsub >= '{HIDDEN}' AND pubsub < '{HIDDEN[:-1]}}}'
AND (EXISTS (SELECT 1 FROM frames WHERE topic = t.id) OR EXISTS (SELECT 1 FROM delayed WHERE topic = t.id))
"""
_TOO_OLD: Final = (
    "SELECT f.id, f.count FROM topics t JOIN frames f ON f.topic = t.id WHERE t.pubsub = ? AND f.created < ?"
)


class SqliteRelay(SpoolLog):
    """See the module.

    Attributes:
        log: the pub/sub driver of the hidden name, which stores events.
    """

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine = context.engine
        self._name = name
        self.lock_path = f"{self._engine.path}-forwarder"
        self.log = SqlitePubSub(context, name)
        self.leases = SqliteState(context, f"{HIDDEN}relay{HIDDEN}")

    def change(self, batch: OutgoingBatch, /) -> SqliteChange:
        return self.log.change(batch)

    def waiting(
        self, op: Operation, after: Mapping[int, int] | None, limit: int, held: Collection[int], /
    ) -> tuple[Sequence[Waiting], Mapping[int, int]]:
        wall = self._engine.clocks.wall_ms()
        last = dict(after or {})
        waiting: list[Waiting] = []
        for topic, is_due in self._engine.query(op, _TOPICS, (wall, self._name)):
            if is_due:
                move = partial(log.move_delayed, topic=topic, wall_ms=wall)
                self._engine.run(WriteTask(move, durable=False), op)
            first = end = last.get(topic, 0)
            while limit > 0:
                sizes = self._engine.query(op, _SIZES, (topic, end, _PAGE))
                for id, size in sizes:
                    end, limit = id, limit - size
                    if limit <= 0:
                        break
                if len(sizes) < _PAGE:
                    break
            if end > first:
                rows = self._engine.query(op, _FRAMES, (topic, first, end))
                waiting += [Waiting(id, body, count, None, created) for id, count, created, body in rows]
                last[topic] = end
        return waiting, last

    def removal(self, waiting: Sequence[Waiting], forwarded: int, dropped: int, /) -> SqliteChange:
        def body(connection: sqlite3.Connection) -> tuple[str, ...]:
            gone = 0
            for each in waiting:
                if not connection.execute("DELETE FROM frames WHERE id = ?", (each.token,)).rowcount:
                    gone += each.events
            for name, count in ((_FORWARDED, forwarded), (_DROPPED, dropped - gone)):
                if count:
                    log.count(connection, f"{name}{self._name}", count)
            return ()

        return SqliteChange(body)

    def backlog(self, op: Operation, /) -> Backlog:
        (events, size, oldest), (delayed, more, _) = self._engine.query(op, _BACKLOG, {"name": self._name})
        names = tuple(f"{each}{self._name}" for each in (_FORWARDED, _DROPPED, _REJECTED))
        counters = dict(self._engine.query(op, _COUNTERS, names))
        return Backlog(events + delayed, size + more, oldest, *(counters.get(name, 0) for name in names))

    def names(self, op: Operation, /) -> Sequence[str]:
        if not (is_memory(self._context.path) or os.path.exists(self._context.path)):
            return []  # whoever only asks makes no database
        return [name for (name,) in self._engine.query(op, _NAMES)]

    # -- a spool ----------------------------------------------------------

    def append(self, op: Operation, body: bytes, records: int, /) -> None:
        def write(connection: sqlite3.Connection) -> None:
            self.log.make_room(connection, len(body))
            topic = log.find_topic(connection, self._name, "")
            log.append(connection, topic, records, body, self._engine.clocks.wall_ms())

        self._engine.run(WriteTask(write, durable=self._context.durable, size=len(body)), op)

    def settle(self, op: Operation, sent: Sequence[Waiting], forwarded: int, rejected: int, /) -> None:
        removal = self.removal(sent, forwarded, 0)

        def write(connection: sqlite3.Connection) -> None:
            removal.apply(connection)
            if rejected:
                log.count(connection, f"{_REJECTED}{self._name}", rejected)

        # what a power cut brings back is sent again
        self._engine.run(WriteTask(write, durable=False), op)

    def expire(self, op: Operation, max_age: float, /) -> None:
        before = self._engine.clocks.wall_ms() - int(max_age * 1000)
        if not self._engine.query(op, f"{_TOO_OLD} LIMIT 1", (self._name, before)):
            return

        def body(connection: sqlite3.Connection) -> None:
            rows = connection.execute(_TOO_OLD, (self._name, before)).fetchall()
            connection.executemany("DELETE FROM frames WHERE id = ?", [(id,) for id, _ in rows])
            log.count(connection, f"{_DROPPED}{self._name}", sum(count for _, count in rows))

        self._engine.run(WriteTask(body, durable=self._context.durable), op)
