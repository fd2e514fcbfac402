"""The runtime dapr over gRPC: what of the way is its own; what the calls mean is held by the suites."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud_runtimes import CloudRuntimesClient, errors
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.errors import (
    ClosedError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.protocols.dapr.messages import messages
from cloud_runtimes.rpc import RpcRequest
from cloud_runtimes.testing import Api
from tests.support import PEM, grpc_forks
from tests.support.ports import reserved_port


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


class Peer:
    """A server that answers every method as it is told."""

    def __init__(self, address: str = "127.0.0.1:0", pem: bytes | None = None) -> None:
        self.code: grpc.StatusCode | None = None
        self.reason = ""
        self.words = "words"
        self.late = False
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((self,))
        if pem is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, grpc.ssl_server_credentials([(pem, pem)]))
        self.url = f"grpc://127.0.0.1:{port}" if not address.startswith("unix:") else address
        self._server.start()

    def service(self, details: Any) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            self.asked.append(details.method.rpartition("/")[2])
            assert self.gate.wait(20)
            if self.late:
                wait_until(lambda: context.time_remaining() < 0.05)
            if self.code is not None:
                if self.reason:
                    kinds = messages()
                    status = kinds.Status(code=13, message="words")
                    status.details.add().Pack(kinds.ErrorInfo(reason=self.reason, domain="dapr.io"))
                    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
                context.abort(self.code, self.words)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)

    def service_name(self) -> str:
        return ""

    def close(self) -> None:
        self.gate.set()
        self._server.stop(None).wait()


@pytest.fixture
def peer() -> Iterator[Peer]:
    server = Peer()
    yield server
    server.close()


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as number:
        yield number


@pytest.fixture
def sidecar(tmp_path: Path, port: int) -> Iterator[Sidecar]:
    beneath = CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}, app_id="beside")
    settings = SidecarSettings(app_id="beside", app_port=port, http_port=0, grpc_port=0, api_token="opens")
    with beneath, Sidecar(beneath, settings) as server:
        yield server


# -- refusals ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("INVALID_ARGUMENT", "DAPR_STATE_NOT_FOUND", errors.ComponentNotFoundError),
        ("INVALID_ARGUMENT", "ERR_SECRET_STORE_NOT_FOUND", errors.ComponentNotFoundError),
        ("FAILED_PRECONDITION", "", errors.ComponentNotFoundError),
        ("INVALID_ARGUMENT", "DAPR_STATE_ILLEGAL_KEY", errors.InvalidArgumentError),
        ("PERMISSION_DENIED", "", errors.PermissionDeniedError),
        ("UNAUTHENTICATED", "", UnauthenticatedError),
        ("UNIMPLEMENTED", "", UnsupportedError),
        ("RESOURCE_EXHAUSTED", "", ResourceExhaustedError),
        ("ABORTED", "", errors.ConflictError),
        ("INTERNAL", "ERR_STATE_GET", InternalError),
        ("UNKNOWN", "", InternalError),
        ("UNAVAILABLE", "", UnavailableError),
        ("DEADLINE_EXCEEDED", "", DeadlineExceededError),
    ],
)
def test_a_refusal_is_one_class(peer: Peer, api: Api, code: str, reason: str, kind: type[Exception]) -> None:
    with CloudRuntimesClient(peer.url) as client:
        api.call(client.state, "save", "s", "k", 1)  # from here on the component's type is known
        peer.code, peer.reason = grpc.StatusCode[code], reason
        error = api.fails(kind, match=r"words|token")(client.state, "get", "s", "k")
        with pytest.raises(kind) as written:
            api.call(client.state, "save", "s", "k", 1, etag="1")
    one: Any = error
    other: Any = written.value
    assert type(one) is kind
    assert not one.maybe_applied
    assert other.maybe_applied is (kind in (InternalError, UnavailableError, DeadlineExceededError))
    assert one.retryable is (kind is UnavailableError)


# -- the way -------------------------------------------------------------------


def test_nobody_there(api: Api) -> None:
    with CloudRuntimesClient("grpc://127.0.0.1:1") as client:
        error = api.fails(UnavailableError, match="cloud-runtimes serve, dapr run")(client.state, "save", "s", "k", 1)
    assert not error.maybe_applied


def test_a_deadline(peer: Peer, api: Api) -> None:
    peer.gate.clear()
    with CloudRuntimesClient(peer.url) as client:
        with pytest.raises(DeadlineExceededError, match="give a longer timeout") as caught:
            api.call(client.state, "get", "s", "k", timeout=0.2)
        assert not caught.value.maybe_applied
        peer.gate.set()
        assert api.call(client.state, "get", "s", "k") is None
        api.call(client.state, "save", "s", "k", 1)  # the component's type is known
        peer.gate.clear()
        with pytest.raises(DeadlineExceededError) as caught:
            api.call(client.state, "save", "s", "k", 1, timeout=0.2)
        assert caught.value.maybe_applied


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("UNKNOWN", "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))"),
        ("CANCELLED", "Received RST_STREAM with error code 8"),
        ("UNKNOWN", "failed to invoke, id: s, err: context deadline exceeded"),
    ],
)
def test_a_sidecar_may_notice_first_that_a_call_is_late(peer: Peer, api: Api, code: str, words: str) -> None:
    peer.late, peer.code, peer.words = True, grpc.StatusCode[code], words
    with CloudRuntimesClient(peer.url) as client:
        assert api.fails(DeadlineExceededError)(client.rpc, "invoke_method", "s", "m", timeout=0.3).maybe_applied


def test_a_body_that_is_a_stream_is_collected(sidecar: Sidecar, port: int, api: Api) -> None:
    with CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", app_id="beside", api_token="opens") as client:
        client.rpc.register_method("size", lambda data, request: len(request.data))
        with client.rpc.serving(port=port):
            assert api.call(client.rpc, "invoke_method", "beside", "size", iter([b"a" * 70_000, b"b"])) == 70_001
        with pytest.raises(InvalidArgumentError, match="a stream must give bytes, not str"):
            api.call(client.rpc, "invoke_method", "beside", "size", iter(["text"]))
        error = api.fails(ResourceExhaustedError, match="max_message in \\[dapr\\]")(
            client.rpc, "invoke_method", "beside", "size", iter([bytes(3 << 20)] * 2)
        )
        assert not error.maybe_applied

        def slow() -> Iterator[bytes]:
            yield b"a"
            time.sleep(0.4)
            yield b"b"

        with pytest.raises(DeadlineExceededError, match="the end of the body") as late:
            api.call(client.rpc, "invoke_method", "beside", "size", slow(), timeout=0.1)
        assert not late.value.maybe_applied


def test_a_cancelled_task_says_whether_it_may_be_applied(peer: Peer) -> None:
    async def run(client: CloudRuntimesClient) -> tuple[Any, Any]:
        await client.state.save_async("s", "k", 1)
        peer.gate.clear()
        said = []
        for one in (client.state.get_async("s", "k"), client.state.save_async("s", "k", 1)):
            task = asyncio.ensure_future(one)
            before = len(peer.asked)
            while len(peer.asked) == before:
                await asyncio.sleep(0.01)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                said.append(getattr(error, "maybe_applied", None))
        return said[0], said[1]

    with CloudRuntimesClient(peer.url) as client:
        assert asyncio.run(run(client)) == (False, True)


def test_closing_ends_a_call(peer: Peer) -> None:
    client = CloudRuntimesClient(peer.url)
    assert client.state.get("s", "k") is None
    peer.gate.clear()
    ended: list[BaseException] = []

    def get() -> None:
        try:
            client.state.get("s", "k")
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    while len(peer.asked) < 2:
        thread.join(0.01)
    client.close()
    thread.join(20)
    assert [type(error) for error in ended] == [ClosedError]


def test_a_message_that_is_too_large(peer: Peer) -> None:
    with CloudRuntimesClient(peer.url, config={"dapr": {"max_message": "64KiB"}}) as client:
        with pytest.raises(ResourceExhaustedError, match=r"base64, a third larger; max_message in \[dapr\]") as caught:
            client.state.save("s", "k", "x" * 100_000)
        assert not caught.value.maybe_applied
    for bad in ("1KiB", "4MB", 1.5, True):
        with CloudRuntimesClient(peer.url, config={"dapr": {"max_message": bad}}) as client:
            with pytest.raises(errors.InvalidArgumentError, match="max_message"):
                client.state.get("s", "k")


def test_a_unix_socket(tmp_path: Path) -> None:
    peer = Peer(f"unix:{tmp_path}/s")
    try:
        with CloudRuntimesClient(f"unix://{tmp_path}/s") as client:
            assert client.state.get("s", "k") is None
    finally:
        peer.close()


def test_tls_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer("0.0.0.0:0", PEM.read_bytes())
    port = peer.url.rpartition(":")[2]
    try:
        with CloudRuntimesClient(f"grpcs://localhost:{port}") as client, pytest.raises(UnavailableError):
            client.state.get("s", "k")
        assert peer.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
        with CloudRuntimesClient(f"grpcs://localhost:{port}") as client:
            assert client.state.get("s", "k") is None
        with CloudRuntimesClient(f"grpcs://127.0.0.2:{port}") as client, pytest.raises(UnavailableError):
            client.state.get("s", "k")  # the certificate is of another name
        assert peer.asked == ["GetState"]
    finally:
        peer.close()


def test_several_loops_and_threads_at_once(sidecar: Sidecar) -> None:
    failed: list[BaseException] = []

    async def some(client: CloudRuntimesClient, mine: str) -> None:
        for number in range(10):
            await asyncio.gather(*(client.state.save_async("s", f"{mine}-{n}", number) for n in range(5)))
            assert await client.state.get_async("s", f"{mine}-4") == number

    def work(client: CloudRuntimesClient, mine: str) -> None:
        try:
            if mine < "2":
                asyncio.run(some(client, mine))
            else:
                for number in range(50):
                    client.state.save("s", mine, number)
                    assert client.state.get("s", mine) == number
        except BaseException as error:
            failed.append(error)

    with CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", api_token="opens") as client:
        threads = [threading.Thread(target=work, args=(client, str(number))) for number in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
    assert failed == []


@pytest.mark.process
def test_a_forked_child_connects_anew(sidecar: Sidecar) -> None:
    grpc_forks.check("connects_anew", endpoint=f"grpc://{sidecar.grpc_address}", api_token="opens", timeout=20)


_FORKING = """
import asyncio, json, os, sys, threading, time
from cloud_runtimes import CloudRuntimesClient

client = CloudRuntimesClient(sys.argv[1], api_token="opens", timeout=20)
client.state.save("s", "k", 1)
over = False
failed = []

def calls():
    while not over:
        try:
            client.state.get("s", "k")
        except Exception as error:
            failed.append(repr(error))

async def calls_async():
    while not over:
        await asyncio.gather(*(client.state.get_async("s", "k") for _ in range(5)))

threads = [threading.Thread(target=calls) for _ in range(3)] + [threading.Thread(target=lambda: asyncio.run(calls_async()))]
if sys.argv[2] == "calls":
    for thread in threads:
        thread.start()
elif sys.argv[2] == "stream":
    stream = client.pubsub.subscribe("bus", "forks")
ends = []
for number in range(8):
    child = os.fork()
    if child == 0:
        try:
            client.state.save("s", f"child-{number}", 1)
            os._exit(0 if client.state.get("s", f"child-{number}") == 1 else 1)
        except BaseException as error:
            os._exit(2 if type(error).__name__ == "UnsupportedError" and "spawn" in str(error) else 1)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over = True
for thread in threads:
    if thread.ident:
        thread.join()
client.close()
print(json.dumps([ends, failed]))
"""


@pytest.mark.process
@pytest.mark.parametrize("what", ["nothing", "calls", "stream"])
def test_a_forked_child_works_or_says_why_not(sidecar: Sidecar, what: str) -> None:
    """It never hangs, nor is it aborted by the library, whatever the parent had under way."""
    command = [sys.executable, "-c", _FORKING, f"grpc://{sidecar.grpc_address}", what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    ends, failed = json.loads(done.stdout)
    assert failed == []
    assert set(ends) <= {0, 2}, done.stderr
    if what == "nothing":
        assert set(ends) == {0}
    elif what == "stream":
        assert set(ends) == {2}


def test_the_token(sidecar: Sidecar, api: Api) -> None:
    with CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", api_token="wrong-one") as client:
        error = api.fails(UnauthenticatedError, match="give its DAPR_API_TOKEN")(client.state, "get", "s", "k")
        assert "wrong-one" not in repr(error)
        api.fails(UnauthenticatedError)(client, "wait_ready", timeout=5)


def test_waiting_until_it_is_ready(sidecar: Sidecar, api: Api) -> None:
    with CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", api_token="opens") as client:
        api.call(client, "wait_ready")
    with CloudRuntimesClient("grpc://127.0.0.1:1") as client, pytest.raises(DeadlineExceededError):
        api.call(client, "wait_ready", timeout=0.3)


# -- subscribing to configuration ------------------------------------------------


def test_a_subscription_outlives_its_sidecar(tmp_path: Path, port: int, api: Api) -> None:
    beneath = CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}, app_id="beside")
    settings = SidecarSettings(app_id="beside", http_port=0, grpc_port=port)
    with beneath:
        beneath.configuration.save_configuration("s", {"a": "1", "b": "1"})
        with Sidecar(beneath, settings):
            client = CloudRuntimesClient(f"grpc://127.0.0.1:{port}")
            sub = api.call(client.configuration, "subscribe_configuration", "s", ["a", "b"])
            seen = {key: item.value for key, item in sub.receive(20).items()}
            assert seen == {"a": "1", "b": "1"}
            beneath.configuration.save_configuration("s", {"a": "2"})
            assert {key: item.value for key, item in sub.receive(20).items()} == {"a": "2"}
        beneath.configuration.save_configuration("s", {"a": "3"})
        beneath.configuration.delete_configuration("s", ["b"])
        with Sidecar(beneath, settings):
            while set(seen.values()) != {"3", None}:
                items = sub.receive(20)
                assert items is not None
                seen |= {key: None if item.deleted else item.value for key, item in items.items()}
            beneath.configuration.save_configuration("s", {"b": "4"})
            assert {key: item.value for key, item in sub.receive(20).items()} == {"b": "4"}
            sub.close()
            client.close()


def test_a_subscription_outlives_a_refusal(peer: Peer) -> None:
    with CloudRuntimesClient(peer.url) as client, client.configuration.subscribe_configuration("s") as sub:
        assert sub.receive(5) == {}
        peer.code = grpc.StatusCode.UNIMPLEMENTED
        wait_until(lambda: isinstance(sub.health.problem, UnsupportedError))
        peer.code = None
        wait_until(lambda: sub.health.problem is None)


# -- calls of applications -------------------------------------------------------


def test_calls(sidecar: Sidecar, port: int, api: Api) -> None:
    app = CloudRuntimesClient(sidecar.http_address, app_id="beside", api_token="opens")

    @app.rpc.method("echo")
    def echo(data: Any, request: RpcRequest) -> Any:
        return {"data": data, "verb": request.http_method, "x": request.headers.get("x-mine"), "q": dict(request.query)}

    @app.rpc.method("fail")
    def fail(data: Any) -> None:
        raise errors.ConflictError("a long story: " + "x" * 100)

    with app, app.rpc.serving(port=port):
        with CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", api_token="opens") as client:
            assert not client.supports("rpc.status", "beside")
            result = api.call(
                client.rpc, "invoke_method", "beside", "echo", {"n": 1.5}, http_method="PUT",
                headers={"x-mine": "1"}, query={"a": "b c"},
            )  # fmt: skip
            assert result == {"data": {"n": 1.5}, "verb": "PUT", "x": "1", "q": {"a": ["b c"]}}
            # of a failure the status comes, and the beginning of its body
            answer = api.call(client.rpc, "invoke", "beside", "fail")
            assert answer.status == 409
            assert b"a long story" in answer.data
            error = api.fails(errors.CloudRuntimesError)(client.rpc, "invoke_method", "beside", "fail")
            assert error.response is not None
            api.fails(errors.NotFoundError)(client.rpc, "invoke_method", "beside", "no-such-method")
            api.fails(UnavailableError, match="was not reached")(client.rpc, "invoke_method", "nobody-there", "m")
            with pytest.raises(UnsupportedError, match="over HTTP alone"):
                api.call(client.rpc, "invoke_method", "beside", "echo", http_method="PURGE")
