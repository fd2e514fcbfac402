"""Pub/sub on SQLite: the publishing side of the log, and how a member joins."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from ...errors import ResourceExhaustedError
from ...spi import pubsub as spi
from ...spi.operation import Operation
from ...spi.pubsub import EventSource, Failures, OutgoingBatch, PubSubDriver, SubscribeRequest
from . import log
from .member import Member
from .write_task import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine

__all__ = ["SqlitePubSub", "channel"]

_MAX_TOPICS: Final = 10_000
"""Whose numbers are remembered: callers of a sidecar may publish to any."""
_TOPIC: Final = "SELECT id FROM topics WHERE pubsub = ? AND name = ?"
_SIZE: Final = (
    "SELECT coalesce(sum(size), 0), coalesce(max(id), 0) FROM frames WHERE id > ? AND topic IN (SELECT id FROM topics WHERE pubsub = ?)"
)


def channel(topic: int) -> str:
    """Return the channel of a topic."""
    return f"topic-{topic}"


class SqlitePubSub(PubSubDriver):
    """One pub/sub name: a namespace of topics."""

    features = frozenset(
        {
            spi.TTL,
            spi.DELAY,
            spi.RAW,
            spi.GROUP,
            spi.START,
            spi.SUBSCRIBE,
            spi.ACK_WAIT,
            spi.MAX_DELIVERIES,
            spi.DEAD_LETTER,
            spi.RETRY_DELAY,
            spi.DELIVERY_COUNT,
        }
    )

    def __init__(self, component: SqliteComponent, name: str) -> None:
        self.component = component
        self.engine: Engine = component.engine
        self.name = name
        self.max_event_bytes = component.settings.max_value_bytes
        self.larger_events = "raise max_value_bytes, or send a reference to it instead"
        self._topics: dict[str, int] = {}
        # an upper bound of the log's size, and the frame up to which it counts
        self._size, self._size_to = 0, 0

    # -- publishing -------------------------------------------------------

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        topic = batch.topic
        number = self._topics.get(topic)
        if number is None:
            number = self._know(topic, self.engine.query(op, _TOPIC, (self.name, topic)))
            if number is None:
                number = self._remember(topic, self.engine.run(self._making(topic), op))
        if self.component.settings.max_bytes is not None:
            self._check_room(op, batch.size)
        self.engine.run(self._storing(number, batch), op)
        return {}

    async def publish_async(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        topic = batch.topic
        number = self._topics.get(topic)
        if number is None:
            number = self._know(topic, await self.engine.query_async(op, _TOPIC, (self.name, topic)))
            if number is None:
                number = self._remember(topic, await self.engine.run_async(self._making(topic), op))
        if self.component.settings.max_bytes is not None:
            import asyncio

            await asyncio.to_thread(self._check_room, op, batch.size)
        await self.engine.run_async(self._storing(number, batch), op)
        return {}

    def _know(self, topic: str, rows: list[Any]) -> int | None:
        return self._remember(topic, rows[0][0]) if rows else None

    def _remember(self, topic: str, number: int) -> int:
        if len(self._topics) >= _MAX_TOPICS:
            self._topics.clear()
        self._topics[topic] = number
        return number

    def _making(self, topic: str) -> WriteTask:
        return WriteTask(
            lambda connection: log.find_topic(connection, self.name, topic), durable=self.component.durable
        )

    def _storing(self, topic: int, batch: OutgoingBatch) -> WriteTask:
        self.component.sweeping()
        now = self.engine.clocks.wall_ms()
        size = batch.size
        if batch.delay_ms is None:
            rows = [(topic, log.count_in(frame), len(frame), now, frame) for frame in batch.frames]
            return WriteTask(None, durable=self.component.durable, rows=rows, size=size, channels=(channel(topic),))
        delayed = [(topic, now + batch.delay_ms, log.count_in(frame), frame) for frame in batch.frames]

        def body(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO delayed (topic, due, count, body) VALUES (?, ?, ?, ?)", delayed)

        return WriteTask(body, durable=self.component.durable, size=size, channels=(channel(topic),))

    def _check_room(self, op: Operation, more: int) -> None:
        """Keep the log of this name below ``max_bytes``."""
        limit = self.component.settings.max_bytes
        assert limit is not None
        for fresh in (False, True):
            if fresh:  # the bound only grows; count again before anybody is refused
                self._size, self._size_to = 0, 0
            grown, last = self.engine.query(op, _SIZE, (self._size_to, self.name))[0]
            self._size, self._size_to = self._size + grown, max(last, self._size_to)
            if self._size + more <= limit:
                return
        if self.component.settings.when_full == "drop_oldest" and more < limit:
            self.engine.run(WriteTask(lambda c: self._drop_oldest(c, limit - more), durable=False), op)
            self._size, self._size_to = 0, 0
            return
        raise ResourceExhaustedError(
            f"the log of {self.name!r} holds {self._size:,} bytes of {limit:,}: consume it, lower retention, raise max_bytes, "
            'or set when_full = "drop_oldest"'
        )

    def _drop_oldest(self, connection: sqlite3.Connection, keep: int) -> None:
        total = int(connection.execute(_SIZE, (0, self.name)).fetchone()[0])
        rows = connection.execute(
            "SELECT id, count, size FROM frames WHERE topic IN (SELECT id FROM topics WHERE pubsub = ?) ORDER BY id",
            (self.name,),
        )
        dropped: list[tuple[int]] = []
        events = 0
        for id, count, size in rows:
            if total <= keep:
                break
            dropped.append((id,))
            events += count
            total -= size
        connection.executemany("DELETE FROM frames WHERE id = ?", dropped)
        connection.executemany("DELETE FROM claims WHERE frame = ?", dropped)
        log.count(connection, f"dropped_oldest:{self.name}", events)

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        member = Member(self, request)
        joined = self.engine.run(member.joining(), op)
        try:
            member.join(joined)
        except BaseException:
            member.unsubscribe()
            raise
        return member

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        import asyncio

        member = Member(self, request)
        joined = await self.engine.run_async(member.joining(), op)
        try:
            await asyncio.to_thread(member.join, joined)
        except BaseException:
            member.unsubscribe()
            raise
        return member
