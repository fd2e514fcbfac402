"""Listening over a connection that is quiet, hangs, or is cut."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from cloud_runtimes.components._net import notify as _notify
from cloud_runtimes.components.redis.engine import RedisEngine
from cloud_runtimes.components.redis.settings import RedisSettings
from tests.support.redis import RedisServer, Serve
from tests.support.waiting import until


@pytest.fixture
def server(served: Serve) -> RedisServer:
    return served()


@pytest.fixture
def engine(server: RedisServer) -> Iterator[RedisEngine]:
    redis_engine = RedisEngine.acquire(RedisSettings(url=server.url))
    yield redis_engine
    redis_engine.release()


def notified(server: RedisServer, waiter: _notify.Waiter) -> bool:
    """Return whether a notification wakes a waiter, long before it would look by itself."""
    waiter.wait(0.05)  # what was before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_notify, "NET", 60.0)
        begun = time.monotonic()
        server.command("PUBLISH", "cr:channel", "")
        waiter.wait(60)
        return time.monotonic() - begun < 20


def listening(server: RedisServer) -> bool:
    return server.command("PUBSUB", "NUMSUB", "cr:channel").endswith(b":1\r\n")


def test_a_quiet_connection_is_kept(server: RedisServer, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for quiet in (20, 200, 2000):
        monkeypatch.setattr(_notify, "_QUIET_MS", quiet)
        waiter = engine.notifier.subscribe("channel")
        until(lambda: listening(server))
        before = engine.notifier.count
        time.sleep(quiet / 100)
        assert notified(server, waiter)
        waiter.close()
        until(lambda: not listening(server))
        time.sleep(quiet / 200)  # a connection without a channel is asked too
        waiter = engine.notifier.subscribe("channel")
        until(lambda: listening(server))
        assert notified(server, waiter)
        waiter.close()
        if engine.notifier.count == before:  # else a busy server may not have answered in that time
            break
    assert engine.notifier.count == before


def test_a_server_that_hangs_is_left(server: RedisServer, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_notify, "_QUIET_MS", 100)
    waiter = engine.notifier.subscribe("channel")
    until(lambda: listening(server))
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: engine.notifier.net < _notify.NET)
        monkeypatch.setattr(_notify, "NET", 60.0)
        begun = time.monotonic()
        waiter.wait(60)
        waiter.wait(60)
        assert time.monotonic() - begun < 20  # it looks by itself, more often than while somebody listens
    finally:
        server.process.send_signal(signal.SIGCONT)
    until(lambda: engine.notifier.count > 1 and listening(server))
    assert notified(server, waiter)


def test_channels_are_those_of_the_waiters(server: RedisServer, engine: RedisEngine) -> None:
    first, second = (engine.notifier.subscribe("channel") for _ in range(2))
    until(lambda: listening(server))
    first.close()
    assert notified(server, second)
    second.close()
    until(lambda: not listening(server))
    assert engine.notifier.count == 1


def test_waits_end_with_the_engine(server: RedisServer, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    waiter = engine.notifier.subscribe("channel")
    until(lambda: listening(server))
    waiter.wait(0.05)
    engine.notifier.close()
    monkeypatch.setattr(_notify, "NET", 60.0)
    begun = time.monotonic()
    waiter.wait(60)
    assert time.monotonic() - begun < 20
    until(lambda: not listening(server))
