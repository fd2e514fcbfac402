"""What all servers in a thread of their own have in common."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cloud_runtimes._http.asgi_server import make_server
from cloud_runtimes._http.threaded import ThreadedServer
from cloud_runtimes.errors import InternalError, UnsupportedError


async def _app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody asks")


class Server(ThreadedServer):
    """Serves nothing; fails before or after it has started."""

    what = "test's server"
    thread = "test-server"

    def __init__(self, before: Exception | None = None, after: Exception | None = None) -> None:
        super().__init__()
        self._before = before
        self._after = after

    def _open(self) -> None:
        self._listen("127.0.0.1", 0, "")

    async def _serve(self) -> None:
        if self._before is not None:
            raise self._before
        self._server = make_server(_app, self._has_started)
        if self._after is not None:
            self._server.should_exit = True
        await self._server.serve(sockets=[self._socket])
        if self._after is not None:
            raise self._after

    def close(self) -> None:
        self._leave(10, "something went on")


def test_what_keeps_it_from_starting_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InternalError, match="the test's server did not start: ValueError"), Server(ValueError("odd")):
        raise AssertionError("it has started")
    ours = UnsupportedError("not here")
    with pytest.raises(UnsupportedError) as caught, Server(ours):
        raise AssertionError("it has started")
    assert caught.value is ours
    assert caplog.records == []


def test_a_failure_while_serving_is_logged_and_ends_the_waiting(caplog: pytest.LogCaptureFixture) -> None:
    with Server(after=ValueError("odd")) as server:
        with pytest.raises(InternalError, match="the test's server failed: ValueError"):
            server.wait()
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("the test's server at http://127.0.0.1:")
    assert record.getMessage().endswith("failed: ValueError('odd')")


def test_waiting_ends_by_a_signal_a_condition_and_the_end() -> None:
    with Server() as server:
        server.wait(lambda: True)
        server.signalled(15)
        server.wait()
        assert server.signal == 15
        with pytest.raises(KeyboardInterrupt):
            server.signalled(2)
        server.stop()
    other = Server()
    with other:
        other.stop()
        other.wait()


def test_one_that_is_stopped_before_it_serves_ends() -> None:
    server = Server()
    server.stop()
    with server:
        server.wait()
