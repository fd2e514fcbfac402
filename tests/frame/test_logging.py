"""What is logged: nothing where the application configures no logging, and the same thing at most once a minute."""

from __future__ import annotations

import logging
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes import _log


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock of repeated warnings, and forget what was said; call it to let time pass."""
    current = [1000.0]
    monkeypatch.setattr(_log, "time", types.SimpleNamespace(monotonic=lambda: current[0]))
    monkeypatch.setattr(_log, "_said", {})

    def advance(seconds: float) -> None:
        current[0] += seconds

    return advance


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.name == "cloud_runtimes"]
    caplog.clear()
    return found


def test_the_logger_has_one_null_handler() -> None:
    logger = _log.logger()
    assert logger.name == "cloud_runtimes"
    assert _log.logger() is logger
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    assert logger.level == logging.NOTSET, "the level is the application's"
    assert logger.propagate


def test_a_handler_of_the_applications_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("cloud_runtimes")
    own = logging.NullHandler()
    monkeypatch.setattr(logger, "handlers", [own])
    monkeypatch.setattr(_log, "_logger", None)
    assert _log.logger() is logger
    assert logger.handlers == [own]


@pytest.mark.process
def test_silent_by_default() -> None:
    # logging's last resort would write a warning to stderr
    program = "from cloud_runtimes import _log; _log.logger().error('no one asked'); _log.repeated('k', 'nor here')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")


def test_at_most_once_a_minute(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    _log.repeated("k", "cannot reach %s", "bus")
    assert said(caplog) == ["cannot reach bus"]
    for _ in range(5):
        now(11.9)
        _log.repeated("k", "cannot reach %s", "bus")
    assert said(caplog) == []
    now(0.5)  # a minute after the first
    _log.repeated("k", "cannot reach %s", "bus")
    assert said(caplog) == ["cannot reach bus (5 more like this)"]
    now(60.0)
    _log.repeated("k", "cannot reach %s", "bus")
    assert said(caplog) == ["cannot reach bus"]


def test_keys_are_apart(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    for key in ("a", "b", "a", "b"):
        _log.repeated(key, "key %s", key)
    assert said(caplog) == ["key a", "key b"]


def test_a_percent_sign_is_harmless(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    for _ in range(2):
        _log.repeated("k", "%s", "100 % of %s")
    now(60.0)
    _log.repeated("k", "%s", "100 % of %s")
    assert said(caplog) == ["100 % of %s", "100 % of %s (1 more like this)"]


def test_warnings_carry_the_error(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    error = ValueError("why")
    _log.repeated("k", "failed", exc_info=error)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_what_is_remembered_is_bounded(caplog: pytest.LogCaptureFixture, now: Callable[[float], None]) -> None:
    for number in range(5000):
        _log.repeated(f"k{number}", "x")
        now(0.001)
    said_now: dict[str, Any] = _log._said
    assert len(said_now) <= 1001
