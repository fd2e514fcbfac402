"""The sampler that a configuration store changes while the application runs."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core import logs
from cloud_runtimes.errors import InvalidArgumentError, UnavailableError
from cloud_runtimes.telemetry._sampling import parse
from tests.support.forked import Forked
from tests.support.waiting import until

KEY = "telemetry.sampler"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("always_on", (1.0, 0.0, False)),
        (" parentbased_always_off ", (0.0, 0.0, True)),
        ("traceidratio", (1.0, 0.0, False)),
        ("traceidratio:0.25", (0.25, 0.0, False)),
        ("parentbased_traceidratio : 1e-3", (0.001, 0.0, True)),
        ("parentbased_rate_limited", (1.0, 100.0, True)),
        ("parentbased_rate_limited:5", (1.0, 5.0, True)),
    ],
)
def test_values(text: str, expected: Any) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "sometimes", "traceidratio:", "traceidratio:half", "traceidratio:1.5", "traceidratio:-1",
        "traceidratio:nan", "parentbased_rate_limited:-1", "parentbased_rate_limited:inf", "always_on:1",
        "rate_limited:5", "ALWAYS_ON",
    ],
)  # fmt: skip
def test_wrong_values(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse(text)


class Store:
    """A configuration store that the test writes: the embedded one, or a file that a client watches."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "app.toml"
        self.path.write_text("")
        self.table: dict[str, Any] = {"component": "sqlite"}
        if kind == "file":
            self.table = {"component": "config_file", "path": str(self.path), "watch": "poll", "poll_interval": "20ms"}
        self.writer = CloudRuntimesClient(
            app_id="operator",
            config={"capa": {"home": str(folder / "home")}, "configuration": {"flags": {"component": "sqlite"}}},
        )

    def write(self, value: str | None) -> None:
        if self.kind == "file":
            text = "other = 1\n" if value is None else f'other = 1\n"{KEY}" = "{value}"\n'
            new = self.path.with_suffix(".new")
            new.write_text(text)
            new.replace(self.path)
        elif value is None:
            self.writer.configuration.delete_configuration("flags", [KEY])
        else:
            self.writer.configuration.save_configuration("flags", {KEY: value})


@pytest.fixture(params=["sqlite", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    instance = Store(request.param, tmp_path)
    yield instance
    instance.writer.close()


@pytest.fixture
def application(store: Store, tmp_path: Path) -> Any:
    """A client whose sampler is `parentbased_always_off`, unless the store says otherwise."""
    config = {
        "capa": {"home": str(tmp_path / "home")},
        "configuration": {"flags": store.table},
        "telemetry": {"flush_on_sigterm": False, "sampler": "parentbased_always_off", "sampler_store": "flags"},
    }
    with CloudRuntimesClient(app_id="shop", config=config) as client:
        yield client


def records(client: CloudRuntimesClient) -> bool:
    return bool(client.telemetry.tracer("t").start_span("s").is_recording)


def test_the_sampler_follows_the_store(
    store: Store, application: CloudRuntimesClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_said", {})
    assert not records(application)
    tracer = application.telemetry.tracer("made before")
    store.write("parentbased_always_on")
    until(lambda: records(application))
    assert tracer.start_span("s").is_recording
    with caplog.at_level(logging.WARNING, "cloud_runtimes"):
        for bad in ("sometimes", "traceidratio:2"):
            store.write(bad)
            until(lambda: len(caplog.records) == 1)  # the second within a minute is only counted
        store.write("always_off")
        until(lambda: not records(application))
        store.write("traceidratio:1")
        until(lambda: records(application))
    (message,) = caplog.messages
    assert KEY in message
    assert "'flags'" in message
    store.write(None)  # no value any more: the settings hold
    until(lambda: not records(application))


def test_a_bad_value_keeps_the_last_good_one(
    store: Store, application: CloudRuntimesClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_said", {})
    store.write("always_on")
    until(lambda: records(application))
    with caplog.at_level(logging.WARNING, "cloud_runtimes"):
        store.write("nonsense")
        until(lambda: bool(caplog.records))
    assert records(application)


def test_a_value_that_is_there_counts_from_the_start(store: Store, application: CloudRuntimesClient) -> None:
    store.write("always_on")
    until(lambda: records(application))


def test_nothing_is_asked_before_the_first_tracer(store: Store, application: CloudRuntimesClient) -> None:
    application.telemetry.logger("l").info("no span, no sampler")
    assert "configuration" not in application._context._services
    application.telemetry.tracer("t")
    until(lambda: "configuration" in application._context._services)


def test_closing_ends_the_thread(store: Store, application: CloudRuntimesClient) -> None:
    store.write("always_on")
    until(lambda: records(application))
    live = application.telemetry._live
    assert live is not None
    application.close()
    assert live._thread.join(30)


def test_a_store_that_is_away_is_asked_again(
    application: CloudRuntimesClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("always_on")
    original = application.configuration.subscribe_configuration
    failed = threading.Event()

    def subscribe(*args: Any, **options: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise UnavailableError("away")
        return original(*args, **options)

    monkeypatch.setattr(application.configuration, "subscribe_configuration", subscribe)
    until(lambda: records(application))
    assert failed.is_set()


def test_a_store_that_is_not_declared_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {
        "capa": {"home": str(tmp_path)},
        "configuration": {"flags": {"component": "sqlite"}},
        "telemetry": {"flush_on_sigterm": False, "sampler_store": "flag"},
    }
    with caplog.at_level(logging.WARNING, "cloud_runtimes"), CloudRuntimesClient(config=config) as client:
        assert records(client)
        until(lambda: bool(caplog.records))
        assert "is [configuration.flags] meant?" in caplog.messages[0]
        assert records(client)


@pytest.mark.parametrize("off", [{"exporter": "none"}])
def test_without_traces_nothing_is_followed(tmp_path: Path, off: dict[str, Any]) -> None:
    table = {"flush_on_sigterm": False, "sampler_store": "flags", **off}
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path)}, "telemetry": table}) as client:
        assert not records(client)
        assert client.telemetry._live is None


@pytest.mark.process
def test_a_forked_child_follows_too(store: Store, application: CloudRuntimesClient) -> None:
    store.write("always_on")
    until(lambda: records(application))
    ready, go = os.pipe(), os.pipe()

    def body() -> None:
        assert records(application)  # as it was in the moment of the fork
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        until(lambda: not records(application))

    child = Forked(body)
    os.read(ready[0], 1)
    store.write("always_off")
    os.write(go[1], b"x")
    child.result()
    until(lambda: not records(application))
    for fd in (*ready, *go):
        os.close(fd)
