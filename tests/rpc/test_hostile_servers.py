"""Hostile answers of a server in both APIs, and their errors: no response taken for the next, no call sent twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._http.limits import MAX_BODY
from cloud_runtimes.errors import (
    DeadlineExceededError,
    InternalError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud_runtimes.testing import Api
from tests.rpc.http_peers import Hostile
from tests.support.waiting import longer, until

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n42"
Make = Callable[..., Hostile]


@pytest.fixture
def to(home: Path, closing: Callable[..., CloudRuntimesClient]) -> Callable[..., CloudRuntimesClient]:
    """Make a client that is told where the service ``x`` is."""

    def make(*addresses: str, **more: Any) -> CloudRuntimesClient:
        table = {"capa": {"home": str(home)}, "rpc": {"x": {"address": list(addresses), **more}}}
        return closing(app_id="suite", timeout=5, config=table)

    return make


def test_a_plain_server_is_called_without_a_token(
    hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api
) -> None:
    server = hostile(OK)
    assert api.call(to(server.address).rpc, "invoke_method", "x", "m", {"a": 1}, query={"q": "1"}) == 42
    request = server.received[0]
    assert request.startswith(b"POST /m?q=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert request.endswith(b'\r\n\r\n{"a":1}')
    assert b"token" not in request


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"\x15\x03\x03\x00\x02\x02\x50 a TLS alert",
    ],
)
def test_garbage(hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api, answer: bytes) -> None:
    server = hostile(answer)
    client = to(server.address)
    error = api.fails(InternalError, match=r"HTTP/1\.1")(client.rpc, "invoke_method", "x", "m", 1)
    assert error.maybe_applied
    assert not error.retryable
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\ncontent-length: 17000000\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n"],
    ids=["body", "head"],
)
def test_too_much(hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api, answer: bytes) -> None:
    error = api.fails(ResourceExhaustedError)(to(hostile(answer).address).rpc, "invoke_method", "x", "m", 1)
    assert error.maybe_applied


def test_a_second_response_is_never_the_next_call_s(
    hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api
) -> None:
    evil = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\r\n"evil"'
    server = hostile(OK + evil, OK, close=False)
    client = to(server.address)
    for _ in range(5):
        assert api.call(client.rpc, "invoke_method", "x", "m", 1) == 42
    assert server.connections == 5


def test_a_late_second_response_neither(hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api) -> None:
    evil = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\r\n"evil"'
    server = hostile(OK, evil, read=0, close=False)
    client = to(server.address)
    for _ in range(3):
        assert api.call(client.rpc, "invoke_method", "x", "m", 1) == 42
        until(lambda: server.served == server.connections)
        api.pause(0.1)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"])
def test_a_connection_that_ends_before_the_answer(
    hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api, answer: bytes
) -> None:
    server = hostile(answer)
    error = api.fails(UnavailableError, match="broke")(to(server.address).rpc, "invoke_method", "x", "m", 1)
    assert error.maybe_applied
    assert server.connections == 1  # nobody sends it again


@pytest.mark.parametrize("busy", [False, True])
def test_a_connection_that_was_closed_idle_is_replaced(
    hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api, busy: bool
) -> None:
    server = hostile(OK)  # says keep-alive, and closes
    client = to(server.address)
    for _ in range(3):
        assert api.call(client.rpc, "invoke_method", "x", "m", 1) == 42
        until(lambda: server.served == server.connections)
        time.sleep(0.1) if busy else api.pause(0.1)  # a busy loop has not read of the end yet
    assert server.connections == 3


def test_a_kept_connection_that_breaks_is_replaced_only_for_a_safe_call(
    hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api
) -> None:
    server = hostile(OK, b"")  # the second request on a connection is read, and the connection closed
    client = to(server.address)
    assert api.call(client.rpc, "invoke_method", "x", "m", 1) == 42
    assert api.fails(UnavailableError)(client.rpc, "invoke_method", "x", "m", 1).maybe_applied
    assert server.connections == 1
    assert api.call(client.rpc, "invoke_method", "x", "m", http_method="GET") == 42
    assert api.call(client.rpc, "invoke_method", "x", "m", http_method="GET") == 42
    assert server.connections == 3


def test_a_server_that_only_hangs_up(hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api) -> None:
    more: dict[str, str]
    for more in ({}, {"token": "a secret of many characters"}):
        client = to(hostile(read=0).address, **more)
        begin = time.monotonic()
        for _ in range(20):
            api.fails(UnavailableError)(client.rpc, "invoke_method", "x", "m", 1, timeout=None)
        assert time.monotonic() - begin < 30


def test_a_server_that_says_nothing(hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api) -> None:
    server = hostile(b"", close=False)
    client = to(server.address)
    for timeout in longer(lambda: any(server.received), 0.3):
        begin = time.monotonic()
        error = api.fails(DeadlineExceededError, match="timeout=")(
            client.rpc, "invoke_method", "x", "m", 1, timeout=timeout
        )
        assert timeout - 0.1 < time.monotonic() - begin < timeout + 4
    assert error.maybe_applied


def test_an_answer_that_drips(hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api) -> None:
    server = hostile(OK[:10], close=False)
    client = to(server.address)
    for timeout in longer(lambda: any(server.received), 0.3):
        error = api.fails(DeadlineExceededError)(client.rpc, "invoke_method", "x", "m", 1, timeout=timeout)
    assert error.maybe_applied


def test_an_early_refusal_of_a_stream_is_heard(hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"
    client = to(hostile(answer).address)

    def endless() -> Any:
        for _ in range(2000):
            yield bytes(65536)

    response: Any = None
    error: Any = None
    try:
        response = api.call(client.rpc, "invoke", "x", "m", endless())
    except UnavailableError as refused:  # the reset overtook the answer, as TCP lets it
        error = refused
    assert response.status == 413 if error is None else error.maybe_applied


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
def test_an_answer_before_all_was_sent_ends_the_connection(
    hostile: Make, to: Callable[..., CloudRuntimesClient], more: bytes
) -> None:
    import asyncio

    server = hostile(b"HTTP/1.1 413 Too Large\r\n" + more + b"content-length: 2\r\n\r\nno", close=False)
    client = to(server.address)

    async def main() -> None:
        for _ in range(2):  # the second never waits behind what the first has not sent
            assert (await client.rpc.invoke_async("x", "m", bytes(MAX_BODY))).status == 413

    asyncio.run(main())
    assert server.connections == 2
    assert server.has_left()


def test_several_addresses_are_tried_in_turn(hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api) -> None:
    server, other = hostile(OK), hostile(OK)
    client = to("http://127.0.0.1:1", server.address, other.address)
    assert api.call(client.rpc, "invoke_method", "x", "m", 1) == 42
    assert (server.connections, other.connections) == (1, 0)


def test_nothing_goes_to_a_second_address_that_a_first_may_have_got(
    hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api
) -> None:
    broken, other = hostile(b""), hostile(OK)
    error = api.fails(UnavailableError)(to(broken.address, other.address).rpc, "invoke_method", "x", "m", 1)
    assert error.maybe_applied
    assert other.connections == 0


def test_nobody_there(to: Callable[..., CloudRuntimesClient], api: Api) -> None:
    error = api.fails(UnavailableError, match=r"'x' cannot be reached: http://127\.0\.0\.1:1: ")(
        to("http://127.0.0.1:1").rpc, "invoke_method", "x", "m", 1
    )
    assert error.retryable
    assert not error.maybe_applied
    assert isinstance(error.__cause__, OSError)


@pytest.mark.promise("H4")
@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n\xff\xff\xff\xff\xff\xff",
        b'HTTP/1.1 200 OK\r\ncontent-length: 48\r\n\r\n{"app_id":"x","instance":"i","proofs":["abc",1]}',
        b"nonsense\r\n\r\n",
    ],
)
def test_who_does_not_prove_to_be_the_service_gets_nothing(
    hostile: Make, to: Callable[..., CloudRuntimesClient], api: Api, answer: bytes
) -> None:
    server = hostile(answer, answer)
    client = to(server.address, token="a secret of many characters")
    error = api.fails(UnauthenticatedError, match="not trusted")(client.rpc, "invoke_method", "x", "m", {"canary": 1})
    assert not error.maybe_applied
    sent = b"".join(server.received)
    assert sent.startswith(b"GET /cloud-runtimes/hello?nonce=")
    assert b"canary" not in sent
    assert b"token" not in sent


def test_a_cancelled_call_says_whether_it_was_sent(hostile: Make, to: Callable[..., CloudRuntimesClient]) -> None:
    import asyncio

    server = hostile(b"", close=False)
    client = to(server.address)

    async def main() -> None:
        task = asyncio.ensure_future(client.rpc.invoke_method_async("x", "m", 1, timeout=30))
        while not server.received:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.maybe_applied  # type: ignore[attr-defined]

    asyncio.run(main())


def test_calls_wait_for_a_connection(
    monkeypatch: pytest.MonkeyPatch, hostile: Make, to: Callable[..., CloudRuntimesClient]
) -> None:
    import asyncio

    from cloud_runtimes._http import async_client

    monkeypatch.setattr(async_client, "MAX_CONNECTIONS", 2)
    server = hostile(b"", close=False)
    silent = to(server.address)

    async def main() -> None:
        def calls(timeout: float) -> list[asyncio.Future[Any]]:
            return [asyncio.ensure_future(silent.rpc.invoke_method_async("x", "m", 1, timeout=timeout)) for _ in "12"]

        held = calls(60.0)  # both connections
        while len(server.received) < 2:
            await asyncio.sleep(0.01)
        for error in await asyncio.gather(*calls(0.3), return_exceptions=True):
            assert type(error) is DeadlineExceededError
            assert not error.maybe_applied
        for call in held:
            call.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await call
            assert caught.value.maybe_applied  # type: ignore[attr-defined]

    asyncio.run(main())
