"""Files of which a store tells what cannot be read: a listing leaves them out, a write and a delete mend it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.errors import AlreadyExistsError, InternalError
from cloud_runtimes.testing import Api
from tests.support.entries import Entries, make_entries


@pytest.fixture(params=["nats", "postgres"])
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Entries]:
    made = make_entries(request, request.param, tmp_path)
    yield made
    made.harness.close()


@pytest.mark.parametrize(
    "data", ["", "{", "[]", '{"nuid": "a", "size": 1, "chunks": 0, "metadata": ["a"]}', "[" * 100_000]
)
def test_an_entry_that_cannot_be_read(entries: Entries, api: Api, caplog: pytest.LogCaptureFixture, data: str) -> None:
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    files = entries.client.file
    for name in ("a", "odd", "odd2", "z"):
        api.call(files, "put_file", "f", name, b"1")
    for name in ("odd", "odd2"):
        entries.file(name, data)
    for limit, after in ((None, None), (2, None), (1, "a")):
        listed = api.call(files, "list_files", "f", limit=limit, after=after)
        assert [each.name for each in listed] == (["z"] if after else ["a", "z"])
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 2
    assert "'odd'" in warned[0]
    api.fails(InternalError, match="odd")(files, "stat_file", "f", "odd")
    api.fails(AlreadyExistsError)(files, "put_file", "f", "odd", b"2", overwrite=False)
    api.call(files, "put_file", "f", "odd", b"2")
    assert api.call(files, "get_file", "f", "odd") == b"2"
    api.call(files, "delete_file", "f", "odd2")
    assert [each.name for each in api.call(files, "list_files", "f")] == ["a", "odd", "z"]
