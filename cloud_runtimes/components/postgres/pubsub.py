"""Pub/sub on PostgreSQL: publishing to the log, and joining a group. ``docs/explanation/postgres.md``, "The log", explains it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ...spi.admin import LOOKING, MENDING, PubSubAdmin
from ...spi.broker.policy import FEATURES, DeliveryPolicy, begins_at
from ...spi.change import database_of
from ...spi.operation import Operation
from ...spi.pubsub import INBOX, KEY_ORDER, EventSource, Failures, OutgoingBatch, PubSubDriver, SubscribeRequest
from .._log.claims import count_in
from .._log.member import MEMBER_MS
from . import PostgresComponent
from .changes import Call, PostgresChange
from .claim import BEGINNING, UNSEEN
from .connection import Connection, Flow
from .database import PostgresDriver, on_connection
from .member import JOINED, STAY, Member, channel
from .ordered import PARTS, KeyOrderMember
from .statement import Statement

_MAX_TOPICS: Final = 10_000
"""How many numbers of topics are remembered. Callers of a sidecar may publish to any topic."""
_TOPIC: Final = Statement("SELECT id FROM {schema}.topics WHERE pubsub = $1 AND name = $2", "text text")
_MAKE_TOPIC: Final = Statement(
    "INSERT INTO {schema}.topics (pubsub, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", "text text"
)
# a statement for each frame: as an array they would be copied once more
_PUBLISH: Final = Statement("INSERT INTO {schema}.frames (topic, count, body) VALUES ($1, $2, $3)", "int8 int4 bytea")
_DELAY: Final = Statement(
    "INSERT INTO {schema}.delayed (topic, due, count, body) VALUES ($1, {schema}.now_ms() + $4, $2, $3)",
    "int8 int4 bytea int8",
)

_GROUP: Final = Statement("SELECT id, parts FROM {schema}.groups WHERE topic = $1 AND name = $2", "int8 text")
_MAKE_GROUP: Final = Statement(
    "INSERT INTO {schema}.groups (topic, name, past, present, xid, frame, seen, parts) "
    f"SELECT $1, $2, s.*, {{schema}}.now_ms(), $4 FROM ({BEGINNING.format(topic='$1', begins='$3')}) s ON CONFLICT DO NOTHING",
    "int8 text int8 int4",
)
_MAKE_PARTS: Final = Statement(
    "INSERT INTO {schema}.group_parts (grp, part, member) SELECT $1, generate_series(0, $2 - 1), '' ON CONFLICT DO NOTHING",
    "int8 int4",
)
_LAG: Final = Statement(
    "SELECT ((SELECT coalesce(sum(f.count), 0) FROM {schema}.frames f WHERE f.topic = g.topic AND "
    f"{UNSEEN}) + (SELECT coalesce(sum(c.count - coalesce(bit_count(c.settled), 0)), 0) "
    "FROM {schema}.claims c WHERE c.grp = g.id))::int8 FROM {schema}.topics t JOIN {schema}.groups g ON g.topic = t.id "
    "WHERE t.pubsub = $1 AND t.name = $2 AND g.name = $3",
    "text text text",
)


class PostgresPubSub(PostgresDriver, PubSubDriver):
    """Pub/sub driver of one name: a namespace of topics."""

    features = FEATURES | LOOKING | MENDING | {INBOX, KEY_ORDER}

    def __init__(self, component: PostgresComponent, name: str) -> None:
        super().__init__(component, name)
        self.max_event_bytes = component.settings.max_value_bytes
        self.too_large_hint = "raise max_value_bytes, or send a reference to it instead"
        self._topics: dict[str, int] = {}

    @property
    def engine(self) -> Hashable:
        return database_of(self.component.settings.url)

    # -- publishing -------------------------------------------------------

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        self.component.commit(op, [self.change(batch)], relaxed=not self.component.durable)
        return {}

    async def publish_async(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        await self.component.commit_async(op, [self.change(batch)], relaxed=not self.component.durable)
        return {}

    def change(self, batch: OutgoingBatch, /) -> _Publish:
        return _Publish(self.component, self, batch)

    def topic_of(self, connection: Connection, topic: str) -> Flow[int]:
        """Return a topic's number, which is remembered; makes it if need be."""
        return self._topics.get(topic) or (yield from self.find_topic(connection, topic))

    def find_topic(self, connection: Connection, topic: str) -> Flow[int]:
        """Return a topic's number as the database has it; makes it if need be."""
        rows = (yield from connection.execute(_TOPIC, self.name, topic)).rows
        if not rows:
            yield from connection.execute(_MAKE_TOPIC, self.name, topic)
            rows = (yield from connection.execute(_TOPIC, self.name, topic)).rows
        if len(self._topics) >= _MAX_TOPICS:
            self._topics.clear()
        number: int = rows[0][0]
        self._topics[topic] = number
        return number

    # -- subscribing ------------------------------------------------------

    def _join(self, connection: Connection, request: SubscribeRequest, /) -> Flow[EventSource]:
        topic = yield from self.find_topic(connection, request.topic)
        dead = None
        if request.dead_letter_topic is not None:
            dead = yield from self.find_topic(connection, request.dead_letter_topic)
        wanted = None if request.order is None else PARTS
        yield from connection.execute(_MAKE_GROUP, topic, request.group, begins_at(request), wanted)
        ((group, parts),) = (yield from connection.execute(_GROUP, topic, request.group)).rows
        DeliveryPolicy(self.name, request).check_order(has_order=parts is not None)
        yield from connection.execute(JOINED, group, request.dead_letter_topic)
        if parts is None:
            member = Member(self.component, self.name, request, topic, group, dead)
            yield from connection.execute(STAY, group, member.name, MEMBER_MS)
            return member
        yield from connection.execute(_MAKE_PARTS, group, parts)
        return KeyOrderMember(self.component, self.name, request, topic, group, dead)

    subscribe, subscribe_async = on_connection(_join)

    def _lag(self, connection: Connection, topic: str, group: str, /) -> Flow[int | None]:
        rows = (yield from connection.execute(_LAG, self.name, topic, group)).rows
        return rows[0][0] if rows else None

    lag, lag_async = on_connection(_lag)

    def admin(self) -> PubSubAdmin:
        from .admin import admin

        return admin(self.component, self.name)


class _Publish(PostgresChange):
    """A batch of events."""

    def __init__(self, component: PostgresComponent, driver: PostgresPubSub, batch: OutgoingBatch) -> None:
        super().__init__(component)
        self._driver = driver
        self._batch = batch

    def calls(self, connection: Connection) -> Flow[list[Call]]:
        batch = self._batch
        topic = yield from self._driver.topic_of(connection, batch.topic)
        self.channels = (channel(topic),)
        statement, due = (_PUBLISH, ()) if batch.delay_ms is None else (_DELAY, (batch.delay_ms,))
        return [(statement, (topic, count_in(frame), frame, *due)) for frame in batch.frames]
