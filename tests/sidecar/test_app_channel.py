"""The way to the application: what arrives, what comes back, and what is said where it does not answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from grpc import StatusCode

from cloud_runtimes.dapr_server import SidecarSettings
from cloud_runtimes.dapr_server.app import grpc as over_grpc
from cloud_runtimes.dapr_server.app.channel import AppCall, NotReached, passed_on
from cloud_runtimes.dapr_server.app.grpc import GrpcChannel
from cloud_runtimes.dapr_server.app.http import HttpChannel
from cloud_runtimes.protocols.dapr.messages import messages
from tests.support.apps import App, GrpcApp, Reply, serving_grpc
from tests.support.fault_proxy import FaultProxy
from tests.support.listening import Listener
from tests.support.ports import reserved_port
from tests.support.waiting import longer


def settings(port: int, **more: Any) -> SidecarSettings:
    return SidecarSettings(app_id="app", app_port=port, **more)


@contextmanager
def answering(answer: bytes, *, close: bool = True) -> Iterator[int]:
    """Serve connections, with these bytes for each request."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        if not close:
            connection.recv(65536)

    with Listener(serve) as listener:
        yield listener.port


def test_a_callback_arrives_whole_and_the_answer_comes_back_verbatim() -> None:
    reply = Reply(
        418,
        b"\x00body",
        [("set-cookie", "a=1"), ("set-cookie", "b=2, c"), ("x-two", "1"), ("content-type", "a/b; c=d")],
    )

    async def main(port: int) -> None:
        channel = HttpChannel(settings(port, app_token="the-token"))
        answer = await channel.post("/a/b%20c", b"{}", "application/json", {"X-One": "1"})
        assert (answer.status, answer.body, answer.content_type) == (418, b"\x00body", "a/b; c=d")
        assert [value for name, value in answer.headers if name == "set-cookie"] == ["a=1", "b=2, c"]
        assert ("x-two", "1") in answer.headers
        assert not {"content-length", "content-type", "connection", "date"} & {name for name, _ in answer.headers}
        await channel.close()

    with App(answer=lambda got: reply) as app:
        asyncio.run(main(app.port))
        (got,) = app.got
    assert (got.method, got.path, got.body) == ("POST", "/a/b%20c", b"{}")
    assert (got.header("content-type"), got.header("x-one")) == ("application/json", "1")
    assert got.header("dapr-api-token") == "the-token"
    assert got.header("host") == f"127.0.0.1:{app.port}"


def test_connections_are_used_again_and_one_that_was_closed_is_replaced() -> None:
    async def main(port: int) -> None:
        channel = HttpChannel(settings(port))
        for _ in range(5):
            assert (await channel.post("/x", b"1", "text/plain")).status == 200
        assert len(channel._idle) == 1
        kept = channel._idle[0]
        kept.transport.abort()
        await asyncio.sleep(0)
        assert (await channel.invoke(AppCall("GET", "x"))).status == 200
        assert channel._idle[0] is not kept
        await channel.close()

    with App() as app:
        asyncio.run(main(app.port))
    assert [each.method for each in app.got] == ["POST"] * 5 + ["GET"]


def test_nobody_listens() -> None:
    async def main(port: int) -> None:
        channel = HttpChannel(settings(port))
        with pytest.raises(NotReached, match=r"the application at 127\.0\.0\.1:") as caught:
            await channel.post("/x", b"", "text/plain")
        assert not caught.value.sent
        assert not channel.is_ready

    with reserved_port() as port:
        asyncio.run(main(port))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "broke the connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", "broke the connection"),
        (b"SMTP ready\r\n", "no answer that can be used"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "no answer that can be used"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", "no answer that can be used"),
    ],
)
def test_an_answer_that_is_none(answer: bytes, why: str) -> None:
    async def main(port: int) -> None:
        channel = HttpChannel(settings(port))
        with pytest.raises(NotReached, match=why) as caught:
            await channel.post("/x", b"1", "text/plain")
        assert caught.value.sent
        await channel.close()

    with answering(answer) as port:
        asyncio.run(main(port))


def test_an_answer_shorter_than_it_says_is_taken_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """As daprd does, for applications that send a content-length of something else."""

    async def main(port: int) -> None:
        channel = HttpChannel(settings(port))
        for ask in (channel.invoke, channel.invoke_streaming):
            answer = await ask(AppCall("GET", "x"))
            assert (answer.status, answer.body, answer.rest) == (200, b'"ok"', None)
        await channel.close()

    with answering(b'HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n"ok"') as port:
        asyncio.run(main(port))
    assert "the application announced 995 bytes more than it sent" in caplog.text


def test_an_answer_that_does_not_come_in_time() -> None:
    async def main(port: int) -> None:
        channel = HttpChannel(settings(port))
        for timeout in longer(lambda: caught.value.sent):
            with pytest.raises(NotReached, match="did not answer in time") as caught:
                await channel.post("/x", b"1", "text/plain", timeout=timeout)

    with answering(b"HTTP/1.1 200 OK\r\n", close=False) as port:
        asyncio.run(main(port))


def test_nothing_that_ends_a_line_is_sent() -> None:
    async def main() -> None:
        channel = HttpChannel(settings(1))
        with pytest.raises(NotReached, match="line end"):
            await channel.post("/x", b"", "text/plain", {"a": "b\r\nc: d"})
        with pytest.raises(NotReached, match="line end"):
            await channel.invoke(AppCall("GET", "x HTTP/1.1"))

    asyncio.run(main())


def test_headers_of_a_connection_are_not_passed_on() -> None:
    given = [("connection", "x-mine, close"), ("x-mine", "1"), ("te", "x"), ("upgrade", "h2c"), ("x-other", "2")]
    assert passed_on([*given, ("content-length", "3"), ("content-type", "a/b")]) == [("x-other", "2")]


def test_it_waits_until_the_application_listens() -> None:
    async def main(port: int) -> None:
        channel = HttpChannel(settings(port))
        looking = asyncio.create_task(channel.look())
        await asyncio.sleep(0.1)
        assert not channel.is_ready
        with socket.create_server(("127.0.0.1", port)):
            async with asyncio.timeout(30):
                await channel.ready()
        await looking
        assert channel.is_ready

    with reserved_port() as port:
        asyncio.run(main(port))


def test_over_grpc_a_call_is_on_invoke() -> None:
    def invoked(request: Any, context: Any) -> Any:
        context.send_initial_metadata((("x-back", "1"),))
        kinds = messages()
        return kinds.InvokeResponse(data=kinds.Any(type_url="t", value=request.data.value[::-1]), content_type="a/b")

    async def main(port: int) -> None:
        channel = GrpcChannel(settings(port, app_token="the-token"))
        call = AppCall("PUT", "a/b", "q=1", [("x-one", "1"), ("accept", "*/*")], "text/plain", b"abc", "u")
        answer = await channel.invoke(call)
        assert (answer.status, answer.body, answer.content_type, answer.data_type) == (200, b"cba", "a/b", "t")
        assert ("x-back", "1") in answer.headers
        await channel.close()

    with serving_grpc(GrpcApp(OnInvoke=("InvokeRequest", invoked))) as app:
        asyncio.run(main(app.port))
    _, request, metadata = app.got[0]
    assert (request.method, request.data.type_url, request.content_type) == ("a/b", "u", "text/plain")
    assert (request.http_extension.verb, request.http_extension.querystring) == (4, "q=1")
    assert metadata["x-one"] == "1"
    assert metadata["dapr-accept"] == "*/*"
    assert metadata["dapr-api-token"] == "the-token"


def test_over_grpc_an_application_may_be_slow_to_let_in() -> None:
    async def main(port: int) -> None:
        channel = GrpcChannel(settings(port))
        assert (await channel.invoke(AppCall("PUT", "a"))).status == 200
        await channel.close()

    app = GrpcApp(OnInvoke=("InvokeRequest", lambda request, context: messages().InvokeResponse()))
    with serving_grpc(app), FaultProxy(app.port) as proxy:
        proxy.down.latency = 1.5  # more than the longest pause between two attempts
        asyncio.run(main(proxy.port))
        assert proxy.accepted == 1


def test_over_grpc_a_failure_is_a_status() -> None:
    def failing(request: Any, context: Any) -> Any:
        context.abort(StatusCode.NOT_FOUND, "no such thing")

    async def main(port: int) -> None:
        channel = GrpcChannel(settings(port))
        answer = await channel.post("/x", b"", "text/plain")
        assert (answer.status, answer.body) == (404, b'{"code":5,"message":"no such thing"}')
        assert answer.failure == ("NOT_FOUND", "no such thing", b"")
        await channel.close()

    with serving_grpc(GrpcApp(OnInvoke=("InvokeRequest", failing))) as app:
        asyncio.run(main(app.port))


def test_an_application_over_grpc_has_further_connections_where_one_is_not_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It allows four streams on one, and answers no call before eight are under way."""
    monkeypatch.setattr(over_grpc, "_MOST_CALLS", 4)
    under_way, peak = 0, 0
    lock, enough = threading.Lock(), threading.Event()

    def invoked(request: Any, context: Any) -> Any:
        nonlocal under_way, peak
        with lock:
            under_way += 1
            peak = max(peak, under_way)
            if under_way == 8:
                enough.set()
        enough.wait(30)
        with lock:
            under_way -= 1
        return messages().InvokeResponse()

    async def main(port: int) -> None:
        channel = GrpcChannel(settings(port))
        answers = await asyncio.gather(*(channel.invoke(AppCall("POST", "m")) for _ in range(8)))
        assert [answer.status for answer in answers] == [200] * 8
        assert len(channel._channels) == 2
        assert set(channel._channels.values()) == {0}
        await channel.close()

    app = GrpcApp(OnInvoke=("InvokeRequest", invoked))
    with serving_grpc(app, streams=4):
        asyncio.run(main(app.port))
    assert peak == 8
