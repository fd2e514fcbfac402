"""Faults of servers and networks: named errors, truthful ``maybe_applied``, recovery without a restart."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from cloud_runtimes.components._net.engines import engines
from cloud_runtimes.components.nats.engine import NatsEngine
from cloud_runtimes.errors import (
    BulkError,
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.state import StateItem
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import PEM, Make, Rounds
from tests.support.harnesses.nats import NatsHome
from tests.support.homes import Homes
from tests.support.listening import Listener
from tests.support.nats import Serve, stopped
from tests.support.waiting import until


class TestHome(Homes):
    engine = "nats"
    service = "rpc"
    features: ClassVar = ["headers", "host", "http_method", "status"]
    wrong_urls = ("nats://:{}@host:port", "nats://{}@[host", "nats://host/{}", "nats://host?x={}")
    url_help = "url of a nats component"
    after_hanging = (2,)  # what may have been applied was


@contextmanager
def telling(received: list[bytes] | None = None, **info: Any) -> Iterator[str]:
    """Listen, and greet who connects like a server; notes what it received."""
    line = f"INFO {json.dumps({'version': '2.12.0', 'jetstream': True, **info})}\r\n".encode()

    def greet(connection: socket.socket) -> None:
        connection.sendall(line)
        data = connection.recv(65536)
        if received is not None:
            received.append(data)

    with Listener(greet) as listener:
        yield f"nats://127.0.0.1:{listener.port}"


@pytest.mark.parametrize(
    ("info", "match"),
    [
        ({"version": "2.11.9"}, r"version 2\.11\.9: NATS 2\.12 or later"),
        ({"version": ""}, r"NATS 2\.12 or later"),
        ({"jetstream": False}, "JetStream is off: start the server with -js"),
    ],
)
def test_servers_that_will_not_do(client: Make, api: Api, info: dict[str, Any], match: str) -> None:
    with telling(**info) as url:
        error = api.fails(UnsupportedError, match=match)(client(url).state, "save", "s", "k", 1)
    assert not error.maybe_applied


@pytest.mark.parametrize(
    ("url", "settings"),
    [("tls", {}), ("nats", {"tls_ca": str(PEM)}), ("nats", {"tls_certificate": str(PEM), "tls_key": str(PEM)})],
)
def test_no_password_without_tls_where_that_was_asked_for(
    client: Make, api: Api, url: str, settings: dict[str, str]
) -> None:
    """Any setting of TLS asks for it, whatever a server, or who stands before it, says."""
    received: list[bytes] = []
    with telling(received) as address:
        app_client = client(address.replace("nats://", f"{url}://user:password@"), **settings)
        api.fails(UnavailableError, match="the server has no TLS")(app_client.state, "save", "s", "k", 1)
        until(lambda: received)
    assert not b"".join(received)


def test_threads_beside_one_whose_time_is_over(served: Serve, client: Make) -> None:
    """The thread that reads for all gives up, and another one reads on."""
    server = served()
    state = client(server.url).state
    state.save("s", "k", 1)
    with ThreadPoolExecutor(9) as threads:
        with stopped(server):
            short = threads.submit(state.get, "s", "k", timeout=0.2)
            time.sleep(0.05)
            longer = [threads.submit(state.get, "s", "k", timeout=20) for _ in range(8)]
            assert isinstance(short.exception(), DeadlineExceededError)
        assert [each.result(10) for each in longer] == [1] * 8


@pytest.mark.promise("B2")
def test_another_connection_after_a_silent_one(
    served: Serve, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs does not keep the calls that come later from the others."""
    monkeypatch.setattr("cloud_runtimes.components.nats.shared._SILENT", 0.2)
    hung, other = served(), served()
    state = client(f"nats://127.0.0.1:{hung.port},127.0.0.1:{other.port}").state
    api.call(state, "save", "s", "k", "hung")
    with stopped(hung):
        api.fails(DeadlineExceededError)(state, "get", "s", "k", timeout=0.3)
        api.call(state, "save", "s", "k", "other", timeout=5)
        assert api.call(state, "get", "s", "k") == "other"


@pytest.mark.promise("H8")
def test_tls(home: NatsHome, served: Serve, client: Make, api: Api) -> None:
    server = served(tls={"cert_file": str(PEM), "key_file": str(PEM)})
    data = bytes(range(256)) * 8192
    for scheme in ("tls", "nats"):  # the second is upgraded, since the server asks for it
        state = client(f"{scheme}://localhost:{server.port}", tls_ca=str(PEM)).state
        for _ in range(3):
            api.call(state, "save", "s", "k", data)
            assert api.call(state, "get", "s", "k") == data
    error = api.fails(UnavailableError, match="(?i)certificate")(
        client(f"tls://localhost:{server.port}").state, "get", "s", "k"
    )
    assert not error.maybe_applied
    first = served(tls={"cert_file": str(PEM), "key_file": str(PEM), "handshake_first": True})
    state = client(f"tls://localhost:{first.port}", tls_ca=str(PEM), tls_first=True).state
    api.call(state, "save", "s", "k", 1)
    assert api.call(state, "get", "s", "k") == 1


def test_who_may_connect(served: Serve, client: Make, api: Api, canary: Canary) -> None:
    password = canary.value()
    denied = {"publish": {"deny": ["$KV.cr-state-secret.>"]}}
    server = served(authorization={"users": [{"user": "app", "password": password, "permissions": denied}]})
    where = f"127.0.0.1:{server.port}"
    state = client(f"nats://app:{password}@{where}").state
    api.call(state, "save", "s", "k", 1)
    assert api.call(state, "get", "s", "k") == 1
    error = api.fails(PermissionDeniedError, match="may not")(state, "save", "secret", "k", 1)
    canary.look_through(error)
    for url in (f"nats://app:{canary.value()}@{where}", f"nats://{where}"):
        error = api.fails(UnauthenticatedError, match="check the user in the url")(client(url).state, "get", "s", "k")
        assert not error.maybe_applied
        canary.look_through(error)


def test_a_token(served: Serve, client: Make, api: Api) -> None:
    server = served(authorization={"token": "right"})
    state = client(f"nats://right@127.0.0.1:{server.port}").state
    api.call(state, "save", "s", "k", 1)
    api.fails(UnauthenticatedError)(client(f"nats://wrong@127.0.0.1:{server.port}").state, "get", "s", "k")


def test_a_bucket_that_must_be_there(home: NatsHome, client: Make, api: Api) -> None:
    checking = client(home.server.url, prefix=home.prefix, ensure="check").state
    error = api.fails(NotFoundError, match=f"there is no bucket '{home.prefix}-state-s'")(checking, "get", "s", "k")
    assert not error.maybe_applied
    api.call(home.client().state, "save", "s", "k", 1)
    assert api.call(checking, "get", "s", "k") == 1


def test_what_does_not_fit_a_message(home: NatsHome, api: Api) -> None:
    state = home.client().state
    error = api.fails(ResourceExhaustedError, match="max_payload")(state, "save", "s", "k", b"x" * (9 << 20))
    assert not error.maybe_applied
    api.call(state, "save", "s", "k", 1)  # on the same connection


@pytest.mark.parametrize("limit", [None, 3, 5000])
def test_pages_of_keys(home: NatsHome, api: Api, limit: int | None) -> None:
    """A page tells of neither what was deleted nor what has expired, and the server sends only what it has of a prefix."""
    state = home.client().state
    api.call(state, "save_bulk", "s", {f"many/{number:06}": "x" * 300 for number in range(500)})
    few = [f"order/{'2026/' * depth}{name}" for depth in range(6) for name in ("", "a", "b", "ä", "c" * 30)]
    api.call(state, "save_bulk", "s", dict.fromkeys(few, 1))
    for prefix in ("o", "order", "order/", "order/2026/20", "order/2026/2026/2026/2026/2026/", "order/b", few[-1], "p"):
        there = [key for key in sorted(few) if key.startswith(prefix)]
        assert api.call(state, "list_keys", "s", prefix, limit=limit) == there[:limit]
        assert (
            api.call(state, "list_keys", "s", prefix, limit=limit, after="order/2026/a")
            == [key for key in there if key > "order/2026/a"][:limit]
        )
    gone = sorted(few)[1:3]
    api.call(state, "delete", "s", gone[0])
    api.call(state, "save", "s", gone[1], 1, ttl=0.05)
    assert api.until(lambda: api.call(state, "get", "s", gone[1]) is None)
    living = [key for key in sorted(few) if key not in gone]
    received = 0
    for engine in engines(NatsEngine):
        for connection in (engine._threads.shared, *[each.result() for each in engine._loops._connections.values()]):
            if connection is not None:
                feed = connection.connection.session.feed

                def counted(data: bytes, feed: Callable[[bytes], None] = feed) -> None:
                    nonlocal received
                    received += len(data)
                    feed(data)

                connection.connection.session.feed = counted
    assert api.call(state, "list_keys", "s", "order/", limit=limit) == living[:limit]
    assert 500 < received < 15_000
    assert len(api.call(state, "list_keys", "s")) == 500 + len(living)


@pytest.mark.parametrize("conditional", [False, True])
def test_one_value_that_does_not_fit(home: NatsHome, api: Api, conditional: bool) -> None:
    """The others of the call are saved."""
    state = home.client().state
    items = []
    for key, size in (("a", 1), ("large", 9 << 20), ("b", 5 << 20)):
        api.call(state, "save", "s", key, b"old")
        etag = api.call(state, "get_item", "s", key).etag if conditional else None
        items.append(StateItem(key=key, value=b"x" * size, etag=etag))
    error = api.fails(BulkError)(state, "save_bulk", "s", items)
    assert list(error.failed) == ["large"]
    assert isinstance(error.failed["large"], ResourceExhaustedError)
    assert "max_payload" in str(error.failed["large"])
    results = api.call(state, "get_bulk", "s", ["a", "large", "b"])
    assert {key: len(item.value) for key, item in results.items()} == {"a": 1, "large": 3, "b": 5 << 20}


def test_a_service_that_is_not_there(home: NatsHome, api: Api) -> None:
    error = api.fails(UnsupportedError, match=r"\[database\.bus\]")(home.client().database, "query", "bus", "SELECT 1")
    assert not error.maybe_applied


def test_callers_count_together(home: NatsHome) -> None:
    """Threads and transactions on one key: each adds one, and none is lost."""
    state = home.client().state
    state.save("s", "n", 0)

    def add() -> None:
        while True:
            item = state.get_item("s", "n")
            assert item is not None
            try:
                with state.transaction("s") as tx:
                    tx.save("n", item.value + 1, etag=item.etag)
                    tx.save(f"n-{item.value + 1}", True, concurrency="first-write")
                return
            except ConflictError:
                pass

    with ThreadPoolExecutor(8) as threads:
        for each in [threads.submit(add) for _ in range(24)]:
            each.result()
    assert state.get("s", "n") == 24
    assert len(state.list_keys("s", "n-")) == 24


def test_what_was_acknowledged_is_there_after_kills(served: Serve, client: Make, rounds: Rounds) -> None:
    server = served(jetstream={"sync_interval": "always"})
    state = client(server.url).state
    acknowledged: dict[str, int] = {}
    over = threading.Event()

    def write(name: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                state.save("s", name, number, timeout=1)
                acknowledged[name] = number
            except CloudRuntimesError:
                pass

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, f"w{number}") for number in range(4)]
        for _ in range(rounds(3, 300)):
            time.sleep(0.2)
            server.kill()
            server.start()
        try:
            until(lambda: len(acknowledged) == 4)
        finally:
            over.set()
        for each in writers:
            each.result()
    for name, number in acknowledged.items():
        assert state.get("s", name) >= number
