"""Pub/sub on SQLite: publishing to the log, and joining a group."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final

from ...errors import ResourceExhaustedError
from ...spi.admin import LOOKING, MENDING, PubSubAdmin
from ...spi.broker.policy import FEATURES
from ...spi.operation import Operation
from ...spi.pubsub import INBOX, KEY_ORDER, EventSource, Failures, OutgoingBatch, PubSubDriver, SubscribeRequest
from .._log.claims import count_in
from . import SqliteComponent, log
from .member import Member
from .ordered import KeyOrderMember
from .writes import SqliteChange, WriteTask

if TYPE_CHECKING:
    from .engine import Engine

_MAX_TOPICS: Final = 10_000
"""How many numbers of topics are remembered. Callers of a sidecar may publish to any topic."""
_SIZE: Final = (
    "SELECT coalesce(sum(size), 0), coalesce(max(id), 0) FROM frames WHERE id > ? AND topic IN (SELECT id FROM topics WHERE pubsub = ?)"
)
# all but the newest frames, of so many bytes together
_OLDEST: Final = """
SELECT id, count FROM (
  SELECT id, count, sum(size) OVER (ORDER BY id DESC) AS bytes FROM frames
  WHERE topic IN (SELECT id FROM topics WHERE pubsub = ?))
WHERE bytes > ?
"""
# rows of (events, claims, bitmap): what the group has not claimed, then its claims, those with one bitmap together
_LAG: Final = """
WITH g AS (SELECT g.* FROM topics t JOIN groups g ON g.topic = t.id WHERE t.pubsub = ? AND t.name = ? AND g.name = ?)
SELECT (SELECT coalesce(sum(f.count - CASE f.id WHEN g.frame THEN g.position ELSE 0 END), 0)
  FROM frames f WHERE f.topic = g.topic AND f.id >= g.frame), 0, NULL FROM g
UNION ALL SELECT sum(c.count), count(*), c.settled FROM g JOIN claims c ON c.grp = g.id GROUP BY c.settled
"""


class SqlitePubSub(PubSubDriver):
    """Pub/sub driver of one name, which is a namespace of topics."""

    features = FEATURES | LOOKING | MENDING | {INBOX, KEY_ORDER}

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._name = name
        self.max_event_bytes = context.settings.max_value_bytes
        self.too_large_hint = "raise max_value_bytes, or send a reference to it instead"
        self._topics: dict[str, int] = {}
        # an upper bound of the log's size, and the last frame that it counts
        self._size, self._size_to = 0, 0

    @property
    def engine(self) -> Hashable:
        return self._engine.path

    # -- publishing -------------------------------------------------------

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        topic = batch.topic
        number = self._topics.get(topic)
        if number is None:
            number = self._remember(topic, self._engine.run(self._making(topic), op))
        if self._context.settings.max_bytes is not None:
            self._check_room(op, batch.size)
        self._engine.run(self._storing(number, batch), op)
        return {}

    async def publish_async(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        topic = batch.topic
        number = self._topics.get(topic)
        if number is None:
            number = self._remember(topic, await self._engine.run_async(self._making(topic), op))
        if self._context.settings.max_bytes is not None:
            await self._in_thread(self._check_room, op, batch.size)
        await self._engine.run_async(self._storing(number, batch), op)
        return {}

    def _remember(self, topic: str, number: int) -> int:
        if len(self._topics) >= _MAX_TOPICS:
            self._topics.clear()
        self._topics[topic] = number
        return number

    def _making(self, topic: str) -> WriteTask:
        durable = self._context.durable
        return WriteTask(lambda connection: log.find_topic(connection, self._name, topic), durable=durable)

    def _storing(self, topic: int, batch: OutgoingBatch) -> WriteTask:
        self._context.sweeping()
        task = WriteTask(None, durable=self._context.durable, size=batch.size, channels=(log.topic_channel(topic),))
        if batch.delay_ms is None:
            task.rows = self._rows(topic, batch)
        else:
            task.body = lambda connection: self._insert(connection, topic, batch)
        return task

    def _rows(self, topic: int, batch: OutgoingBatch) -> list[tuple[Any, ...]]:
        now = self._engine.clocks.wall_ms()
        return [(topic, count_in(frame), len(frame), now, frame) for frame in batch.frames]

    def _insert(self, connection: sqlite3.Connection, topic: int, batch: OutgoingBatch) -> None:
        if batch.delay_ms is None:
            log.insert_frames(connection, self._rows(topic, batch))
            return
        due = self._engine.clocks.wall_ms() + batch.delay_ms
        delayed = [(topic, due, count_in(frame), frame) for frame in batch.frames]
        connection.executemany("INSERT INTO delayed (topic, due, count, body) VALUES (?, ?, ?, ?)", delayed)

    def change(self, batch: OutgoingBatch, /) -> SqliteChange:
        self._context.sweeping()

        def body(connection: sqlite3.Connection) -> tuple[str, ...]:
            self.make_room(connection, batch.size)
            topic = log.find_topic(connection, self._name, batch.topic)
            self._insert(connection, topic, batch)
            return (log.topic_channel(topic),)

        return SqliteChange(body)

    def _check_room(self, op: Operation, more: int) -> None:
        """Keep the log of this name below ``max_bytes``."""
        limit = self._context.settings.max_bytes
        assert limit is not None
        for fresh in (False, True):
            if fresh:  # the bound only grows; count again before anybody is refused
                self._size, self._size_to = 0, 0
            grown, last = self._engine.query(op, _SIZE, (self._size_to, self._name))[0]
            self._size, self._size_to = self._size + grown, max(last, self._size_to)
            if self._size + more <= limit:
                return
        if self._context.settings.when_full == "drop_oldest" and more < limit:
            self._engine.run(WriteTask(lambda c: self._drop_oldest(c, limit - more), durable=False), op)
            self._size, self._size_to = 0, 0
            return
        raise self._full(self._size, limit)

    def _full(self, size: int, limit: int) -> ResourceExhaustedError:
        return ResourceExhaustedError(
            f"the log of {self._name!r} holds {size:,} bytes of {limit:,}: consume it, lower retention, raise max_bytes, "
            'or set when_full = "drop_oldest"'
        )

    def make_room(self, connection: sqlite3.Connection, more: int) -> None:
        """Keep the log of this name below ``max_bytes``, inside of a transaction."""
        limit = self._context.settings.max_bytes
        if limit is None:
            return
        size = connection.execute(_SIZE, (0, self._name)).fetchone()[0]
        if size + more > limit:
            if self._context.settings.when_full != "drop_oldest" or more >= limit:
                raise self._full(size, limit)
            self._drop_oldest(connection, limit - more)
            self._size, self._size_to = 0, 0

    def _drop_oldest(self, connection: sqlite3.Connection, keep: int) -> None:
        rows = connection.execute(_OLDEST, (self._name, keep)).fetchall()
        dropped = [(id,) for id, _ in rows]
        connection.executemany("DELETE FROM frames WHERE id = ?", dropped)
        connection.executemany("DELETE FROM claims WHERE frame = ?", dropped)
        log.count(connection, f"dropped_oldest:{self._name}", sum(count for _, count in rows))

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        member = self._member(request)
        member.join(self._engine.run(member.joining(), op))
        return member

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        member = self._member(request)
        member.join(await self._engine.run_async(member.joining(), op))
        return member

    def _member(self, request: SubscribeRequest) -> Member:
        return (Member if request.order is None else KeyOrderMember)(self._context, self._name, request)

    def lag(self, op: Operation, topic: str, group: str, /) -> int | None:
        rows = self._engine.query(op, _LAG, (self._name, topic, group))
        return (
            sum(events - claims * int.from_bytes(done or b"").bit_count() for events, claims, done in rows)
            if rows
            else None
        )

    def admin(self) -> PubSubAdmin:
        from .admin import admin

        return admin(self._context, self._name)
