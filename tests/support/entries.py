"""Entries of stores as other programs write them: odd bytes, past the package, one way for each engine."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.etcd.messages import put
from cloud_runtimes.components.nats.entries import Put
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.testing import Harness
from tests.support.etcd import asked
from tests.support.harnesses.embedded import SqliteHarness
from tests.support.harnesses.etcd import EtcdHome
from tests.support.harnesses.nats import NatsHome
from tests.support.harnesses.postgres import PostgresHome
from tests.support.harnesses.redis import ValkeyHome

__all__ = ["ENGINES", "Entries", "make_entries"]

PUT = "/etcdserverpb.KV/Put"
OP = Method("state", "test", repeatable=True)


class Entries:
    """The entries of one home.

    Attributes:
        client: of it.
    """

    def __init__(self, harness: Any) -> None:
        self.harness = harness
        self.client: CloudRuntimesClient = harness.client()

    def driver(self, service: str, name: str = "default") -> Any:
        """Return the engine's own driver."""
        return self.client._context.runtime().driver(service, name)

    def job(self, name: str, text: bytes) -> None:
        """Replace the definition of a stored job, or all of its entry."""
        raise NotImplementedError

    def history(self, name: str) -> None:
        """Spoil the newest record of a job's history."""
        raise NotImplementedError

    def item(self, store: str, key: str, tags: str) -> None:
        """Replace the tags of an item of configuration."""
        raise NotImplementedError

    def server(self, app_id: str, address: str) -> None:
        """Enter a server of an application in the registry."""
        raise NotImplementedError

    def expiry(self, store: str, key: str, expires_ms: int) -> None:
        """Replace the end of a value of state."""
        raise NotImplementedError

    def value(self, store: str, key: str) -> None:
        """Spoil a number of a value of state."""
        raise NotImplementedError  # where columns have types

    def fence(self, store: str, key: str) -> None:
        """Spoil the fence of a key."""
        raise NotImplementedError  # where columns have types

    def key(self, store: str) -> None:
        """Write a value under what is no key."""
        raise NotImplementedError

    def file(self, name: str, data: str) -> None:
        """Spoil what is told of a file."""
        raise NotImplementedError


class _Rows(Entries):
    """Of a database; ``sql`` has ``{0}`` where a schema stands, and ``?`` for values."""

    def run(self, sql: str, *values: Any) -> None:
        raise NotImplementedError

    def job(self, name: str, text: bytes) -> None:
        self.run("UPDATE {0}schedule_jobs SET spec = ? WHERE name = ?", self.text(text), name)

    def text(self, data: bytes) -> Any:
        return data.decode(errors="replace")

    def history(self, name: str) -> None:
        self.run("UPDATE {0}schedule_runs SET fire = ? WHERE id = (SELECT max(id) FROM {0}schedule_runs)", 1 << 62)

    def item(self, store: str, key: str, tags: str) -> None:
        self.run("UPDATE {0}configuration SET tags = ? WHERE key = ?", tags, key)

    def expiry(self, store: str, key: str, expires_ms: int) -> None:
        self.run("UPDATE {0}state SET expires = ? WHERE key = ?", expires_ms, key)


class _Sqlite(_Rows):
    def run(self, sql: str, *values: Any) -> None:
        (path,) = Path(self.harness.home).glob("*.db")
        with closing(sqlite3.connect(path, timeout=20.0)) as connection, connection:
            connection.execute(sql.format(""), values)

    def job(self, name: str, text: bytes) -> None:
        self.run("UPDATE {0}schedule_jobs SET spec = CAST(? AS TEXT) WHERE name = ?", text, name)

    def value(self, store: str, key: str) -> None:
        self.run("UPDATE state SET etag = 'x' WHERE key = ?", key)

    def server(self, app_id: str, address: str) -> None:
        self.run(
            "INSERT INTO services (instance, app_id, address, process, boot, deadline) "
            "SELECT 'odd', app_id, ?, process, boot, deadline FROM services WHERE app_id = ?",
            address, app_id,
        )  # fmt: skip


class _Postgres(_Rows):
    def run(self, sql: str, *values: Any) -> None:
        psycopg: Any = pytest.importorskip("psycopg")
        with psycopg.connect(self.harness.url, autocommit=True) as connection:
            connection.execute(sql.format(f"{self.harness.schema}.").replace("?", "%s"), values)

    def server(self, app_id: str, address: str) -> None:
        self.run("INSERT INTO {0}services VALUES ('odd', ?, ?, ?)", app_id, address, 1 << 62)

    def file(self, name: str, data: str) -> None:
        self.run("UPDATE {0}files SET metadata = ? WHERE name = ?", data, name)


class _Redis(Entries):
    def run(self, *words: str | bytes) -> bytes:
        reply: bytes = self.harness.server.command(*words)
        return reply

    def where(self, service: str, name: str, *rest: str) -> str:
        return ":".join((f"{{{self.harness.prefix}:{service}:{name}}}", *rest))

    def job(self, name: str, text: bytes) -> None:
        jobs = f"{self.where('schedule', 'suite', '')}jobs"
        item = self.run("HGET", jobs, name).partition(b"\r\n")[2]
        head = re.match(rb"\d+:(\d+):", item)
        assert head is not None
        self.run("HSET", jobs, name, item[: head.end() + int(head[1])] + text)

    def history(self, name: str) -> None:
        self.run("LSET", f"{self.where('schedule', 'suite', '')}runs:{name}", "0", "{}")

    def item(self, store: str, key: str, tags: str) -> None:
        self.run("HSET", self.where("configuration", store, "items"), f"\0\0{key}", f"[{tags}")

    def server(self, app_id: str, address: str) -> None:
        self.run("ZADD", self.where("rpc", app_id, "servers"), str(1 << 52), f"odd{address and ' '}{address}")

    def expiry(self, store: str, key: str, expires_ms: int) -> None:
        self.run("HSET", self.where("state", store, "v", key), "x", str(expires_ms))

    def value(self, store: str, key: str) -> None:
        self.run("HSET", self.where("state", store, "v", key), "e", "x")

    def fence(self, store: str, key: str) -> None:
        self.run("HSET", self.where("state", store, "fences"), key, "soon")


class _Nats(Entries):
    def put(self, bucket: Any, subject: str, data: bytes, **headers: str) -> None:
        self.driver("state", "s").component.engine.run(
            Operation(OP, "s", 5.0), bucket.put([Put(subject, data, headers=headers)])
        )

    def job(self, name: str, text: bytes) -> None:
        bucket = self.driver("schedule").bucket
        self.put(bucket, bucket.subject("j", name), text)

    def history(self, name: str) -> None:
        driver = self.driver("schedule")
        self.put(driver.bucket, driver._slot(name, 0), b"{}")

    def item(self, store: str, key: str, tags: str) -> None:
        driver = self.driver("configuration", store)
        document = {"version": 9, "items": {"good": [1, None, None, "1"], key: [2, tags, None, "1"]}}
        self.put(driver._bucket, driver._subject("", ""), json.dumps(document).encode())

    def expiry(self, store: str, key: str, expires_ms: int) -> None:
        driver = self.driver("state", store)
        self.put(driver._bucket, driver._value(key), b"1", **{"Cr-Ttl": str(expires_ms)[:15]})

    def key(self, store: str) -> None:
        driver = self.driver("state", store)
        self.put(driver._bucket, f"{driver._bucket.root}v.foreign-key", b"1")

    def fence(self, store: str, key: str) -> None:
        driver = self.driver("state", store)
        self.put(driver._bucket, driver._bucket.subject("f", key), b"soon")

    def file(self, name: str, data: str) -> None:
        bucket = self.driver("file", "f").bucket
        once = {"Nats-Rollup": "sub"}
        self.put(bucket, bucket._meta(name), data.encode(), **once)


class _Etcd(Entries):
    def put(self, key: str, data: bytes) -> None:
        asked(self.harness.server.url, PUT, put(f"{self.harness.prefix}/{key}".encode(), data))

    def job(self, name: str, text: bytes) -> None:
        self.put(f"schedule/suite/j/{name}", text)

    def history(self, name: str) -> None:
        self.put(f"schedule/suite/r/{name}/0", b"{}")

    def item(self, store: str, key: str, tags: str) -> None:
        self.put(f"configuration/{store}///{key}", b"\0" + tags.encode())

    def server(self, app_id: str, address: str) -> None:
        self.put(f"rpc/{app_id}/odd", address.encode("utf-8", "surrogateescape"))

    def expiry(self, store: str, key: str, expires_ms: int) -> None:
        self.put(f"state/{store}/v/{key}", b"%d text/plain\n1" % expires_ms)

    def value(self, store: str, key: str) -> None:
        self.put(f"state/{store}/v/{key}", b"soon text/plain\n1")

    def key(self, store: str) -> None:
        asked(self.harness.server.url, PUT, put(f"{self.harness.prefix}/state/{store}/v/".encode() + b"\xff", b"1"))

    def fence(self, store: str, key: str) -> None:
        self.put(f"state/{store}/f/{key}", b"soon")


_KINDS: dict[str, type[Entries]] = {
    SqliteHarness.name: _Sqlite,
    PostgresHome.name: _Postgres,
    ValkeyHome.name: _Redis,
    NatsHome.name: _Nats,
    EtcdHome.name: _Etcd,
}
ENGINES = sorted(_KINDS)


def make_entries(request: pytest.FixtureRequest, engine: str, folder: Path) -> Entries:
    """Return the entries of a new home on an engine, whose harness the caller closes."""
    harness: Harness
    if engine == SqliteHarness.name:
        harness = SqliteHarness(request.getfixturevalue("monkeypatch"), folder)
    elif engine == PostgresHome.name:
        harness = PostgresHome(request.getfixturevalue("postgres_url"))
    elif engine == ValkeyHome.name:
        harness = ValkeyHome(request.getfixturevalue("valkey_server"))
    elif engine == NatsHome.name:
        harness = NatsHome(request.getfixturevalue("nats_server"))
    else:
        harness = EtcdHome(request.getfixturevalue("etcd_server"))
    return _KINDS[engine](harness)
