"""Hostile requests to the server, also from a web page's browser: refused, bounded, never read as two."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._http import asgi_server
from cloud_runtimes._http.limits import MAX_BODY, MAX_HEAD
from cloud_runtimes._http.request_guard import RequestGuard
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.rpc import RpcServer, asgi
from tests.rpc.http_peers import Raw
from tests.support.waiting import until

HIDDEN = b"POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
"""The request that would be smuggled."""


def counted(client: CloudRuntimesClient) -> int:
    """How often a method has run, this call included."""
    count: int = client.rpc.invoke_method("there", "count")
    return count


@pytest.mark.promise("H5")
@pytest.mark.parametrize(
    "head",
    [
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length: 0\r\ncontent-length: 6\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length: 0, 6\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length: +5\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length: 0x5\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length : 5\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.0\r\nhost: a\r\n{token}transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}: authority: a\0b\r\ncontent-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}: content-length: 0\r\ncontent-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}: authority: a content-length: 5\r\ncontent-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}x: a\r\n folded\r\ncontent-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}x: a\r\n\tcontent-length: 3\r\n\r\n",
        "POST /echo HTTP/1.1\nhost: a\n{token}content-length: 0\n\n",
        "POST /echo HTTP/1.1\r\nhost: a\n{token}content-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}x: a\rb\r\ncontent-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}x: a\0b\r\ncontent-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}x y: b\r\ncontent-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n{token}content-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\n{token}content-length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        "POST http://evil/echo HTTP/1.1\r\nhost: a\r\n{token}content-length: 0\r\n\r\n",
        "POST there@evil/echo HTTP/1.1\r\nhost: a\r\n{token}content-length: 0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n{token}content-length: 5\r\n\r\nhello",
        "POST /ec ho HTTP/1.1\r\nhost: a\r\n{token}content-length: 0\r\n\r\n",
        "POST /echo\0 HTTP/1.1\r\nhost: a\r\n{token}content-length: 0\r\n\r\n",
        "POST /echo HTTP/2.0\r\nhost: a\r\n{token}content-length: 0\r\n\r\n",
        "POST /echo\r\nhost: a\r\n{token}\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "nonsense\r\n\r\n",
    ],
    ids=lambda head: head.replace("{token}", "").replace("POST /echo HTTP/1.1\r\nhost: a\r\n", "")[:60].encode("unicode_escape").decode(),
)  # fmt: skip
def test_smuggling_is_refused_and_the_connection_closed(
    raw: Callable[[], Raw], token: str, head: str, caller: CloudRuntimesClient, server: RpcServer
) -> None:
    before = counted(caller)
    connection = raw()
    smuggled = HIDDEN.replace(b"host: a\r\n", b"host: a\r\n" + token.encode())
    connection.send(head.replace("{token}", token).encode("latin-1") + smuggled)
    answer: bytes = connection.everything()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 501")) or answer == b""
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert counted(caller) == before + 1


def test_two_good_requests_in_one_segment_are_two(
    raw: Callable[[], Raw], token: str, caller: CloudRuntimesClient
) -> None:
    before = counted(caller)
    good = HIDDEN.replace(b"host: a\r\n", b"host: a\r\n" + token.encode())
    connection = raw()
    connection.send(good + good.replace(b"host: a\r\n", b"host: a\r\nconnection: close\r\n"))
    assert connection.everything().count(b"HTTP/1.1 200 ") == 2
    assert counted(caller) == before + 3


@pytest.mark.parametrize("given", ["", "cloud-runtimes-token: wrong\r\n", "cloud-runtimes-token: \xff\r\n"])
def test_a_caller_without_the_token(raw: Callable[[], Raw], token: str, given: str) -> None:
    connection = raw()
    connection.send(
        f"POST /count HTTP/1.1\r\nhost: a\r\n{given}content-length: 0\r\nconnection: close\r\n\r\n".encode("latin-1")
    )
    answer: bytes = connection.everything()
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"UnauthenticatedError" in answer
    assert token.split(": ")[1].strip().encode() not in answer


def test_a_body_of_10_gib_is_refused_before_it_comes(raw: Callable[[], Raw], token: str) -> None:
    connection = raw()
    head = f"POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length: {10 * 2**30}\r\n\r\n"
    connection.send(head.encode())
    answer: bytes = connection.everything()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


def test_a_stream_without_an_end_is_refused_at_the_limit(raw: Callable[[], Raw], token: str) -> None:
    connection = raw()
    connection.send(f"POST /echo HTTP/1.1\r\nhost: a\r\n{token}transfer-encoding: chunked\r\n\r\n".encode())
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    sent = 0
    with pytest.raises((ConnectionError, TimeoutError)):
        while True:
            connection.send(chunk)
            sent += len(chunk)
            assert sent < 4 * MAX_BODY
    assert sent >= MAX_BODY


def test_a_head_without_an_end_is_refused(raw: Callable[[], Raw]) -> None:
    connection = raw()
    connection.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n")
    with pytest.raises(ConnectionError):
        for n in range(100_000):
            connection.send(b"x-%d: %b\r\n" % (n, b"a" * 1000))


def test_a_long_head_that_comes_at_once(raw: Callable[[], Raw]) -> None:
    connection = raw()
    connection.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: " + b"a" * MAX_HEAD + b"\r\n\r\n")
    assert connection.everything().startswith(b"HTTP/1.1 400")


def test_an_answer_that_is_not_read_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, raw: Callable[[], Raw], token: str
) -> None:
    monkeypatch.setattr(asgi_server, "HEAD_TIME", 0.3)
    connection = raw()
    head = f"POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-type: application/octet-stream\r\ncontent-length: {1 << 20}\r\n\r\n"
    asked = memoryview((head.encode() + bytes(1 << 20)) * 40)
    connection.socket.settimeout(60)
    with pytest.raises(ConnectionError):
        while asked:  # what is asked is soon not read any more either
            asked = asked[connection.socket.send(asked[:65536]) :]


@pytest.mark.parametrize("begin", [b"", b"POST /echo HTTP/1.1\r\nhost: a\r\nx: "])
def test_a_slow_head_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, raw: Callable[[], Raw], begin: bytes) -> None:
    monkeypatch.setattr(asgi_server, "HEAD_TIME", 0.3)
    began = time.monotonic()
    connection = raw()
    with suppress(ConnectionError):  # on a machine that stands still meanwhile it is over already
        connection.send(begin)
        if begin:
            for _ in range(2):
                time.sleep(0.1)
                connection.send(b"a")
    assert connection.everything().startswith(b"HTTP/1.1 408")
    assert 0.2 < time.monotonic() - began < 5


def test_a_slow_head_behind_a_good_request(
    monkeypatch: pytest.MonkeyPatch, raw: Callable[[], Raw], server: RpcServer
) -> None:
    connection = raw()
    served: Any = server._server
    until(lambda: any(each._head_timer for each in list(served.server_state.connections)))
    monkeypatch.setattr(asgi_server, "HEAD_TIME", 0.3)  # for the second one alone
    connection.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /he")
    answer: bytes = connection.everything()
    assert answer.startswith(b"HTTP/1.1 204")
    assert b"HTTP/1.1 408" in answer


def test_a_slow_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, raw: Callable[[], Raw], token: str) -> None:
    monkeypatch.setattr(asgi, "HEAD_TIME", 0.3)
    connection = raw()
    began = time.monotonic()
    connection.send(f"POST /echo HTTP/1.1\r\nhost: a\r\n{token}content-length: 100\r\n\r\nab".encode())
    answer: bytes = connection.everything()
    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /healthz", 204),
        ("GET /dapr/config", 200),
        ("GET /dapr/subscribe", 200),
        ("GET /cloud-runtimes/hello?nonce=zz", 400),
        ("GET /cloud-runtimes/hello?nonce=" + "0" * 32, 200),
        ("GET /no-such", 401),
        ("GET /%2e%2e/%2e%2e/etc/passwd", 401),
        ("GET /" + "a" * 9000, 400),
    ],
)
def test_what_needs_no_token(raw: Callable[[], Raw], request_line: str, status: int) -> None:
    connection = raw()
    connection.send(f"{request_line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
    assert connection.everything().startswith(b"HTTP/1.1 %d" % status)


@pytest.mark.parametrize("milliseconds", ["", "-1", "1e3", "x", "9" * 13, "\xb2"])
def test_a_deadline_that_is_none(raw: Callable[[], Raw], token: str, milliseconds: str) -> None:
    connection = raw()
    connection.send(
        f"POST /count HTTP/1.1\r\nhost: a\r\n{token}cloud-runtimes-timeout: {milliseconds}\r\n"
        "content-length: 0\r\nconnection: close\r\n\r\n".encode("latin-1")
    )
    assert connection.everything().startswith(b"HTTP/1.1 400")


# -- which requests a server refuses since a web page made a browser send them

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
GUARD = RequestGuard(["dapr.example.com", "two.example:8080", ".mesh.example"], option="--allow-host")
PAGES = RequestGuard(option="--allow-host", pages=True)


def status(guard: RequestGuard, host: str | None, path: str = "/v1.0/state/s", **headers: str) -> int:
    given = {} if host is None else {"host": host}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    refusal = guard.refusal(scope)
    return 0 if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:3500", "LOCALHOST", "localhost.:3500", "app.localhost:3500", "[::1]:3500", "10.0.0.7:3500",
        "dapr", "host.docker.internal:3500", "dapr.example.com", "Dapr.Example.Com:3500", "two.example:8080",
        "a.b.mesh.example",
    ],
)  # fmt: skip
def test_programs_reach_a_server_by_names_that_nobody_can_register(host: str) -> None:
    assert status(GUARD, host) == 0
    assert status(GUARD, host, user_agent="curl/8") == 0
    assert status(GUARD, host, origin=f"http://{host}", sec_fetch_site="same-origin", user_agent=CHROME) == 0


@pytest.mark.promise("H4")
@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:3500",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "two.example",
        "two.example:80",
        "mesh.example",
        "xdapr.example.com",
        "127.0.0.1, evil.example",
        "a b",
        "[::1",
        "evil.example\0localhost",
        "user@localhost.evil.example",
        "l" * 10_000,
        ".",
    ],
)
def test_a_rebound_name_is_refused(host: str | None) -> None:
    assert status(GUARD, host) == 421
    assert status(PAGES, host) == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://localhost:3500"},
        {"origin": "http://localhost"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none, same-origin"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
    ],
)
def test_other_origins_are_refused(headers: dict[str, str]) -> None:
    assert status(GUARD, "localhost:3500", "/", **headers) == 403


@pytest.mark.parametrize("host", ["10.0.0.7:3500", "0.0.0.0:3500", "[::ffff:127.0.0.1]:3500", "[::]:3500", "dapr:3500"])
def test_a_browser_that_hides_where_it_comes_from_is_refused(host: str) -> None:
    """Browsers send ``Sec-Fetch-Site`` to loopback addresses alone, and no ``Origin`` with a ``GET``."""
    assert status(GUARD, host, user_agent=CHROME) == 403
    assert status(GUARD, host, user_agent="python-httpx/1") == 0
    assert status(PAGES, host, user_agent=CHROME) == 0  # its GET changes nothing


def test_a_page_behind_tls_may_ask_its_own_server() -> None:
    assert status(GUARD, "dapr.example.com", origin="https://dapr.example.com") == 0
    assert status(GUARD, "dapr.example.com", origin="https://evil.example") == 403


def test_a_link_to_a_page_is_followed_and_a_frame_of_it_is_not() -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert status(PAGES, "localhost:4318", "/", **link) == 0
    assert status(PAGES, "localhost:4318", "/api/status", **link) == 403
    assert status(PAGES, "localhost:4318", "/", **{**link, "sec_fetch_dest": "iframe"}) == 403


@pytest.mark.parametrize("name", ["http://a.example", "a b", "", 5, "a/b", "*"])
def test_what_is_allowed_must_be_names(name: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="--allow-host: give names such as"):
        RequestGuard([name], option="--allow-host")
