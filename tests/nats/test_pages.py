"""Keys in pages: the server names all of them once for all pages, while nobody writes. Deleted events of an outbox are passed once."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats.keys import KeyBucket
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.state import StateWrite
from cloud_runtimes.testing import Api
from tests.support.harnesses.nats import NatsHome


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The patterns by which the server was asked for the names of all keys."""
    patterns: list[str] = []
    ask = KeyBucket.subjects

    def subjects(self: KeyBucket, pattern: str) -> Any:
        patterns.append(pattern)
        return ask(self, pattern)

    monkeypatch.setattr(KeyBucket, "subjects", subjects)
    return patterns


def pages(api: Api, client: CloudRuntimesClient, store: str, limit: int) -> list[str]:
    keys: list[str] = []
    while page := api.call(client.state, "list_keys", store, limit=limit, after=keys[-1] if keys else None):
        keys += page
    return keys


def test_all_pages_ask_once_for_names(home: NatsHome, api: Api, named: list[str]) -> None:
    store = f"pages-{api.name}"
    keys = [f"key-{number:04}" for number in range(330)]
    with home.client() as client:
        client.state.save_bulk(store, dict.fromkeys(keys, 1))
        assert pages(api, client, store, 25) == keys
        assert len(named) == 2  # the page behind the last one asks again
        assert pages(api, client, store, 330) == keys


def test_a_page_has_what_was_written_since(home: NatsHome, api: Api, named: list[str]) -> None:
    store = f"changing-{api.name}"
    keys = [f"key-{number:04}" for number in range(0, 200, 2)]
    with home.client() as client:
        client.state.save_bulk(store, dict.fromkeys(keys, 1))
        assert api.call(client.state, "list_keys", store, limit=2) == keys[:2]
        client.state.save(store, "key-0003", 1)
        client.state.delete(store, "key-0004")
        page = api.call(client.state, "list_keys", store, limit=2, after=keys[1])
        assert page == ["key-0003", "key-0006"]
        assert len(named) == 2
        client.state.save(store, "zzz", 1)
        assert api.call(client.state, "list_keys", store, "zz", limit=2) == ["zzz"]
        assert api.call(client.state, "list_keys", store, limit=2, after="key-0003") == ["key-0006", "key-0008"]


class Outbox:
    """Events of an outbox on a store of its own."""

    def __init__(self, home: NatsHome, api: Api, store: str) -> None:
        self.driver: Any = home.client()._context.runtime().driver("state", f"{store}-{api.name}")
        self.bucket: Any = self.driver._bucket
        self._api = api

    @staticmethod
    def op() -> Operation:
        return Operation(Method("state", "test", repeatable=True), "s", 20.0)

    def write(self, numbers: range, data: bytes | None) -> None:
        for first in range(numbers.start, numbers.stop, 1_000):
            keys = [f"||outbox||bus||{number:04}" for number in range(first, min(first + 1_000, numbers.stop))]
            self._api.call(self.driver, "write", self.op(), [StateWrite(key, data) for key in keys], True)

    def oldest(self, limit: int = 100) -> list[int]:
        return [int(key[-4:]) for key, _ in self._api.call(self.driver, "oldest", self.op(), "||outbox||bus||", limit)]

    def stream(self, what: str) -> Any:
        return self.driver.flows.run(self.op(), self.bucket.api("STREAM.INFO", None))["state"][what]


def test_deleted_events_are_passed_once(home: NatsHome, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their markers lie behind them, for a second."""
    outbox, asked = Outbox(home, api, "deleted"), []
    look = outbox.bucket.since
    monkeypatch.setattr(outbox.bucket, "since", lambda *given: asked.append(given[1]) or look(*given))
    outbox.write(range(3_000), b"1")
    outbox.driver.write(outbox.op(), [StateWrite("other", b"1")], True)
    outbox.write(range(3_000), None)
    outbox.write(range(3_000, 3_010), b"1")
    alive = list(range(3_000, 3_010))
    assert outbox.oldest() == outbox.oldest() == alive
    assert asked == [0, outbox.stream("last_seq") - 10], "behind all markers"
    outbox.write(range(3_000, 3_010), None)
    assert outbox.oldest() == []
    assert api.until(lambda: outbox.stream("messages") == 1)


def test_deleted_events_that_a_replica_still_has(home: NatsHome, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(home, api, "replica")
    outbox.write(range(10), b"1")
    assert outbox.oldest(5) == [0, 1, 2, 3, 4]
    # as of a cluster: the leader is asked for values
    outbox.driver.component.engine.buckets[outbox.bucket.name].replicated = True
    look = outbox.bucket.since
    late = outbox.driver.flows.run(outbox.op(), look("$KV.>", 0))
    outbox.write(range(5), None)

    def stale(pattern: str, sequence: int, limit: float) -> Any:
        yield from look(pattern, sequence, limit)
        return late[0], [entry for entry in late[1] if entry[1].sequence > sequence]

    monkeypatch.setattr(outbox.bucket, "since", stale)
    assert outbox.oldest(5) == [5, 6, 7, 8, 9], "the next page, since all of the first one are gone"
    assert outbox.oldest(7) == [5, 6, 7, 8, 9]
