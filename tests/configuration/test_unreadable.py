"""Items of configuration that cannot be read: each is named once and left out, and a save replaces it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.testing import Api
from tests.support.entries import ENGINES, Entries, make_entries


@pytest.fixture(params=ENGINES)
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Entries]:
    made = make_entries(request, request.param, tmp_path)
    yield made
    made.harness.close()


@pytest.mark.parametrize("tags", ['{"a', "7", '[[["a"]], null, "v"]'])
def test_an_item_that_cannot_be_read(entries: Entries, api: Api, caplog: pytest.LogCaptureFixture, tags: str) -> None:
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    configuration = entries.client.configuration
    api.call(configuration, "save_configuration", "c", {"good": "1", "odd": "1"})
    entries.item("c", "odd", tags)
    for keys in ((), ("good", "odd")):
        assert api.call(configuration, "get_configuration", "c", keys) == {"good": "1"}
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 1
    assert "odd" in warned[0]
    with api.opened(api.call(configuration, "subscribe_configuration", "c")) as subscription:
        assert {key: item.value for key, item in subscription.current().items()} == {"good": "1"}
        api.call(configuration, "save_configuration", "c", {"odd": "2"})
        assert api.until(lambda: "odd" in subscription.current())
    assert api.call(configuration, "get_configuration", "c") == {"good": "1", "odd": "2"}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", json.dumps({"version": "a", "items": {}}).encode()])
def test_a_document_that_cannot_be_read(request: pytest.FixtureRequest, tmp_path: Path, api: Api, data: bytes) -> None:
    """On NATS all items of a group and label are one. Their next save replaces it."""
    entries = make_entries(request, "nats", tmp_path)
    try:
        configuration = entries.client.configuration
        api.call(configuration, "save_configuration", "c", {"a": "1"})
        api.call(configuration, "save_configuration", "c", api.call(configuration, "get_configuration", "c"))
        before = int(api.call(configuration, "get_configuration_items", "c")["a"].version)
        driver = entries.driver("configuration", "c")
        entries.put(driver._bucket, driver._subject("", ""), data)  # type: ignore[attr-defined]
        assert api.call(configuration, "get_configuration", "c") == {}
        api.call(configuration, "save_configuration", "c", {"a": "2"})
        item = api.call(configuration, "get_configuration_items", "c")["a"]
        assert item.value == "2"
        assert int(item.version) > before
    finally:
        entries.harness.close()
