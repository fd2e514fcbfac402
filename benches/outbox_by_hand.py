"""An outbox as applications write it by hand: a table that psycopg writes, and a thread that carries its rows to a broker.

An event is in CloudEvents' JSON, as ours is. The thread takes a thousand rows at a time, and deletes them once the broker
has them; it has neither a lease nor an order of keys over several processes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import psycopg

_TABLES = (
    "CREATE TABLE IF NOT EXISTS by_hand_orders (id text PRIMARY KEY, body bytea NOT NULL)",
    "CREATE TABLE IF NOT EXISTS by_hand (id bigserial PRIMARY KEY, topic text NOT NULL, key text, body bytea NOT NULL)",
)
_SAVE = "INSERT INTO by_hand_orders VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
_ADD = "INSERT INTO by_hand (topic, key, body) VALUES (%s, %s, %s)"
_READ = "SELECT id, topic, key, body FROM by_hand ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED"
_DELETE = "DELETE FROM by_hand WHERE id = ANY (%s)"
Row = tuple[int, str, str, bytes]
Send = Callable[[Sequence[Row]], None]


def to_kafka(servers: str, topics: Sequence[str]) -> Send:
    """Make topics, and return what sends rows with confluent-kafka and waits until all of them are acknowledged."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    admin = AdminClient({"bootstrap.servers": servers})
    for each in admin.create_topics([NewTopic(each) for each in topics]).values():
        each.result()
    producer = Producer(
        {"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
    )

    def acknowledged(error: Any, _: Any) -> None:
        if error is not None:
            raise RuntimeError(error)

    def send(rows: Sequence[Row]) -> None:
        for _, topic, key, body in rows:
            producer.produce(topic, body, key, on_delivery=acknowledged)
        producer.flush()

    return send


def to_redis(url: str) -> Send:
    """Return what sends rows with redis-py, in one pipeline."""
    import redis

    client = redis.Redis.from_url(url)

    def send(rows: Sequence[Row]) -> None:
        with client.pipeline(transaction=False) as pipe:
            for _, topic, _, body in rows:
                pipe.xadd(topic, {"e": body})
            pipe.execute()

    return send


class ByHand:
    """The table of one database, and what sends to one broker."""

    def __init__(self, url: str, send: Send) -> None:
        self._url = url
        self._send = send
        with psycopg.connect(url, autocommit=True) as connection:
            for each in _TABLES:
                connection.execute(each)

    def rate(self, topic: str, event: dict[str, Any], count: int, threads: int, events: int, keys: int) -> float:
        """Return how many events a second came to the broker, of transactions with a row and a few events each."""

        def transact(first: int) -> None:
            with psycopg.connect(self._url) as connection, connection.cursor() as cursor:
                for each in range(first, count // events, threads):
                    key = f"k{each % keys}"
                    with connection.transaction():
                        cursor.execute(_SAVE, (key, orjson.dumps(event)))
                        cursor.executemany(_ADD, [(topic, key, _cloudevent(event, key)) for _ in range(events)])

        begun = time.perf_counter()
        with ThreadPoolExecutor(threads + 1) as pool:
            forwarded = pool.submit(self._forward, count)
            list(pool.map(transact, range(threads)))
            forwarded.result()
        return count / (time.perf_counter() - begun)

    def _forward(self, count: int) -> None:
        with psycopg.connect(self._url) as connection, connection.cursor(binary=True) as cursor:
            while count > 0:
                with connection.transaction():
                    rows: list[Any] = cursor.execute(_READ).fetchall()
                    if rows:
                        self._send(rows)
                        cursor.execute(_DELETE, ([row[0] for row in rows],))
                count -= len(rows)
                if not rows:
                    time.sleep(0.005)


def _cloudevent(event: dict[str, Any], key: str) -> bytes:
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": "bench",
            "type": "bench.event",
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "partitionkey": key,
            "datacontenttype": "application/json",
            "data": event,
        }
    )
