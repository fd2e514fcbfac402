"""Service invocation: calls of gRPC that are passed on, and answers that come piece by piece."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import call, send
from tests.support.apps import App, GrpcApp, serving_grpc
from tests.support.listening import Listener
from tests.support.running import declared
from tests.support.sidecar_calls import Streams, beside
from tests.support.waiting import until


@pytest.mark.parametrize("target", ["app", "other"])
def test_calls_of_grpc_are_passed_on(tmp_path: Path, target: str) -> None:
    with ExitStack() as stack:
        app = stack.enter_context(serving_grpc(Streams()))
        own = app if target == "app" else None
        sidecar = stack.enter_context(beside(own, tmp_path, app_token="token" if own else None))
        if own is None:
            stack.enter_context(beside(app, tmp_path, "other", app_token="token", api_token="of the other"))
        channel = stack.enter_context(grpc.insecure_channel(sidecar.grpc_address))
        metadata = (("dapr-app-id", target), ("x-mine", "1"), ("dapr-caller-app-id", "lie"))
        reply, done = channel.unary_unary("/mine.Greeter/Hello").with_call(b"Ada", metadata=metadata, timeout=30)
        assert reply == b"hello Ada"
        assert dict(done.initial_metadata())["x-initial"] == "1"
        trailing = dict(done.trailing_metadata())
        assert (trailing["x-trailing"], trailing["x-bytes-bin"]) == ("2", b"\x00\xff")
        received = next(metadata for method, _, metadata in app.got if method == "/mine.Greeter/Hello")
        assert (received["x-mine"], received["dapr-api-token"], received["dapr-callee-app-id"]) == (
            "1",
            "token",
            target,
        )
        assert (received["dapr-caller-app-id"], received["dapr-caller-namespace"]) == ("app", "default")
        assert "dapr-app-id" not in received

        chat: Any = channel.stream_stream("/mine.Greeter/Chat")
        given = iter([b"%d" % number for number in range(100)])
        assert list(chat(given, metadata=metadata, timeout=30)) == [b"> %d" % number for number in range(100)]

        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/mine.Greeter/Fail")(b"", metadata=metadata, timeout=30)
        error: Any = caught.value
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
        assert dict(error.trailing_metadata())["grpc-status-details-bin"] == b"\x08\x05"
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/mine.Greeter/Gone")(b"", metadata=metadata, timeout=30)
        error = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    with ExitStack() as stack:
        app = stack.enter_context(serving_grpc(Streams()))
        sidecar = stack.enter_context(beside(app, tmp_path))
        channel = stack.enter_context(grpc.insecure_channel(sidecar.grpc_address))
        sent: list[bytes] = []

        def requests() -> Iterator[bytes]:
            while len(sent) < 3:
                # the next one is sent when the last one was answered
                until(lambda: len(received) == len(sent))
                sent.append(b"%d" % len(sent))
                yield sent[-1]

        received: list[bytes] = []
        chat: Any = channel.stream_stream("/mine.Greeter/Chat")
        for each in chat(requests(), metadata=(("dapr-app-id", "app"),), timeout=60):
            received.append(each)
        assert received == [b"> 0", b"> 1", b"> 2"]


def test_calls_of_grpc_that_cannot_be_passed_on(tmp_path: Path) -> None:
    with App() as app, beside(app, tmp_path, "app") as sidecar:
        with grpc.insecure_channel(sidecar.grpc_address) as channel:
            for target, text in (("app", "it speaks HTTP"), ("nobody", "no service 'nobody'")):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary("/mine.Greeter/Hello")(b"", metadata=(("dapr-app-id", target),), timeout=30)
                error: Any = caught.value
                assert error.code() is grpc.StatusCode.UNKNOWN
                assert text in error.details()
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/mine.Greeter/Hello")(b"", timeout=30)
            error = caught.value
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_way_in_for_other_sidecars_is_for_calls_of_the_application_alone(tmp_path: Path) -> None:
    with serving_grpc(Streams()) as app, beside(app, tmp_path, "app", api_token="secret") as sidecar:
        peer = sidecar.context.peer_token
        assert peer
        with grpc.insecure_channel(sidecar.grpc_address) as channel:
            metadata = (("dapr-app-id", "app"), ("dapr-api-token", peer))
            assert channel.unary_unary("/mine.Greeter/Hello")(b"", metadata=metadata, timeout=30) == b"hello "
        request = messages().GetStateRequest(store_name="store", key="k")
        answer = call(sidecar.grpc_address, "GetState", request, "GetStateResponse", {"dapr-api-token": peer})
        assert answer.code == "UNAUTHENTICATED"
        assert peer not in repr(sidecar.context)


def test_calls_under_way_end_before_the_sidecar(tmp_path: Path) -> None:
    leave = threading.Event()
    entered: list[str] = []

    class Slow(Streams):
        def hello(self, request: bytes, context: Any) -> bytes:
            entered.append("hello")
            assert leave.wait(60)
            return b"hello " + request

    def invoked_slowly(request: Any, context: Any) -> Any:
        entered.append("invoke")
        assert leave.wait(60)
        return messages().InvokeResponse()

    class Both(Slow):
        def service(self, handler_call_details: Any) -> Any:
            return super().service(handler_call_details) or GrpcApp.service(self, handler_call_details)

    with ExitStack() as stack:
        app = stack.enter_context(serving_grpc(Both(OnInvoke=("InvokeRequest", invoked_slowly))))
        sidecar = stack.enter_context(beside(app, tmp_path, grace=60.0))
        channel = stack.enter_context(grpc.insecure_channel(sidecar.grpc_address))
        hello = channel.unary_unary("/mine.Greeter/Hello").future(
            b"Ada", metadata=(("dapr-app-id", "app"),), timeout=60
        )
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(send, sidecar.http_address, "POST", "/v1.0/invoke/app/method/x", b"1")
            until(lambda: sorted(entered) == ["hello", "invoke"])
            sidecar.stop()
            threading.Timer(0.3, leave.set).start()
            assert hello.result() == b"hello Ada"
            assert other.result(60).status == 200


# -- answers that come piece by piece ---------------------------------------


class Events(Listener):
    """An application that sends server-sent events, one whenever it is told to."""

    def __init__(self) -> None:
        self.next = threading.Semaphore(0)
        self.gone = threading.Event()
        self.breaks = False
        self.count = 5
        super().__init__(self._answer)

    def _answer(self, connection: socket.socket) -> None:
        while head := connection.recv(65536):
            if b" /events " not in head:
                connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                continue
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nset-cookie: a=1\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for number in range(self.count):
                assert self.next.acquire(timeout=60)
                if self.breaks:
                    return
                try:
                    data = b"data: %d\n\n" % number
                    connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
                except OSError:
                    self.gone.set()
                    return
            connection.sendall(b"0\r\n\r\n")


@pytest.fixture
def events(tmp_path: Path) -> Iterator[tuple[Events, Sidecar]]:
    app = Events()
    with CloudRuntimesClient(config=declared(str(tmp_path)), app_id="app") as client:
        settings = SidecarSettings(
            app_id="app", app_port=app.port, http_port=0, grpc_port=None, timeout=30.0, grace=1.0
        )
        with Sidecar(client, settings) as sidecar:
            until(lambda: sidecar.context.app is not None and sidecar.context.app.is_ready)
            yield app, sidecar
    app.close()


def test_an_answer_without_a_length_comes_as_it_is_sent(events: tuple[Events, Sidecar]) -> None:
    app, sidecar = events
    connection = http.client.HTTPConnection(urlsplit(sidecar.http_address).netloc, timeout=30)
    for _ in range(2):  # the connection is good for another one
        connection.request("GET", "/v1.0/invoke/app/method/events")
        response = connection.getresponse()  # the head is there before the first event
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        assert response.headers["set-cookie"] == "a=1"
        for number in range(5):
            app.next.release()
            assert response.readline() + response.readline() == b"data: %d\n\n" % number
        assert response.read() == b""
    connection.close()


def test_who_goes_away_ends_the_answer(events: tuple[Events, Sidecar]) -> None:
    app, sidecar = events
    app.count = 1_000_000
    connection = http.client.HTTPConnection(urlsplit(sidecar.http_address).netloc, timeout=30)
    connection.request("GET", "/v1.0/invoke/app/method/events")
    response = connection.getresponse()
    app.next.release()
    assert response.readline() == b"data: 0\n"
    response.close()
    connection.close()

    def ended() -> bool:
        app.next.release()  # the application tries to send, and finds nobody
        return app.gone.wait(0.05)

    until(ended, "the end of the connection")


def test_an_answer_that_breaks_off_does_so_for_the_caller(events: tuple[Events, Sidecar]) -> None:
    app, sidecar = events
    connection = http.client.HTTPConnection(urlsplit(sidecar.http_address).netloc, timeout=30)
    connection.request("GET", "/v1.0/invoke/app/method/events")
    response = connection.getresponse()
    app.next.release()
    assert response.readline() == b"data: 0\n"
    app.breaks = True
    app.next.release()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
