"""Values with numbers that are none: an error of that key alone, and a save mends it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.errors import BulkError, PayloadError
from cloud_runtimes.testing import Api
from tests.support.entries import ENGINES, Entries, make_entries


@pytest.fixture
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Entries]:
    made = make_entries(request, request.param, tmp_path)
    yield made
    made.harness.close()


CASES = [*((engine, "end") for engine in ENGINES), *((engine, "number") for engine in ("etcd", "sqlite", "valkey"))]


@pytest.mark.parametrize(("entries", "what"), CASES, indirect=["entries"])
def test_a_value_that_cannot_be_read(entries: Entries, api: Api, what: str) -> None:
    state = entries.client.state
    for key in ("a", "odd", "z"):
        api.call(state, "save", "s", key, 1)
    if what == "end":
        entries.expiry("s", "odd", (1 << 63) - 1)
    else:
        entries.value("s", "odd")
        api.fails(PayloadError, match="'odd'")(state, "get", "s", "odd")
    api.fails(PayloadError, match="'odd'.*save it again")(state, "get_item", "s", "odd")
    error = api.fails(BulkError)(state, "get_bulk", "s", ["a", "odd", "z"])
    assert {key: type(each) for key, each in error.failed.items()} == {"odd": PayloadError}
    assert sorted(error.result) == ["a", "z"]
    assert api.call(state, "list_keys", "s") == ["a", "odd", "z"]
    api.call(state, "save", "s", "odd", 2)
    assert api.call(state, "get_item", "s", "odd").value == 2


@pytest.mark.parametrize("entries", ["etcd", "nats", "valkey"], indirect=True)
def test_a_fence_that_cannot_be_read(entries: Entries, api: Api) -> None:
    state = entries.client.state
    api.call(state, "save", "s", "odd", 1, fence=3)
    entries.fence("s", "odd")
    api.fails(PayloadError, match="'odd'")(state, "save", "s", "odd", 2, fence=5)
    assert api.call(state, "get", "s", "odd") == 1


@pytest.mark.parametrize("entries", ["etcd", "nats"], indirect=True)
def test_a_key_that_is_none(entries: Entries, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    state = entries.client.state
    for key in ("a", "z"):
        api.call(state, "save", "s", key, 1)
    entries.key("s")
    assert api.call(state, "list_keys", "s") == ["a", "z"]
    assert api.call(state, "list_keys", "s", limit=1, after="a") == ["z"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("entries", ["valkey"], indirect=True)
def test_a_key_of_another_type(entries: Entries, api: Api) -> None:
    """As another program on the same Redis may have it."""
    state = entries.client.state
    for key in ("a", "odd"):
        api.call(state, "save", "s", key, 1)
    entries.run("SET", entries.where("state", "s", "v", "odd"), "x")  # type: ignore[attr-defined]
    error = api.fails(BulkError, match="'odd'|1 of 2")(state, "get_bulk", "s", ["a", "odd"])
    assert (sorted(error.failed), sorted(error.result)) == (["odd"], ["a"])
    assert "choose another prefix" in str(error.failed["odd"])
