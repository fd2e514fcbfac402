"""Keys in pages: the server names all of them once for all pages, while nobody writes."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats.keys import KeyBucket
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
