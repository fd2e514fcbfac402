"""RPC by way of a NATS server: processes share the work, and what becomes of calls when one of them, or NATS, goes away."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats import rpc as rpc_calls
from cloud_runtimes.components.nats.protocol import publish
from cloud_runtimes.errors import (
    CloudRuntimesError,
    DeadlineExceededError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from cloud_runtimes.rpc import RpcRequest
from cloud_runtimes.rpc.host import hosts
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.suites import rpc_methods
from tests.support import Make, Rounds
from tests.support.harnesses.nats import NatsHome
from tests.support.harnesses.rpc import NatsRpc
from tests.support.nats import NatsServer, Serve, stopped
from tests.support.waiting import Stopwatch, until


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No service is found in this process, as if it were another's."""
    monkeypatch.setattr(hosts, "find", lambda app_id: None)


@pytest.fixture
def serving(home: NatsHome, apart: None) -> CloudRuntimesClient:
    client = home.client(app_id="there")
    rpc_methods.register(client)
    return client


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[NatsServer], NatsRpc]]:
    """Serve the suite's methods in a process."""
    with ExitStack() as resources:

        def start(server: NatsServer) -> NatsRpc:
            harness = NatsRpc(tmp_path, server.url)
            resources.enter_context(harness._process)
            resources.callback(harness._process.kill)
            return harness

        yield start


def operation() -> Operation:
    return Operation(Method("rpc", "invoke", repeatable=False), "rpc", 5.0)


def send(home: NatsHome, subject: str, data: bytes = b"", reply: str = "") -> None:
    """Publish what another client might."""
    runtime: Any = home.client()._context.runtime()
    connection = runtime.component("state", "s").engine.open(operation())
    try:
        connection.send(publish(f"{home.prefix}.rpc.{subject}", data, reply.encode()) + b"PING\r\n", None)
        while connection.session.pongs < 2:
            assert connection.wait(time.monotonic() + 5)
            connection.receive()
    finally:
        connection.close()


def test_processes_share_the_work_and_one_dies(
    served: Serve, process: Callable[[NatsServer], NatsRpc], client: Make, api: Api
) -> None:
    server = served()
    processes = [process(server) for _ in range(2)]
    rpc = client(server.url).rpc
    seen = {api.call(rpc, "invoke_method", "there", "describe")["process"] for _ in range(64)}
    assert seen == {each._process.pid for each in processes}
    assert api.fails(DeadlineExceededError)(rpc, "invoke_method", "there", "die", timeout=0.3).maybe_applied
    for _ in range(20):
        assert api.call(rpc, "invoke_method", "there", "describe")["process"] in seen
    (alive,) = [each for each in processes if each._process.poll() is None]
    alive.close()  # asserts that it ends well
    error = api.fails(UnavailableError, match="nobody serves")(rpc, "invoke_method", "there", "echo", 1)
    assert not error.maybe_applied


def test_nobody_is_there(home: NatsHome, api: Api) -> None:
    begun = time.monotonic()
    match = r"nobody serves home-[0-9-]+\.rpc\.a%2Eb\.> on nats .*app_id='a\.b'.*\[rpc\.a\.b\] address"
    error = api.fails(UnavailableError, match=match)(home.client().rpc, "invoke_method", "a.b", "m", timeout=60)
    assert not error.maybe_applied
    assert time.monotonic() - begun < 30


def test_while_nats_is_away(served: Serve, process: Callable[[NatsServer], NatsRpc], client: Make, api: Api) -> None:
    """A call that was under way may have run; a later one was not sent. Both sides find the server again."""
    server = served()
    process(server)
    rpc = client(server.url).rpc
    assert api.call(rpc, "invoke_method", "there", "echo", 1) == 1
    threading.Timer(0.5, server.kill).start()
    assert api.fails(UnavailableError)(rpc, "invoke_method", "there", "sleep", 3.0, timeout=10).maybe_applied
    error = api.fails(UnavailableError, match="no server can be reached")(rpc, "invoke_method", "there", "echo", 1)
    assert not error.maybe_applied
    server.start()

    def is_there() -> bool:
        try:
            return bool(api.call(rpc, "invoke_method", "there", "echo", 2) == 2)
        except UnavailableError:  # it is not back yet
            return False

    assert api.until(is_there)
    assert all(api.call(rpc, "invoke_method", "there", "echo", each) == each for each in range(20))


def test_a_caller_that_goes_away(home: NatsHome, serving: CloudRuntimesClient) -> None:
    """It learns that its call may have run, and the next one is answered."""
    held = _Held(serving)

    async def main() -> None:
        rpc = home.client().rpc
        call = asyncio.ensure_future(rpc.invoke_method_async("there", "held"))
        while not held.running:
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        assert caught.value.maybe_applied  # type: ignore[attr-defined]
        held.over.set()
        assert await rpc.invoke_method_async("there", "echo", 1) == 1

    with serving.rpc.serving():
        asyncio.run(main())


def test_a_server_that_stands_still(served: Serve, client: Make, apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls arrive by another one, and a server that ends does not wait for it."""
    monkeypatch.setattr(rpc_calls, "_SILENT", 0.1)
    monkeypatch.setattr(rpc_calls, "_ANSWER", 0.3)
    monkeypatch.setattr("cloud_runtimes.components.nats.shared._SILENT", 0.2)
    hung, other = served(), served()
    serving = client(f"nats://127.0.0.1:{hung.port},127.0.0.1:{other.port}").rpc
    serving.register_method("echo", lambda data: data)
    calling = client(other.url).rpc
    with ExitStack() as still:
        watch = still.enter_context(Stopwatch())
        with serving.serving(timeout=0.5):
            still.enter_context(stopped(hung))
            until(lambda: "k" in str(_try(lambda: calling.invoke_method("suite", "echo", "k"))))
            still.enter_context(stopped(other))
            time.sleep(0.8)  # it looks for a third
            begun = watch.seconds
        assert watch.seconds - begun < 3


def _try(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except CloudRuntimesError as error:
        return type(error)


def test_what_does_not_fit(home: NatsHome, serving: CloudRuntimesClient, api: Api) -> None:
    rpc = home.client().rpc
    serving.rpc.register_method("large", lambda size: bytes(size))
    with api.opened(serving.rpc.serving()):
        fits = (8 << 20) - 1024
        assert len(api.call(rpc, "invoke_method", "there", "large", fits)) == fits
        error = api.fails(ResourceExhaustedError, match=r"message of .* max_payload of 8,388,608: raise it")(
            rpc, "invoke_method", "there", "echo", bytes(8 << 20)
        )
        assert not error.maybe_applied
        error = api.fails(ResourceExhaustedError, match=r"reply of .* max_payload of 8,388,608: raise it")(
            rpc, "invoke_method", "there", "large", 8 << 20
        )
        assert error.maybe_applied
        api.fails(InvalidArgumentError, match="subject")(rpc, "invoke_method", "there", "✗" * 400)
        assert api.call(rpc, "invoke_method", "there", "echo", 1) == 1


def test_a_deadline_is_the_handler_s_too(home: NatsHome, serving: CloudRuntimesClient, api: Api) -> None:
    """It sees what is left, and is cancelled; a plain one that has not begun does not run."""
    rpc, ended = home.client().rpc, threading.Event()

    async def waits() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    serving.rpc.register_method("waits", waits)
    with api.opened(serving.rpc.serving()):
        begun = time.monotonic()
        assert api.fails(DeadlineExceededError)(rpc, "invoke_method", "there", "waits", timeout=0.2).maybe_applied
        assert api.until(ended.is_set, 20)
        assert time.monotonic() - begun < 20


def test_calls_in_hand_are_answered_when_a_server_ends(home: NatsHome, serving: CloudRuntimesClient) -> None:
    """Servers come and go, and no call fails."""
    rpc, over = home.client(timeout=10).rpc, threading.Event()
    others = home.client(app_id="there")
    rpc_methods.register(others)

    results: list[str] = []

    def call() -> None:
        while not over.is_set():
            results.append(rpc.invoke_method("there", "sleep", 0.005))
            results.append(rpc.invoke_method("there", "sleep-async", 0.005))

    with ThreadPoolExecutor(8) as threads, others.rpc.serving():
        callers = [threads.submit(call) for _ in range(8)]
        try:
            for _ in range(5):
                with serving.rpc.serving():
                    time.sleep(0.1)
            until(lambda: len(results) > 100)
        finally:
            over.set()
        for each in callers:
            each.result()
    assert set(results) == {"slept"}


class _Held:
    """A method that runs until it is let go."""

    def __init__(self, client: CloudRuntimesClient) -> None:
        self.running = 0
        self.over = threading.Event()
        client.rpc.register_method("held", self._run)

    def _run(self) -> str:
        self.running += 1
        self.over.wait(30)
        return "done"


def test_an_end_that_does_not_wait(home: NatsHome, serving: CloudRuntimesClient, caplog: Any) -> None:
    rpc, held = home.client().rpc, _Held(serving)
    with ThreadPoolExecutor(1) as threads:
        with serving.rpc.serving(timeout=0.2):
            late = threads.submit(rpc.invoke_method, "there", "held", timeout=1)
            until(lambda: held.running)
            begun = time.monotonic()
        assert time.monotonic() - begun < 20
        assert isinstance(late.exception(), DeadlineExceededError)
    held.over.set()
    assert "get no answer: 1" in caplog.text


def test_more_calls_than_are_taken(
    home: NatsHome, serving: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_calls, "MAX_SERVED", 2)
    rpc, held = home.client().rpc, _Held(serving)
    with serving.rpc.serving(), ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(rpc.invoke_method, "there", "held") for _ in range(2)]
        until(lambda: held.running == 2)
        with pytest.raises(ResourceExhaustedError, match="start more processes") as caught:
            rpc.invoke_method("there", "echo", 1)
        assert (caught.value.retryable, caught.value.maybe_applied) == (True, False)
        held.over.set()
        assert [each.result() for each in calls] == ["done"] * 2


def test_a_client_that_is_none_of_ours(home: NatsHome, serving: CloudRuntimesClient, caplog: Any) -> None:
    """A message without an inbox runs its method; one that wants its answer where commands go gets none."""
    seen: list[Any] = []

    def note(data: Any, request: RpcRequest) -> None:
        seen.append((data, request.caller, request.headers))

    serving.rpc.register_method("note", note)
    serving.rpc.register_method("victim", seen.append)
    with caplog.at_level(logging.WARNING), serving.rpc.serving():
        send(home, "there.note", b"plain")
        for reply in (f"{home.prefix}.rpc.there.victim", "$JS.API.STREAM.PURGE.KV_x"):
            send(home, "there.note", b"", reply)
        home.client().rpc.invoke_method("there", "echo", 1)
    assert seen == [(b"plain", None, {}), (None, None, {}), (None, None, {})]
    assert "where commands go" in caplog.text


def test_with_a_port_too(home: NatsHome, serving: CloudRuntimesClient, api: Api) -> None:
    """A port that is asked for is listened on: for health checks, and for callers with a token."""
    with api.opened(serving.rpc.serving(port=0)) as server:
        assert server.address.startswith("http://127.0.0.1:")
        if api.name == "sync":
            with urllib.request.urlopen(f"{server.address}/healthz") as answer:
                assert answer.status == 204
        assert api.call(home.client().rpc, "invoke_method", "there", "echo", 1) == 1
    with api.opened(serving.rpc.serving()) as server:
        assert server.address == f"nats://127.0.0.1:{home.server.port}/{home.prefix}.rpc.there"


def test_who_may_call_and_serve(served: Serve, client: Make, api: Api, apart: None, caplog: Any) -> None:
    """The account's permissions say who may call what, and who may be what."""
    caller = {"publish": ["cr.rpc.suite.echo"], "subscribe": ["_INBOX_caller.>"]}
    service = {"publish": ["_INBOX_caller.>"], "subscribe": ["_INBOX_service.>", "cr.rpc.suite.>"]}
    mute = {"publish": {"deny": [">"]}, "subscribe": ["_INBOX_mute.>", "cr.rpc.suite.>"]}
    users = [
        {"user": name, "password": name, "permissions": permissions}
        for name, permissions in (("caller", caller), ("service", service), ("mute", mute))
    ]
    server = served(authorization={"users": users})
    clients = {
        name: client(f"nats://{name}:{name}@127.0.0.1:{server.port}", inbox_prefix=f"_INBOX_{name}")
        for name in ("caller", "service", "mute")
    }
    for each in clients.values():
        rpc_methods.register(each)
    with pytest.raises(PermissionDeniedError, match="may not"), api.opened(clients["caller"].rpc.serving()):
        pass
    with api.opened(clients["service"].rpc.serving()):
        assert api.call(clients["caller"].rpc, "invoke_method", "suite", "echo", 1) == 1
        api.fails(PermissionDeniedError, match="may not")(clients["caller"].rpc, "invoke_method", "suite", "count")
    with api.opened(clients["mute"].rpc.serving()):
        api.fails(DeadlineExceededError)(clients["caller"].rpc, "invoke_method", "suite", "echo", 1, timeout=0.3)
        assert api.until(lambda: 'Permissions Violation for Publish to "_INBOX_caller' in caplog.text)


def test_servers_are_restarted_under_load(
    served: Serve, process: Callable[[NatsServer], NatsRpc], client: Make, rounds: Rounds
) -> None:
    """Processes of a service are killed one after the other: a call that was not answered says that it may have run."""
    server = served()
    alive, rpc, over = [process(server) for _ in range(2)], client(server.url).rpc, threading.Event()
    failed: list[CloudRuntimesError] = []

    def call() -> int:
        calls = 0
        while not over.is_set():
            try:
                rpc.invoke_method("there", "sleep-async", 0.002, timeout=0.5)
                calls += 1
            except CloudRuntimesError as error:
                failed.append(error)
        return calls

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(call) for _ in range(4)]
        for _ in range(rounds(1, 100)):
            time.sleep(0.2)
            alive.pop(0)._process.kill()
            alive.append(process(server))
        over.set()
        assert all(each.result() for each in callers)
    assert all(isinstance(each, DeadlineExceededError) and each.maybe_applied for each in failed), failed
