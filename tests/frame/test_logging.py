"""Log messages of failures in the background.

They go to stderr where the application configures no logging, and the same thing at most once a minute."""

from __future__ import annotations

import logging
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes._core import logs


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock of repeated warnings, and forget what was said; call it to let time pass."""
    current = [1000.0]
    monkeypatch.setattr(logs, "time", types.SimpleNamespace(monotonic=lambda: current[0]))
    monkeypatch.setattr(logs, "_said", {})

    def advance(seconds: float) -> None:
        current[0] += seconds

    return advance


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.name == "cloud_runtimes"]
    caplog.clear()
    return messages


def test_the_logger_is_left_as_it_is() -> None:
    logger = logs.logger()
    assert logger.name == "cloud_runtimes"
    assert logs.logger() is logger
    assert logger.handlers == [], "a handler of ours would keep errors from stderr"
    assert logger.level == logging.NOTSET, "the level is the application's"
    assert logger.propagate


_FAILING = """
import sys, threading
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import DropEvent

{setup}
tried, seen = threading.Semaphore(0), threading.Semaphore(0)

def handle(event):
    tried.release()
    if event.data == "drop":
        raise DropEvent("on purpose")
    raise ValueError("no event")

def changed(items):
    tried.release()
    raise ValueError("no item")

def delivered(report):
    raise ValueError("no report")

with CloudRuntimesClient(app_id="shop", config={{"capa": {{"home": ":memory:"}}}}) as client:
    @client.rpc.method("order")
    def order():
        raise ValueError("no order")

    @client.schedule.job("nightly")
    def nightly():
        tried.release()
        raise ValueError("no job")

    client.pubsub.publish_bulk("bus", "orders", ["drop", "a", "b", "c"])
    with client.pubsub.subscribe("bus", "orders", handle, dead_letter_topic="orders.dead"):
        for _ in range(4):
            tried.acquire()
    client.pubsub.publish("bus", "numbers", "text")
    with client.pubsub.subscribe("bus", "numbers", type=int, dead_letter_topic="dead") as events:
        with client.pubsub.subscribe("bus", "dead", lambda event: seen.release()):
            events.receive(timeout=0.1)
            seen.acquire()
    with client.pubsub.publisher("bus", "orders", on_delivery=delivered) as publisher:
        publisher.send(1)
    client.configuration.save_configuration("app", {{"a": "1"}})
    with client.configuration.subscribe_configuration("app", handler=changed):
        tried.acquire()
    for _ in range(2):
        response = client.rpc.invoke("shop", "order")
        assert response.status == 500
    client.schedule.schedule_job("nightly", due_time=0)
    with client.schedule.running():
        tried.acquire()
"""

_TOLD = [
    "the handler of bus/orders (group shop) failed for event ",
    ", which is delivered again, after its last delivery to the topic 'orders.dead': ValueError('no event')",
    "ValueError: no event",
    "bus/numbers (group shop): event ",
    " does not fit and becomes a dead letter: ",
    "on_delivery of the publisher to bus/orders failed; events go on: ValueError('no report')",
    "ValueError: no report",
    "the handler of configuration 'app' failed for 1 keys, and gets them again: ValueError('no item')",
    "ValueError: no item",
    "the handler of shop.order failed; the caller gets status 500: ValueError('no order')",
    "ValueError: no order",
    "job 'nightly', run ",
    ", attempt 1 failed and is tried again in 1 s: ValueError: no job",
]


def _stderr_of(setup: str) -> str:
    program = _FAILING.format(setup=setup)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.process
def test_failures_in_the_background_are_seen() -> None:
    output = _stderr_of("")
    for text in _TOLD:
        assert output.count(text) == 1, (text, output)
    assert output.count("Traceback (most recent call last):") == 5, "one whole traceback for each kind"
    assert "on purpose" not in output, "a drop is no failure"


@pytest.mark.process
@pytest.mark.parametrize("name", ["cloud_runtimes", None])
def test_any_handler_turns_that_off(name: str | None) -> None:
    assert _stderr_of(f"import logging; logging.getLogger({name!r}).addHandler(logging.NullHandler())") == ""


@pytest.mark.process
def test_configured_logging_tells_nothing_twice() -> None:
    output = _stderr_of("import logging; logging.basicConfig(format='%(levelname)s %(name)s %(message)s')")
    assert output.count("WARNING cloud_runtimes the handler of bus/orders") == 1
    assert output.count("ValueError: no event") == 1


def test_at_most_once_a_minute(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    logs.repeated("k", "cannot reach %s", "bus")
    assert said(caplog) == ["cannot reach bus"]
    for _ in range(5):
        now(11.9)
        logs.repeated("k", "cannot reach %s", "bus")
    assert said(caplog) == []
    now(0.5)  # a minute after the first
    logs.repeated("k", "cannot reach %s", "bus")
    assert said(caplog) == ["cannot reach bus (5 more like this)"]
    now(60.0)
    logs.repeated("k", "cannot reach %s", "bus")
    assert said(caplog) == ["cannot reach bus"]


def test_keys_are_apart(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    for key in ("a", "b", "a", "b"):
        logs.repeated(key, "key %s", key)
    assert said(caplog) == ["key a", "key b"]


def test_a_percent_sign_is_harmless(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    for _ in range(2):
        logs.repeated("k", "%s", "100 % of %s")
    now(60.0)
    logs.repeated("k", "%s", "100 % of %s")
    assert said(caplog) == ["100 % of %s", "100 % of %s (1 more like this)"]


def test_warnings_carry_the_error(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    error = ValueError("why")
    logs.repeated("k", "failed", exc_info=error)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_what_is_remembered_is_bounded(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    for number in range(5000):
        logs.repeated(f"k{number}", "x")
        now(0.001)
    said_now: dict[str, Any] = logs._said
    assert len(said_now) <= 1001
