"""Serving: the handle, the blocking call, and where handlers run."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import uvicorn

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.rpc import RpcRequest
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.waiting import longer

# -- registering --------------------------------------------------------------


def test_handlers_of_every_shape(serving: CloudRuntimesClient, api: Api) -> None:
    rpc = serving.rpc

    class Methods:
        def bound(self, data: Any) -> Any:
            return ["bound", data]

        async def __call__(self, data: Any, request: RpcRequest) -> Any:
            return ["called", data, request.method]

    async def keyword(data: Any = 5, *, more: int = 1) -> Any:
        return ["keyword", data, more]

    def alone(request: RpcRequest) -> str:
        return request.method

    rpc.register_method("alone", alone)
    rpc.register_method("nothing-taken", lambda: "none")
    rpc.register_method("bound", Methods().bound)
    rpc.register_method("instance", Methods())
    rpc.register_method("keyword", keyword)
    rpc.register_method("everything", lambda *given: len(given))
    rpc.register_method("built-in", len)
    calls = {
        "alone": "alone",
        "nothing-taken": "none",
        "bound": ["bound", [1]],
        "instance": ["called", [1], "instance"],
    }
    calls |= {"keyword": ["keyword", [1], 1], "everything": 2, "built-in": 1}  # type: ignore[dict-item]
    for method, expected in calls.items():
        assert api.call(rpc, "invoke_method", "there", method, [1]) == expected


@pytest.mark.parametrize(
    "handler", [lambda a, b, c: 1, lambda *, needed: 1, 5, None], ids=["three", "keyword", "number", "none"]
)
def test_handlers_that_cannot_be_called(serving: CloudRuntimesClient, handler: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="handler"):
        serving.rpc.register_method("bad", handler)


@pytest.mark.parametrize("name", ["", "a b", "healthz", "dapr/config", "cloud-runtimes/hello", "../x", 5])
def test_names_that_cannot_be_registered(serving: CloudRuntimesClient, name: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        serving.rpc.register_method(name, lambda: 1)


def test_a_name_is_registered_once(serving: CloudRuntimesClient) -> None:
    @serving.rpc.method("once")
    def once() -> int:
        return 1

    assert once() == 1
    with pytest.raises(InvalidArgumentError, match="registered already"):
        serving.rpc.register_method("once", once)


def test_the_newest_open_client_of_a_name_has_the_call(closing: Make, home: Path) -> None:
    def make(answer: int) -> CloudRuntimesClient:
        client = closing(app_id="twin", config={"capa": {"home": str(home)}})
        client.rpc.register_method("which", lambda: answer)
        return client

    caller = closing(app_id="caller", config={"capa": {"home": str(home)}})
    one, two = make(1), make(2)
    assert caller.rpc.invoke_method("twin", "which") == 2
    two.close()
    assert caller.rpc.invoke_method("twin", "which") == 1
    one.close()
    with pytest.raises(UnavailableError):
        caller.rpc.invoke_method("twin", "which")


def test_an_in_process_call_needs_no_store(closing: Make, home: Path) -> None:
    client = closing(app_id="me", config={"capa": {"home": str(home)}})
    client.rpc.register_method("m", lambda: 1)
    assert client.rpc.invoke_method("me", "m") == 1
    assert not home.exists()


# -- where handlers run -------------------------------------------------------


def test_an_async_handler_runs_where_it_is_served(serving: CloudRuntimesClient, caller: CloudRuntimesClient) -> None:
    loops: list[Any] = []

    @serving.rpc.method("loop")
    async def which() -> None:
        loops.append(asyncio.get_running_loop())

    async def main() -> None:
        async with serving.rpc.serving():
            await caller.rpc.invoke_method_async("there", "loop")
            await asyncio.to_thread(caller.rpc.invoke_method, "there", "loop")
            assert set(loops) == {asyncio.get_running_loop()}

    asyncio.run(main())


def test_a_sync_call_in_the_loop_that_serves_does_not_wait_for_itself(serving: CloudRuntimesClient) -> None:
    async def main() -> None:
        async with serving.rpc.serving():
            assert serving.rpc.invoke_method("there", "echo-async", 1, timeout=5) == 1

    asyncio.run(main())


def test_a_plain_handler_runs_in_a_thread(serving: CloudRuntimesClient, caller: CloudRuntimesClient) -> None:
    serving.rpc.register_method("thread", lambda: threading.current_thread().name)
    with serving.rpc.serving():
        assert caller.rpc.invoke_method("there", "thread") == "cloud-runtimes-rpc-worker"


def test_in_the_process_a_plain_handler_never_blocks_a_loop(serving: CloudRuntimesClient) -> None:
    serving.rpc.register_method("thread", lambda: threading.current_thread().name)
    assert serving.rpc.invoke_method("there", "thread") == threading.current_thread().name
    assert asyncio.run(serving.rpc.invoke_method_async("there", "thread")) == "cloud-runtimes-rpc-worker"


def test_calls_beyond_the_workers_wait_within_their_deadlines(
    serving: CloudRuntimesClient, caller: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from cloud_runtimes.rpc import host

    monkeypatch.setattr(host, "WORKERS", 1)
    entered, release = threading.Event(), threading.Event()
    serving.rpc.register_method("hold", lambda: entered.set() or release.wait(30))
    with serving.rpc.serving(), ThreadPoolExecutor(1) as pool:
        held = pool.submit(caller.rpc.invoke_method, "there", "hold")
        assert entered.wait(30)
        with pytest.raises(DeadlineExceededError):
            caller.rpc.invoke_method("there", "echo", 1, timeout=0.3)
        release.set()
        assert held.result() is True
        assert caller.rpc.invoke_method("there", "echo", 1) == 1


def test_a_crash_is_logged_with_its_traceback(serving: CloudRuntimesClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "cloud_runtimes"):
        assert serving.rpc.invoke("there", "crash").status == 500
    assert "canary-7f3a" in caplog.text
    assert "Traceback" in caplog.text


# -- the handle ---------------------------------------------------------------


def test_the_handle(serving: CloudRuntimesClient, api: Api) -> None:
    handle = serving.rpc.serving()
    with pytest.raises(ClosedError, match="with block"):
        handle.address  # noqa: B018
    with api.opened(handle) as server:
        assert server.address.startswith("http://127.0.0.1:")
    with pytest.raises(ClosedError):
        handle.address  # noqa: B018
    with pytest.raises(ClosedError, match="another"):
        with api.opened(handle):
            pass


def test_ports(serving: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("APP_PORT", str(port))
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}.*APP_PORT") as caught:
            with api.opened(serving.rpc.serving()):
                pass
        assert not caught.value.retryable
    with api.opened(serving.rpc.serving()) as server:
        assert server.address == f"http://127.0.0.1:{port}"
    for bad in ("x", "-1", "70000"):
        monkeypatch.setenv("APP_PORT", bad)
        with pytest.raises(InvalidArgumentError):
            serving.rpc.serving()
    for arguments in ({"port": True}, {"port": -1}, {"host": ""}, {"host": "a b"}, {"timeout": 0}):
        with pytest.raises(InvalidArgumentError):
            serving.rpc.serving(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost"])
def test_other_hosts(serving: CloudRuntimesClient, caller: CloudRuntimesClient, host: str, api: Api) -> None:
    with api.opened(serving.rpc.serving(host=host)) as server:
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
        assert server.address.startswith(f"http://{shown}:")
        if api.name == "sync":
            assert caller.rpc.invoke_method("there", "echo", 1) == 1


def test_a_call_of_a_handler_whose_caller_has_given_up(serving: CloudRuntimesClient) -> None:
    @serving.rpc.method("late")
    def late() -> Any:
        time.sleep(0.3)
        with pytest.raises(DeadlineExceededError, match="given up") as caught:
            serving.rpc.invoke_method("there", "nothing")
        assert not caught.value.maybe_applied
        return serving.rpc.invoke_method("there", "count", timeout=None)  # no way around it

    with pytest.raises(DeadlineExceededError):
        serving.rpc.invoke_method("there", "late", timeout=0.2)
    assert serving.rpc.invoke_method("there", "count") == 1


def test_ipv6(serving: CloudRuntimesClient, caller: CloudRuntimesClient) -> None:
    with serving.rpc.serving(host="::1") as server:
        assert server.address.startswith("http://[::1]:")
        assert caller.rpc.invoke_method("there", "echo", 1) == 1


def test_close_lets_handlers_end(serving: CloudRuntimesClient, caller: CloudRuntimesClient, api: Api) -> None:
    from concurrent.futures import ThreadPoolExecutor

    entered = threading.Event()

    @serving.rpc.method("slow")
    def slow() -> str:
        entered.set()
        time.sleep(0.5)
        return "done"

    with ThreadPoolExecutor(1) as pool, api.opened(serving.rpc.serving()):
        answer = pool.submit(caller.rpc.invoke_method, "there", "slow")
        assert api.until(entered.is_set)
    assert answer.result(30) == "done"


def test_a_hanging_handler_does_not_hold_up_the_close(
    serving: CloudRuntimesClient, caller: CloudRuntimesClient
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    entered, release = threading.Event(), threading.Event()
    serving.rpc.register_method("hang", lambda: entered.set() or release.wait(60))
    with ThreadPoolExecutor(1) as pool:
        server = serving.rpc.serving()
        with server:
            answer = pool.submit(caller.rpc.invoke_method, "there", "hang", timeout=60)
            assert entered.wait(30)
            begin = time.monotonic()
            server.close(timeout=0.5)
            assert time.monotonic() - begin < 15
        release.set()
        with pytest.raises((UnavailableError, DeadlineExceededError, Exception)) as caught:
            answer.result(30)
        assert caught.value.maybe_applied  # type: ignore[attr-defined]


def test_a_connection_that_is_made_at_the_end_is_closed(
    serving: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is accepted after the shutdown of the others is closed."""
    monkeypatch.setattr("cloud_runtimes._http.asgi_server._Protocol.shutdown", lambda connection: None)
    server = serving.rpc.serving()
    with server:
        address = urlsplit(server.address)
        with socket.create_connection((address.hostname, address.port)) as late:
            late.sendall(b"GET /")
            late.settimeout(30)
            time.sleep(0.1)
            server.close(timeout=0.3)
            with suppress(ConnectionResetError):
                assert late.recv(1) == b""


def test_a_connection_that_is_being_let_in_at_the_end_is_not_lost(
    serving: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that the loop has accepted, but not yet given to the server, is not lost."""
    server, late = serving.rpc.serving(), []
    shutdown = uvicorn.Server.shutdown

    async def connected(ending: uvicorn.Server, sockets: Any = None) -> None:
        late.append(socket.create_connection(ending.servers[0].sockets[0].getsockname()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await shutdown(ending, sockets)

    monkeypatch.setattr(uvicorn.Server, "shutdown", connected)
    with server:
        pass
    gc.collect()  # what was lost would warn
    with late.pop() as connection, suppress(ConnectionResetError):
        connection.settimeout(5)
        assert connection.recv(1) == b""


def test_a_handler_that_does_not_heed_its_cancellation(
    serving: CloudRuntimesClient,
    caller: CloudRuntimesClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloud_runtimes.rpc.server._CANCELLED", 0.1)

    entered = threading.Event()

    @serving.rpc.method("unheeding")
    async def unheeding() -> None:
        entered.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    with serving.rpc.serving():
        for timeout in longer(entered.is_set):
            with pytest.raises(DeadlineExceededError):
                caller.rpc.invoke_method("there", "unheeding", timeout=timeout)
    gc.collect()
    assert "did not end when they were cancelled" in caplog.text
    assert "destroyed" not in caplog.text


def is_open(client: CloudRuntimesClient) -> bool:
    """Return whether the client's server has come to the end of its opening, which is to run jobs."""
    runners = [getattr(handle, "_lifespan", None) for handle in list(client._context.handles)]
    return any(runner is not None and runner._thread is not None for runner in runners)


def test_the_client_s_close_ends_a_server(closing: Make, home: Path) -> None:
    client = closing(app_id="there", config={"capa": {"home": str(home)}})
    thread = threading.Thread(target=client.rpc.serve)
    thread.start()
    while not is_open(client):
        time.sleep(0.01)
    client.close()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("slow", [False, True])
def test_opening_cancelled_at_every_step_leaves_nothing(
    closing: Make, home: Path, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import sqlite3

    from cloud_runtimes.rpc import server

    if slow:  # the thread that listens goes on after the cancellation
        look_up = socket.getaddrinfo

        def later(*arguments: Any, **options: Any) -> Any:
            time.sleep(0.01)
            return look_up(*arguments, **options)

        monkeypatch.setattr(server.socket, "getaddrinfo", later)
    client = closing(app_id="there", config={"capa": {"home": str(home)}})

    async def main() -> None:
        async with client.rpc.serving():
            pass
        for step in range(25):
            task = asyncio.ensure_future(client.rpc.serving().__aenter__())
            for _ in range(step):
                await asyncio.sleep(0 if step < 12 else 0.001)
            task.cancel()
            try:
                await (await task).close_async()
            except asyncio.CancelledError:
                continue

    asyncio.run(main())
    end = time.monotonic() + 30
    rows: list[Any] = [None]
    while rows and time.monotonic() < end:
        time.sleep(0.05)
        connection = sqlite3.connect(home / "cloud_runtimes.db")
        rows = connection.execute("SELECT * FROM services").fetchall()
        connection.close()
    assert rows == []
    assert not list(client._context.handles)
    gc.collect()  # a socket that was left open is a warning now


def test_serve_async_ends_when_cancelled_or_closed(closing: Make, home: Path) -> None:
    async def main() -> None:
        for cancel in (True, False):
            client = closing(app_id="there", config={"capa": {"home": str(home)}})
            task = asyncio.ensure_future(client.rpc.serve_async())
            while not is_open(client):
                await asyncio.sleep(0.01)
            if cancel:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await client.close_async()
            else:
                await client.close_async()
                await asyncio.wait_for(task, 30)

    asyncio.run(main())


def test_a_runtime_without_hosting(closing: Make) -> None:
    from cloud_runtimes.spi.rpc import RpcDriver

    class Narrow:
        features: frozenset[str] = frozenset()
        alternatives: ClassVar[dict[str, str]] = {}

    client = closing(app_id="there", config={"capa": {"home": ":memory:"}})
    driver: Any = Narrow()
    client.rpc._frame.drivers["there"] = driver
    assert not issubclass(Narrow, RpcDriver)
    with pytest.raises(UnsupportedError, match="serving"):
        with client.rpc.serving():
            pass
    with pytest.raises(UnsupportedError, match="headers"):
        client.rpc.invoke_method("there", "m", headers={"a": "b"})
    with pytest.raises(UnsupportedError, match="http_method"):
        client.rpc.invoke_method("there", "m", http_method="GET")


def test_nothing_is_left_running(closing: Make, home: Path, apart: None) -> None:
    before = {thread.name for thread in threading.enumerate()}
    client = closing(app_id="there", config={"capa": {"home": str(home)}})
    client.rpc.register_method("m", lambda: 1)
    other = closing(app_id="other", config={"capa": {"home": str(home)}})
    with client.rpc.serving():
        assert other.rpc.invoke_method("there", "m") == 1
        assert {"cloud-runtimes-rpc-worker", "cloud-runtimes-rpc-lease"} <= {t.name for t in threading.enumerate()}
    client.close()
    other.close()
    end = time.monotonic() + 30
    while (remaining := {t.name for t in threading.enumerate()} - before) and time.monotonic() < end:
        time.sleep(0.01)
    assert not remaining
