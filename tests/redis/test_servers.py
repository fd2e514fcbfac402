"""Faults of servers and networks: named errors, truthful ``maybe_applied``, recovery without a restart."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core import logs
from cloud_runtimes.components.redis import connection, servers
from cloud_runtimes.components.redis.topology import slot_of
from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InternalError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from tests.support import Make, Rounds
from tests.support.fault_proxy import FaultProxy, Way
from tests.support.harnesses.redis import RedisHome
from tests.support.listening import Listener
from tests.support.redis import RedisServer, Serve, stopped
from tests.support.waiting import Stopwatch, running, until

KINDS = pytest.mark.parametrize("kind", ["valkey", "redis"])


def answering(*replies: bytes) -> Listener:
    """Return a server that greets, then answers each command of a connection with the next of the replies."""

    def serve(connection: socket.socket) -> None:
        for reply in replies:
            if not connection.recv(65536):
                break
            connection.sendall(reply)

    return Listener(serve)


def test_a_socket_that_is_not_there(client: Make, api: Api) -> None:
    error = api.fails(UnavailableError, match="/nowhere/sock")(client("unix:///nowhere/sock").state, "get", "s", "k")
    assert "No such file" in str(error)


@pytest.mark.parametrize(
    ("info", "match"),
    [("redis_version:6.2.14\r\n", r"version 6\.2\.14 is too old: Redis 7\.0"), ("", "version unknown is too old")],
)
def test_a_server_that_is_too_old(client: Make, api: Api, info: str, match: str) -> None:
    reply = f"${len(info)}\r\n{info}\r\n".encode()
    with answering(b"+OK\r\n", reply + reply) as listener:
        url = f"redis://127.0.0.1:{listener.port}/0"
        error = api.fails(UnsupportedError, match=match)(client(url).state, "save", "s", "k", 1)
    assert not error.maybe_applied


def node(answer: bytes) -> Listener:
    """Return a server that is the one node of a cluster, and answers all calls in one way."""
    info = b"redis_version:7.4.0\r\nredis_mode:standalone\r\n"

    def serve(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            if b"SETNAME" in request:
                connection.sendall(b"+OK\r\n" * (1 + request.count(b"\r\n*")))
            elif b"INFO" in request:
                connection.sendall(b"$%d\r\n%b\r\n$0\r\n\r\n" % (len(info), info))
            elif b"SLOTS" in request:
                connection.sendall(b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % listener.port)
            else:
                connection.sendall(answer)

    listener = Listener(serve)
    return listener


@pytest.mark.parametrize("code", ["ASK", "MOVED"])
def test_servers_that_an_error_names(client: Make, api: Api, code: str) -> None:
    """They get no call and no password, unless the URL is that of a cluster or a node names them as its own."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.setblocking(False)
        port = stranger.getsockname()[1]
        with node(f"-{code} {slot_of('{cr:state:s}')} 127.0.0.1:{port}\r\n".encode()) as listener:
            address = f"127.0.0.1:{listener.port}"
            api.fails((UnavailableError, DeadlineExceededError))(
                client(f"redis://u:password@{address}/0").state, "get", "s", "k", timeout=0.5
            )
            with pytest.raises(BlockingIOError):
                stranger.accept()
            api.fails((UnavailableError, DeadlineExceededError))(
                client(f"redis+cluster://u:password@{address}").state, "get", "s", "k", timeout=0.5
            )
            stranger.accept()[0].close()


def test_another_protocol(client: Make, api: Api) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as listener:
        url = f"redis://127.0.0.1:{listener.port}/0"
        error = api.fails(UnavailableError, match="does not speak RESP")(client(url).state, "get", "s", "k")
    assert not error.maybe_applied


def test_who_does_not_know_a_command_tells_no_arguments(client: Make, api: Api) -> None:
    quoting = b"-ERR unknown command 'AUTH', with args beginning with: 'canary-password' \r\n"
    with answering(quoting * 2) as listener:
        client_ = client(f"redis://:canary-password@127.0.0.1:{listener.port}/0")
        error: BaseException | None = api.fails(UnsupportedError)(client_.state, "get", "s", "k")
    while error is not None:
        assert "canary" not in repr(error)
        error = error.__cause__ or error.__context__


@pytest.mark.promise("B3")
def test_a_write_that_is_cut_off_may_have_been_applied(home: RedisHome, api: Api) -> None:
    with FaultProxy(home.server.port) as proxy:
        config = {"capa": {"home": {"url": f"redis://127.0.0.1:{proxy.port}/0", "prefix": home.prefix}}}
        with CloudRuntimesClient(app_id="suite", timeout=5, config=config) as client:
            api.call(client.state, "save", "s", "k", 1)
            item = api.call(client.state, "get_item", "s", "k")
            proxy.down = Way(lost=True)
            beside = home.client().state

            def cut() -> None:
                until(lambda: beside.get("s", "k") == 2)
                proxy.break_all("reset")

            with running(cut):
                failure = api.fails(UnavailableError, match="cannot be reached")(
                    client.state, "save", "s", "k", 2, etag=item.etag
                )
            proxy.heal()
            assert failure.maybe_applied
            assert api.call(client.state, "get", "s", "k") == 2  # as it was here
            assert not api.fails(ConflictError)(client.state, "save", "s", "k", 3, etag=item.etag).maybe_applied


def test_more_than_the_system_takes_at_once(served: Serve, client: Make, api: Api) -> None:
    """It waits for room, to the deadline."""
    server = served()
    client_ = client(server.url)
    large = os.urandom(16_000_000)
    api.call(client_.state, "save", "s", "k", 1)
    with stopped(server):
        assert api.fails(DeadlineExceededError)(client_.state, "save", "s", "k", large, timeout=0.3).maybe_applied
        threading.Timer(0.3, lambda: server.process.send_signal(signal.SIGCONT)).start()  # type: ignore[union-attr]
        api.call(client_.state, "save", "s", "k", large)
    assert api.call(client_.state, "get", "s", "k") == large


def test_a_wait_of_several_turns(served: Serve, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread looks at the time of its call after each."""
    monkeypatch.setattr(connection, "_TURN", 0.1)
    server = served()
    client_ = client(server.url)
    api.call(client_.state, "save", "s", "k", 1)
    with stopped(server):
        with Stopwatch() as watch:
            api.fails(DeadlineExceededError)(client_.state, "get", "s", "k", timeout=0.45)
        assert 0.45 <= watch.seconds < 0.45 + 1
        threading.Timer(0.35, lambda: server.process.send_signal(signal.SIGCONT)).start()  # type: ignore[union-attr]
        assert api.call(client_.state, "get", "s", "k") == 1


def test_connecting_to_a_server_that_hangs(served: Serve, client: Make, api: Api) -> None:
    server = served()
    client_ = client(server.url)
    with stopped(server):
        assert not api.fails(DeadlineExceededError)(client_.state, "save", "s", "k", 2, timeout=0.3).maybe_applied
    assert api.call(client_.state, "get", "s", "k") is None


def test_a_call_of_little_time_does_not_end_one_of_more(served: Serve, client: Make, api: Api) -> None:
    """Both connect together to a server that hangs for a moment."""
    server = served()
    client_ = client(server.url)
    with stopped(server):
        threading.Timer(0.6, lambda: server.process.send_signal(signal.SIGCONT)).start()  # type: ignore[union-attr]
        short, long = api.together(
            [(client_.state, "get", ("s", "k"), {"timeout": 0.2}), (client_.state, "get", ("s", "k"), {"timeout": 5})]
        )
    assert isinstance(short, DeadlineExceededError)
    assert long is None


def test_a_network_that_loses_all(home: RedisHome, api: Api) -> None:
    """Nothing comes back, nothing ends: the next call has another connection."""
    with FaultProxy(home.server.port) as proxy:
        config = {"capa": {"home": {"url": f"redis://127.0.0.1:{proxy.port}/0", "prefix": home.prefix}}}
        with CloudRuntimesClient(app_id="suite", timeout=5, config=config) as client:
            api.call(client.state, "save", "s", "k", 1)
            proxy.down = Way(lost=True)
            api.fails(DeadlineExceededError)(client.state, "get", "s", "k", timeout=0.2)
            proxy.heal()
            assert api.call(client.state, "get", "s", "k", timeout=20) == 1
            assert api.until(lambda: proxy.sockets() == 1)


def test_redis_8(redis8_server: RedisServer, client: Make, api: Api) -> None:
    """The suites run on it with ``--soak``."""
    home = client(redis8_server.url, prefix=api.name)
    api.call(home.state, "save", "s", "k", 1)
    assert api.call(home.state, "get", "s", "k") == 1
    with api.opened(home.pubsub.subscribe("bus", "t", start="earliest")) as sub:
        api.call(home.pubsub, "publish", "bus", "t", 1)
        event = api.call(sub, "receive", 5)
        event.ack()
    with api.opened(home.lock.hold("l", "r")) as lease:
        api.call(home.state, "save", "s", "k", 2, fence=lease.token)


@KINDS
def test_memory_that_is_full(served: Serve, client: Make, api: Api, kind: str) -> None:
    server = served(kind, maxmemory="3mb", maxmemory_policy="noeviction")
    state = client(server.url).state
    api.call(state, "save", "s", "k", 1)
    server.command("CONFIG", "SET", "maxmemory", "1")
    error = api.fails(ResourceExhaustedError, match="maxmemory")(state, "save", "s", "k", 2)
    assert error.retryable
    assert not error.maybe_applied
    assert api.call(state, "get", "s", "k") == 1
    api.call(state, "delete", "s", "k")  # makes room
    server.command("CONFIG", "SET", "maxmemory", "0")
    api.call(state, "save", "s", "k", 3)


def test_a_server_that_would_drop_keys(served: Serve, client: Make, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    server = served(maxmemory="64mb", maxmemory_policy="allkeys-lru")
    client_ = client(server.url)
    error = api.fails(UnsupportedError, match="allkeys-lru.*set noeviction")(client_.state, "save", "s", "k", 1)
    assert not error.maybe_applied
    server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    api.call(client_.state, "save", "s", "k", 1)
    assert "volatile-lru" in caplog.text


@KINDS
def test_a_server_that_begins_to_drop_keys(
    served: Serve, client: Make, api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Somebody sets it while clients are connected, which go on."""
    server = served(kind)
    monkeypatch.setattr(servers, "_LOOK", 0.0)
    client_ = client(server.url)
    api.call(client_.state, "save", "s", "k", 1)
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    api.call(client_.state, "save", "s", "k", 2)
    assert caplog.text == ""  # without a limit nothing is dropped
    server.command("CONFIG", "SET", "maxmemory", "64mb")
    for number in range(3):
        api.call(client_.state, "save", "s", "k", number)
        assert api.call(client_.state, "get", "s", "k") == number
    (line,) = caplog.messages
    assert "acknowledged events too" in line
    assert "maxmemory-policy allkeys-lru" in line


@KINDS
def test_a_server_without_a_log_is_told_of_once(
    served: Serve, client: Make, api: Api, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Where an application waits until all is ready, as doctor does; a cache that does not, is not told."""
    server = served(kind, appendonly="no")
    client_ = client(server.url)
    api.call(client_.state, "save", "s", "k", 1)
    assert caplog.messages == []
    for _ in range(2):
        api.call(client_, "wait_ready")
    (line,) = caplog.messages
    assert "appendonly no" in line
    server.command("CONFIG", "SET", "appendonly", "yes")
    logs._said.clear()
    caplog.clear()
    api.call(client_, "wait_ready")
    assert caplog.messages == []


@pytest.mark.promise("C3")
@KINDS
def test_a_replica_only_reads(served: Serve, client: Make, api: Api, kind: str) -> None:
    server, other = served(kind), served(kind)
    client_ = client(server.url)
    api.call(client_.state, "save", "s", "k", 1)
    server.command("REPLICAOF", "127.0.0.1", str(other.port))
    error = api.fails(UnavailableError, match="READONLY")(client_.state, "save", "s", "k", 2)
    assert error.retryable
    assert not error.maybe_applied
    server.command("REPLICAOF", "NO", "ONE")
    api.call(client_.state, "save", "s", "k", 3)
    assert api.call(client_.state, "get", "s", "k") == 3


@KINDS
def test_too_many_clients(served: Serve, client: Make, api: Api, kind: str) -> None:
    server = served(kind, maxclients=1)
    with socket.create_connection(("127.0.0.1", server.port)) as other:
        other.sendall(b"PING\r\n")
        assert other.recv(64)
        state = client(server.url).state
        assert not api.fails(ResourceExhaustedError, match="maxclients")(state, "save", "s", "k", 1).maybe_applied
    assert api.until(lambda: _works(api, state))


def _works(api: Api, state: object) -> bool:
    try:
        api.call(state, "save", "s", "k", 1)
    except ResourceExhaustedError:
        return False
    return True


def test_no_connection_is_free(served: Serve, client: Make) -> None:
    server = served()
    client_ = client(server.url, max_connections=1)
    client_.state.save("s", "k", 1)
    with stopped(server):
        thread = threading.Thread(target=lambda: _attempt(lambda: client_.state.get("s", "k", timeout=30)))
        thread.start()
        runtime: Any = client_._context.runtime()
        until(runtime.component("state", "s").engine.servers._free.empty)
        with pytest.raises(DeadlineExceededError, match="max_connections") as caught:
            client_.state.save("s", "k", 2, timeout=0.1)
        assert not caught.value.maybe_applied
    thread.join()
    assert client_.state.get("s", "k") == 1


def _attempt(call: Callable[[], object]) -> None:
    try:
        call()
    except CloudRuntimesError:
        return


def test_a_key_of_another_program(home: RedisHome, api: Api) -> None:
    home.server.command("SET", f"{{{home.prefix}:state:s}}:v:k", "text")
    api.fails(InternalError, match="choose another prefix")(home.client().state, "save", "s", "k", 1)


def test_large_values_cross_in_pieces(home: RedisHome, api: Api) -> None:
    """Slow ways and small pieces garble nothing, also of calls at once."""
    with FaultProxy(home.server.port) as proxy:
        proxy.up = proxy.down = Way(piece=30_000)
        config = {"capa": {"home": {"url": f"redis://127.0.0.1:{proxy.port}/0", "prefix": home.prefix}}}
        with CloudRuntimesClient(app_id="suite", timeout=20, config=config) as client:
            values = {f"k{n}": os.urandom(2_000_000) for n in range(4)}
            api.together([(client.state, "save", ("s", *item), {}) for item in values.items()])
            results = api.together([(client.state, "get", ("s", key), {}) for key in values])
            assert results == list(values.values())


@pytest.mark.promise("B2")
def test_faults_at_random(home: RedisHome, api: Api, rounds: Rounds) -> None:
    """Acknowledged writes are there, writes reported as not applied are not, and the server is reached again."""
    chance = random.Random(1)
    acknowledged, refused = set(), set()
    with FaultProxy(home.server.port) as proxy:
        config = {"capa": {"home": {"url": f"redis://127.0.0.1:{proxy.port}/0", "prefix": home.prefix}}}
        with CloudRuntimesClient(app_id="suite", timeout=0.3, config=config) as client:
            for turn in range(rounds(15, 3000)):
                faults: list[Callable[[], object]] = [
                    lambda: proxy.break_all("reset"),
                    lambda: proxy.break_all("close"),
                    lambda: setattr(proxy, "down", Way(lost=True)),
                    lambda: setattr(proxy, "up", Way(cut=chance.randrange(1, 4000), once=True)),
                    lambda: setattr(proxy, "down", Way(cut=chance.randrange(1, 100), once=True)),
                    proxy.heal,
                ]
                with running(threading.Timer(chance.random() * 0.004, chance.choice(faults))):
                    keys = [f"{turn}-{number}" for number in range(8)]
                    calls = [(client.state, "save", ("s", key, "x" * chance.choice((1, 2000))), {}) for key in keys]
                    for key, answer in zip(keys, api.together(calls), strict=True):
                        if answer is None:
                            acknowledged.add(key)
                        else:
                            assert isinstance(answer, (UnavailableError, DeadlineExceededError)), answer
                            if not answer.maybe_applied:
                                refused.add(key)
                proxy.heal()
            assert api.call(client.state, "list_keys", "s", timeout=5) is not None
            assert api.until(lambda: proxy.sockets() <= 8)
    stored = set(home.client().state.list_keys("s"))
    assert acknowledged <= stored
    assert not refused & stored
    assert acknowledged
