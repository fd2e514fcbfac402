"""Serving in threads of their own, in an application of others, and in processes that end, die and fork."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import uvicorn

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._http.asgi_server import make_server
from cloud_runtimes._http.threaded import ThreadedServer
from cloud_runtimes.errors import ClosedError, InternalError, UnavailableError, UnsupportedError
from cloud_runtimes.rpc import RpcServer
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.forked import in_child

# -- mounting -----------------------------------------------------------------


def _served(app: Any) -> Any:
    """Run an ASGI application by uvicorn's own parser, in a thread."""

    from cloud_runtimes._core.threads import Background

    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=2))
    thread = Background(lambda: asyncio.run(server.serve([sock])), "mounted")
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def stop() -> None:
        server.should_exit = True
        thread.join(10)

    return f"http://127.0.0.1:{sock.getsockname()[1]}", stop


def _get(address: str) -> tuple[int, bytes]:
    with urlopen(Request(address), timeout=10) as response:
        return response.status, response.read()


@pytest.mark.parametrize("kind", ["bare", "starlette", "fastapi"])
def test_mounted(kind: str, home: Path, tmp_path: Path, closing: Make, apart: None, api: Api) -> None:
    token = "a token for the mounted one"
    client = closing(app_id="there", config={"capa": {"home": str(home), "rpc_token": token}})
    from cloud_runtimes.testing.suites import rpc_methods

    rpc_methods.register(client)
    app: Any = client.rpc.asgi_app()
    prefix = ""
    if kind == "starlette":
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Mount, Route

        app = Starlette(routes=[Route("/own", lambda request: PlainTextResponse("own")), Mount("/api/rpc", app)])
        prefix = "/api/rpc"
    elif kind == "fastapi":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of FastAPI's own imports
            from fastapi import FastAPI

        outer = FastAPI()
        outer.get("/own")(lambda: "own")
        outer.mount("/rpc", app)
        app, prefix = outer, "/rpc"
    address, stop = _served(app)
    try:
        if prefix:
            assert b"own" in _get(f"{address}/own")[1]
        assert _get(f"{address}{prefix}/healthz") == (204, b"")
        assert _get(f"{address}{prefix}/dapr/config") == (200, b"{}")
        assert _get(f"{address}{prefix}/dapr/subscribe") == (200, b"[]")
        table = {"there": {"address": f"{address}{prefix}", "token": token}}
        caller = closing(app_id="suite", config={"capa": {"home": str(tmp_path / "b")}, "rpc": table})
        for method in ("echo", "echo-async"):
            assert api.call(caller.rpc, "invoke_method", "there", method, {"a": 1}) == {"a": 1}
        seen = api.call(caller.rpc, "invoke_method", "there", "describe", "x", headers={"x-mine": "1"})
        assert (seen["method"], seen["headers"], seen["caller"]) == ("describe", {"x-mine": "1"}, "suite")
        assert api.call(caller.rpc, "invoke", "there", "no-such").status == 404
        stranger = closing(
            app_id="b", config={"capa": {"home": ":memory:"}, "rpc": {"there": {"address": f"{address}{prefix}"}}}
        )
        assert api.call(stranger.rpc, "invoke", "there", "echo", 1).status == 401
    finally:
        stop()


# -- processes ----------------------------------------------------------------

SERVE = """
import sys
from cloud_runtimes import CloudRuntimesClient

client = CloudRuntimesClient(app_id="there", config={"capa": {"home": sys.argv[1]}})

@client.rpc.method("die")
def die():
    import os
    os._exit(9)

@client.rpc.method("hello")
def hello():
    print("called", flush=True)
    return "hello"

if sys.argv[2] == "sync":
    client.rpc.serve()
else:
    import asyncio
    asyncio.run(client.rpc.serve_async())
print("ended", flush=True)
"""


def _until_answered(caller: CloudRuntimesClient) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            assert caller.rpc.invoke_method("there", "hello") == "hello"
            return
        except UnavailableError:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_signals_end_serve(home: Path, caller: CloudRuntimesClient, number: int, kind: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVE, str(home), kind], stdout=subprocess.PIPE
    ) as process:
        try:
            _until_answered(caller)
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, b"called\nended\n")
    with pytest.raises(UnavailableError, match="no process has registered"):
        caller.rpc.invoke_method("there", "hello")


@pytest.mark.process
def test_a_server_killed_in_mid_call(home: Path, caller: CloudRuntimesClient, api: Api) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVE, str(home), "sync"], stdout=subprocess.PIPE) as process:
        try:
            _until_answered(caller)
            with pytest.raises(UnavailableError, match="broke") as caught:
                api.call(caller.rpc, "invoke_method", "there", "die")
            assert caught.value.maybe_applied
            process.communicate(timeout=60)
        finally:
            process.kill()
    # its registration is still there, and it is not: nobody waits for the lease
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match="no process has registered") as caught:
        api.call(caller.rpc, "invoke_method", "there", "hello")
    assert time.monotonic() - begin < 10
    assert not caught.value.maybe_applied


@pytest.mark.process
def test_a_forked_child_calls_with_connections_of_its_own(server: RpcServer, caller: CloudRuntimesClient) -> None:
    assert caller.rpc.invoke_method("there", "echo", 1) == 1
    assert asyncio.run(caller.rpc.invoke_method_async("there", "echo", 1)) == 1

    def child() -> None:
        assert caller.rpc.invoke_method("there", "echo", 2) == 2
        with pytest.raises(ClosedError):
            server.address  # noqa: B018

    in_child(child)
    for n in range(3):
        assert caller.rpc.invoke_method("there", "echo", n) == n


# -- what all servers in a thread of their own have in common


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
