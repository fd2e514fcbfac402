"""Unreadable entries in a store, on each engine: each is named once, stops nothing else, and a new value mends it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.components._schedule import jobs as _jobs
from cloud_runtimes.errors import (
    AlreadyExistsError,
    BulkError,
    InternalError,
    InvalidArgumentError,
    PayloadError,
)
from cloud_runtimes.schedule import _unhandled, times
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.state import StateWrite
from cloud_runtimes.testing import Api
from tests.support.entries import ENGINES, Entries, make_entries

_WRITE = Method("state", "test", repeatable=True)
RUN = b'{"id": 1, "job": 1, "run": "r", "fire": 0, "last": 0, "count": 1, "attempt": "1"}'
ODD = (
    b"",
    b"{}",
    b"\xff\xfe{",
    b"[1, 2]",
    b'{"job": 7, "target": 3, "failure": "drop"}',
    b"[" * 100_000,
    b'{"job": null, "runs": [' + RUN + b'], "last": 0, "noted": 0}',
)


@pytest.fixture(params=ENGINES)
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Entries]:
    instance = make_entries(request, request.param, tmp_path)
    yield instance
    instance.harness.close()


@pytest.fixture
def about(caplog: pytest.LogCaptureFixture) -> Callable[[str], int]:
    """Count the warnings that name something."""
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    return lambda name: sum(repr(name) in record.getMessage() for record in caplog.records)


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


BUS = "||outbox||bus||"


def _fill(entries: Entries, *ids: str) -> Any:
    """Write events of an outbox, each in a commit; return the driver."""
    driver = entries.driver("state", "s")
    for id in ids:
        driver.write(Operation(_WRITE, "s", 5.0), [StateWrite(BUS + id, id.encode())], True)
    return driver


def _oldest(api: Api, driver: Any) -> list[tuple[str, Any]]:
    oldest = api.call(driver, "oldest", Operation(_WRITE, "s", 5.0), BUS, 10)
    return [(key.removeprefix(BUS), getattr(value, "data", type(value))) for key, value in oldest]


@pytest.mark.parametrize("entries", ["etcd", "valkey"], indirect=True)
def test_an_event_of_an_outbox_that_cannot_be_read(entries: Entries, api: Api) -> None:
    driver = _fill(entries, "z", "odd", "a")
    entries.value("s", f"{BUS}odd")
    assert _oldest(api, driver) == [("z", b"z"), ("odd", PayloadError), ("a", b"a")]


@pytest.mark.parametrize("entries", ["nats"], indirect=True)
def test_an_event_of_an_outbox_that_is_none(entries: Entries, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    driver = entries.driver("state", "s")
    entries.put(driver._bucket, f"{driver._outbox(BUS)}foreign-key", b"canary")  # type: ignore[attr-defined]
    assert _oldest(api, driver) == []
    _fill(entries, "z", "a")
    assert _oldest(api, driver) == [("z", b"z"), ("a", b"a")]
    (record,) = caplog.records
    assert "canary" not in record.getMessage()


@pytest.mark.parametrize("entries", ["valkey"], indirect=True)
def test_events_of_an_outbox_that_another_program_spoils(entries: Any, api: Api) -> None:
    driver = _fill(entries, "z", "gone", "odd", "a")
    entries.run("DEL", entries.where("state", "s", "v", f"{BUS}gone"))
    entries.run("SET", entries.where("state", "s", "v", f"{BUS}odd"), "x")
    assert _oldest(api, driver) == [("z", b"z"), ("odd", InternalError), ("a", b"a")]
    names = entries.where("state", "s", f"names{BUS}")
    assert entries.run("ZRANGE", names, "0", "-1").split()[2::2] == [f"{BUS}{id}".encode() for id in ("z", "odd", "a")]
    driver.write(Operation(_WRITE, "s", 5.0), [StateWrite(BUS + id, None) for id in ("z", "a")], True)
    assert _oldest(api, driver) == [("odd", InternalError)]
    entries.run("DEL", entries.where("state", "s", "v", f"{BUS}odd"))
    assert _oldest(api, driver) == []
    assert entries.run("EXISTS", names) == b":0\r\n"


# -- configuration and files --------------------------------------------------


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


@pytest.mark.parametrize("entries", ["nats", "postgres"], indirect=True)
@pytest.mark.parametrize(
    "data", ["", "{", "[]", '{"nuid": "a", "size": 1, "chunks": 0, "metadata": ["a"]}', "[" * 100_000]
)
def test_a_file_that_cannot_be_read(entries: Entries, api: Api, caplog: pytest.LogCaptureFixture, data: str) -> None:
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


# -- jobs ---------------------------------------------------------------------


def test_a_job_that_cannot_be_read(
    entries: Entries, api: Api, about: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, seen = entries.client.schedule, []
    read, reads = _jobs.read_spec, []
    schedule.job("good")(lambda data: seen.append("good"))
    schedule.job("odd")(lambda data: seen.append(data))
    for number, data in enumerate(ODD):
        api.call(schedule, "schedule_job", f"odd{number}", due_time=0, target=schedule._frame.handlers["odd"].function)
        entries.job(f"odd{number}", data)
    api.call(schedule, "schedule_job", "good", schedule="@every 50ms", due_time=0)
    monkeypatch.setattr(_jobs, "read_spec", lambda *row: reads.append(row[0]) or read(*row))  # type: ignore[func-returns-value]

    with api.opened(schedule.running()):
        assert api.until(lambda: len(seen) > 4), "the others run"
        reads.clear()
        api.pause(0.5)
        assert reads.count("odd1") <= 2, "it is not read again and again"
        jobs = {job.name: job for job in api.call(schedule, "list_jobs")}
        assert sorted(jobs) == sorted(["good", *(f"odd{number}" for number in range(len(ODD)))])
        for number in range(len(ODD)):
            name = f"odd{number}"
            assert jobs[name].error, f"{name} is listed as unreadable"
            assert about(name) == 1, "it is named once"
            error = api.fails(PayloadError, match=name)(schedule, "get_job", name)
            assert "overwrite=True" in str(error)
            api.fails(AlreadyExistsError)(schedule, "schedule_job", name, due_time=0)
        assert jobs["good"].error is None
        shown = {job.name: job for job in api.call(entries.client.admin, "jobs")}
        assert shown.keys() == jobs.keys()
        assert {name for name, job in shown.items() if job.last_error} == jobs.keys() - {"good"}
        handler = schedule._frame.handlers["odd"].function
        api.call(schedule, "schedule_job", "odd0", due_time=0, data="mended", target=handler, overwrite=True)
        assert api.until(lambda: "mended" in seen), "overwrite=True replaces it"
        for number in range(1, len(ODD)):
            api.call(schedule, "delete_job", f"odd{number}")
        assert [job.name for job in api.call(schedule, "list_jobs") if job.error] == []


def test_a_time_zone_that_this_machine_does_not_know(
    entries: Entries, api: Api, about: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container without tzdata. Its jobs wait for another process, or for a later look."""
    schedule, seen = entries.client.schedule, []
    for name in ("zoned", "good"):
        schedule.job(name)(lambda data, run: seen.append(run.name))
    api.call(schedule, "schedule_job", "zoned", schedule="* * * * * *", timezone="Europe/Paris")
    api.call(schedule, "schedule_job", "good", schedule="@every 50ms", due_time=0)
    asked: list[str] = []
    find = times.find_zone

    def unknown(name: str) -> Any:
        if name == "UTC":
            return find(name)
        asked.append(name)
        raise InvalidArgumentError(f"timezone {name!r} is not known here")

    with monkeypatch.context() as patched:
        patched.setattr(times, "find_zone", unknown)
        times.occurrences.cache_clear()
        with api.opened(schedule.running()) as runner:
            assert api.until(lambda: about("zoned") == 1), "it is due, and named"
            asked.clear()
            before = len(seen)
            assert api.until(lambda: len(seen) > before + 4), "the others run"
            assert len(asked) <= 1, "it is not tried again and again"
            assert about("zoned") == 1, "it is named once"
            assert {job.name: job.error for job in api.call(schedule, "list_jobs")} == {"zoned": None, "good": None}
            assert set(seen) == {"good"}
            patched.undo()
            runner._source._aside_until = 0.0  # a minute later
            assert api.until(lambda: "zoned" in seen), "known by now, it runs"
            assert runner.error is None


def test_a_record_that_cannot_be_read(entries: Entries, api: Api, about: Callable[[str], int]) -> None:
    schedule, seen = entries.client.schedule, []
    schedule.job("j")(lambda data: seen.append(data))
    for _ in range(2):
        api.call(schedule, "schedule_job", "j", due_time=0)
        with api.opened(schedule.running()):
            assert api.until(lambda: not api.call(schedule, "list_jobs"))
        if len(seen) == 1:
            entries.history("j")
    assert [record.status for record in api.call(schedule, "list_runs", "j")] == ["succeeded"]
    assert about("j") == 1


def test_a_job_that_waits_for_a_handler(
    entries: Entries, api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no process has the handler of a due job: one warning with the near match, and a history that says so."""
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    monkeypatch.setattr(_unhandled, "AFTER", 0.5)
    monkeypatch.setattr(_unhandled, "_EVERY", 0.1)
    other, schedule = entries.harness.client().schedule, entries.client.schedule
    rport = other.job("rport")(lambda: None)
    seen: list[str] = []
    schedule.job("report")(lambda data, run: seen.append(run.name))
    past = datetime.now(UTC) - timedelta(minutes=1)
    api.call(other, "schedule_job", "nightly", schedule="@daily", due_time=past, target=rport)
    api.call(other, "schedule_job", "later", schedule="@daily", target=rport)
    api.call(schedule, "schedule_job", "report", due_time=past)
    with api.opened(schedule.running()):
        assert api.until(lambda: bool(caplog.records))
        assert api.until(lambda: bool(seen))
        api.pause(0.5)
    (record,) = caplog.records
    assert "'nightly'" in record.getMessage()
    assert "'rport'; did you mean 'report'?" in record.getMessage()
    (run,) = api.call(schedule, "list_runs", "nightly")
    assert (run.status, run.error, run.attempt) == ("waiting", "no process has 'rport'", 0)
    assert abs(run.fire_time - past) < timedelta(milliseconds=1)
    assert api.call(schedule, "list_runs", "later") == []
    with api.opened(other.running()):
        assert api.until(lambda: [each.status for each in api.call(schedule, "list_runs", "nightly")] == ["succeeded"])


# -- servers of applications --------------------------------------------------


class Asked:
    """A registry that is asked for the servers of an application."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._asked = Operation(Method("rpc", "invoke_method", repeatable=True), "orders", 5.0), "orders"

    def find(self) -> Any:
        return self._registry.find(*self._asked)

    async def find_async(self) -> Any:
        return await self._registry.find_async(*self._asked)


@pytest.mark.parametrize(
    "entries", [engine for engine in ENGINES if engine != "nats"], indirect=True
)  # which needs no registry
@pytest.mark.parametrize("address", ["", "localhost", "http://host:port", "http://a b c", "http://user:canary@host"])
def test_a_server_that_cannot_be_read(
    entries: Entries, api: Api, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    server = entries.harness.client(app_id="orders")
    server.rpc.register_method("echo", lambda data: data)
    driver = entries.driver("rpc", "orders")._runtime.embedded_rpc(
        "orders"
    )  # a client in this process asks no registry
    with server.rpc.serving(port=0) as serving:
        entries.server("orders", address)
        for _ in range(3):
            driver._accept(api.call(Asked(driver._registry), "find"), b"secret")
            assert [f"http://{known.endpoint.host}:{known.endpoint.port}" for known in driver._known] == [
                serving.address
            ]
        (record,) = caplog.records
        assert "odd" in record.getMessage()
        (service,) = api.call(entries.client.admin, "services")
        assert serving.address in [each.address for each in service.instances]
        assert service.methods == ("echo",)
    assert not [each for each in caplog.records if "canary" in each.getMessage()]
