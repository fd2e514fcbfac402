"""Whatever an engine says, consumers, watchers and runners back off, tell it, and go on once it has passed."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.redis.resp import reader
from tests.support import Rounds
from tests.support.life import Life
from tests.support.servers import own_server
from tests.support.waiting import running, until

# all streams of it are listed
nats_server = own_server("nats:serve")
ALL = ("pubsub", "configuration", "schedule")


def seconds(rounds: Rounds) -> float:
    """For how long something is in the way."""
    return rounds(1, 50) / 10


# -- SQLite ---------------------------------------------------------------------


@pytest.fixture
def embedded(home: Path) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": str(home)}}) as client:
        yield client


def test_sqlite_tables_are_away(embedded: CloudRuntimesClient, home: Path, rounds: Rounds) -> None:
    life = Life(embedded, *ALL)
    (path,) = home.glob("*.db")
    tables = ("frames", "claims", "configuration", "schedule_jobs")
    with sqlite3.connect(path, timeout=30) as connection:
        for table in tables:
            connection.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
    with life.troubled(seconds(rounds)):
        pass
    with sqlite3.connect(path, timeout=30) as connection:
        for table in tables:
            connection.execute(f"ALTER TABLE {table}_away RENAME TO {table}")
    life.check()


# -- PostgreSQL -----------------------------------------------------------------


class _Postgres:
    def __init__(self, url: str, database: str) -> None:
        psycopg: Any = pytest.importorskip("psycopg")
        self.connect = partial(psycopg.connect, database, autocommit=True)
        self.connection = self.connect()
        self.run = self.connection.execute
        self.role = f"life_{time.monotonic_ns()}"
        self.run(f"CREATE ROLE {self.role} LOGIN PASSWORD 'life'")
        self.run(f"CREATE SCHEMA home AUTHORIZATION {self.role}")
        parts = urlsplit(database)
        address = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit(parts._replace(netloc=f"{self.role}:life@{address}"))


@pytest.fixture
def postgres(postgres_url: str, postgres_database: str) -> Iterator[tuple[_Postgres, Life]]:
    server = _Postgres(postgres_url, postgres_database)
    config = {"capa": {"home": {"url": server.url, "schema": "home"}}}
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        yield server, Life(client, *ALL)
    server.run("DROP SCHEMA home CASCADE")
    server.run(f"DROP ROLE {server.role}")
    server.connection.close()


def test_postgres_statements_are_cancelled(postgres: tuple[_Postgres, Life], rounds: Rounds) -> None:
    server, life = postgres
    over = threading.Event()

    def cancel() -> None:
        with server.connect() as connection:
            while not over.wait(0.01):
                connection.execute(
                    f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = '{server.role}' AND wait_event_type = 'Lock'"
                )

    with running(cancel):
        with server.connection.transaction():
            tables = server.run("SELECT tablename FROM pg_tables WHERE schemaname = 'home'").fetchall()
            with life.troubled(seconds(rounds)):
                server.run(f"LOCK TABLE {', '.join(f'home.{table}' for (table,) in tables)} IN ACCESS EXCLUSIVE MODE")
        over.set()
    life.check()


def test_postgres_rights_are_revoked(postgres: tuple[_Postgres, Life], rounds: Rounds) -> None:
    server, life = postgres
    with life.troubled(seconds(rounds)):
        server.run("ALTER SCHEMA home OWNER TO CURRENT_USER")
    server.run(f"ALTER SCHEMA home OWNER TO {server.role}")
    life.check()


def test_postgres_tables_are_away(postgres: tuple[_Postgres, Life], rounds: Rounds) -> None:
    server, life = postgres
    with life.troubled(seconds(rounds)):
        server.run("ALTER SCHEMA home RENAME TO away")
    server.run("ALTER SCHEMA away RENAME TO home")
    life.check()


# -- Redis ----------------------------------------------------------------------


@pytest.fixture
def redis(valkey_server: Any) -> Iterator[tuple[Any, Life]]:
    from tests.support.harnesses.redis import RedisHome

    home = RedisHome(valkey_server)
    yield home, Life(home.client(), *ALL)
    home.close()


def test_redis_is_wiped(redis: tuple[Any, Life]) -> None:
    home, life = redis
    home.server.command("FLUSHALL")
    life.check()


def test_redis_has_other_types_in_the_way(redis: tuple[Any, Life], rounds: Rounds) -> None:
    home, life = redis
    with life.troubled(seconds(rounds), all_of_them=False):
        replies = reader()
        replies.feed(home.server.command("KEYS", f"*{home.prefix}*"))
        # a key that has just gone has nothing to come back
        keys = [
            key
            for key in map(bytes.decode, replies.gets())
            if home.server.command("RENAME", key, f"away:{key}") == b"+OK\r\n"
        ]
        for key in keys:
            home.server.command("SET", key, "in the way")
    for key in keys:
        home.server.command("RENAME", f"away:{key}", key)
    life.check()


def test_redis_revokes_rights(redis: tuple[Any, Life], rounds: Rounds) -> None:
    home, life = redis
    with life.troubled(seconds(rounds), all_of_them=False):
        home.server.command("ACL", "SETUSER", "default", "-@all", "+acl")
    home.server.command("ACL", "SETUSER", "default", "+@all")
    life.check()


# -- NATS -----------------------------------------------------------------------


def test_nats_is_wiped(nats_server: Any) -> None:
    from tests.support.harnesses.nats import NatsHome
    from tests.support.nats_other import beside

    home = NatsHome(nats_server)
    life = Life(home.client(), *ALL)
    with beside(home.server.port, home.prefix) as other:
        answer = other.ask("$JS.API.STREAM.NAMES", b"{}")
        for name in json.loads(answer.data)["streams"]:
            if home.prefix in name:
                assert json.loads(other.ask(f"$JS.API.STREAM.DELETE.{name}").data)["success"]
    life.check()
    home.close()


# -- etcd -----------------------------------------------------------------------


def test_etcd_is_wiped(etcd_server: Any) -> None:
    from tests.support.etcd import asked
    from tests.support.harnesses.etcd import EtcdHome

    home = EtcdHome(etcd_server)
    life = Life(home.client(), "configuration", "schedule")
    first = home.prefix.encode()
    # DeleteRangeRequest: key 1, range_end 2
    last = first[:-1] + bytes([first[-1] + 1])
    fields = [bytes([tag, len(key)]) + key for tag, key in ((0x0A, first), (0x12, last))]
    asked(home.server.url, "/etcdserverpb.KV/DeleteRange", b"".join(fields))
    life.check()
    home.close()


# -- RabbitMQ and Kafka ---------------------------------------------------------


def test_rabbitmq_has_lost_its_queues(rabbitmq_url: str) -> None:
    from tests.support.harnesses.rabbitmq import RabbitHome

    pika: Any = pytest.importorskip("pika")
    home = RabbitHome(rabbitmq_url)
    home.home["prefix"] = home.prefix
    life = Life(home.client(), "pubsub")
    with pika.BlockingConnection(pika.URLParameters(home.url)) as connection:
        connection.channel().queue_delete(f"{home.prefix}t:suite")
        connection.channel().exchange_delete(f"{home.prefix}t")
    life.check()
    home.close()


def test_kafka_has_lost_its_topic(kafka_servers: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    from tests.support.harnesses.kafka import KafkaHome

    home = KafkaHome(kafka_servers)
    with CloudRuntimesClient(app_id="suite", config={"pubsub": {"bus": home.table("bus")}}) as client:
        life = Life(client, "pubsub")
        admin: Any = AdminClient({"bootstrap.servers": kafka_servers})
        name = f"{home.prefix}bus.t"
        admin.delete_topics([name])[name].result()
        until(lambda: name not in admin.list_topics(timeout=10).topics)
        admin.create_topics([NewTopic(name, 1)])[name].result()
        life.check()
