"""Locks whose holders, waiters, connections and servers are stopped, killed and cut."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import DeadlineExceededError, UnavailableError
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.child import Child, Start
from tests.support.forked import Forked
from tests.support.harnesses.redis import RedisHome
from tests.support.redis import RedisServer, Serve
from tests.support.waiting import Stopwatch, until

_CHILDREN = Path(__file__).parent.parent / "sqlite" / "children.py"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start children on a server; all are ended afterwards."""
    children: list[Child] = []

    def start(server: RedisServer, body: str, *arguments: Any) -> Child:
        child = Child(_CHILDREN, body, *arguments, environment={"CLOUD_RUNTIMES_HOME": server.url})
        children.append(child)
        return child

    yield start
    for child in children:
        child.close()


class Waiting:
    """A wait for the lock ``r`` in a thread, by either API."""

    def __init__(self, client: CloudRuntimesClient, api: Api, watch: Stopwatch | None = None, **options: Any) -> None:
        """``watch`` counts the seconds until it is had."""
        self._watch = watch
        self.got: float | None = None
        self.seconds = 0.0
        self.token: int | None = None
        self.error: BaseException | None = None
        self._client = client
        self._api = type(api)()
        self._options = {"wait": 30, **options}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._api.opened(self._client.lock.hold("locks", "r", **self._options)) as lease:
                self.got, self.token = time.monotonic(), lease.token
                self.seconds = 0.0 if self._watch is None else self._watch.seconds
        except BaseException as error:
            self.error = error
        finally:
            self._api.close()

    def join(self) -> None:
        self._thread.join(90)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


def in_line(server: RedisServer, count: int = 1) -> None:
    """Wait until so many wait for the lock ``r``."""
    until(lambda: server.command("ZCARD", "{cr:lock:locks}:q:r") == b":%d\r\n" % count, seconds=10)
    time.sleep(0.1)  # the last of them listens


# -- holders and waiters ------------------------------------------------------


def test_a_killed_holder_costs_its_lease(served: Serve, client: Make, start: Start, api: Api) -> None:
    server = served()
    holder = start(server, "hold_and_write", 1.0)
    token = holder.line()["token"]
    with Stopwatch() as watch:
        waiting = Waiting(client(server.url), api, watch)
        in_line(server)
        killed = watch.seconds
        holder.kill()
        waiting.join()
    assert waiting.token is not None
    assert waiting.token > token
    assert waiting.seconds - killed < 1.0 + 1.0


def test_a_killed_waiter_costs_a_turn_once(served: Serve, client: Make, start: Start, api: Api) -> None:
    server = served()
    mine = client(server.url)
    lease = mine.lock.try_lock("locks", "r", expiry=3600)
    assert lease is not None
    dead = start(server, "wait_for_lock", 1).ready()
    dead.go()
    in_line(server)
    dead.kill()
    with Stopwatch() as watch:
        waiting = Waiting(mine, api, watch)
        in_line(server, 2)
        released, counted = time.monotonic(), watch.seconds
        lease.release()
        waiting.join()
    assert waiting.got is not None
    assert waiting.got - released > 0.4
    assert waiting.seconds - counted < 1.5
    again = mine.lock.try_lock("locks", "r")
    assert again is not None


def test_a_waiter_that_slept_comes_back_to_its_place(served: Serve, client: Make, start: Start, api: Api) -> None:
    server = served()
    mine = client(server.url)
    lease = mine.lock.try_lock("locks", "r", expiry=3600)
    assert lease is not None
    slow = start(server, "wait_for_lock", 1).ready()
    slow.go()
    assert slow.line() == {"waiting": True}
    in_line(server)
    slow.process.send_signal(signal.SIGSTOP)
    threading.Timer(0.1, lease.release).start()
    with api.opened(mine.lock.hold("locks", "r", wait=20)):  # its turn is over
        waiting = Waiting(mine, api)
        in_line(server)
        slow.process.send_signal(signal.SIGCONT)
        in_line(server, 2)
    waiting.join()
    assert waiting.got is not None
    assert slow.line()["at"] / 1e9 < waiting.got


def test_waiters_share_one_connection_and_do_not_poll(
    served: Serve, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 60.0)  # else each looks by itself every 2 s
    server = served()
    mine = client(server.url)
    lease = mine.lock.try_lock("locks", "r", expiry=3600)
    assert lease is not None
    waiting = [Waiting(mine, api) for _ in range(10)]
    in_line(server, 10)
    assert server.command("CLIENT", "LIST", "TYPE", "PUBSUB").count(b"id=") == 1
    before = processed(server)
    time.sleep(1.0)
    assert processed(server) - before < 15
    lease.release()
    for each in waiting:
        each.join()
    assert len({each.token for each in waiting}) == 10


def processed(server: RedisServer) -> int:
    rest = server.command("INFO", "stats").partition(b"total_commands_processed:")[2]
    return int(rest.partition(b"\r")[0])


def test_a_child_waits_by_itself(served: Serve, client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 60.0)
    server = served()
    mine = client(server.url)
    lease = mine.lock.try_lock("locks", "r", expiry=3600)
    assert lease is not None
    with pytest.raises(DeadlineExceededError):
        mine.lock.hold("locks", "r", wait=0.1).__enter__()  # the parent listens now

    def body() -> None:
        with mine.lock.hold("locks", "r", wait=55):
            pass

    child = Forked(body)
    in_line(server)
    begun = time.monotonic()
    lease.release()
    child.result()
    assert time.monotonic() - begun < 20  # it was notified


# -- connections and servers --------------------------------------------------


def test_connections_that_are_cut_while_waiting(
    served: Serve, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 60.0)
    server = served()
    lease = client(server.url).lock.try_lock("locks", "r", expiry=3600)
    assert lease is not None
    waiting = Waiting(client(server.url), api, wait=55)
    for _ in range(3):
        in_line(server)
        server.command("CLIENT", "KILL", "TYPE", "PUBSUB")
        server.command("CLIENT", "KILL", "TYPE", "NORMAL")
    time.sleep(0.3)  # it listens again
    released = time.monotonic()
    lease.release()
    waiting.join()
    assert waiting.got is not None
    assert waiting.got - released < 20


def test_a_wait_and_a_lease_outlive_a_restart(served: Serve, client: Make, api: Api) -> None:
    server = served(appendonly="yes")
    lease = client(server.url).lock.try_lock("locks", "r", expiry=3600)
    assert lease is not None
    waiting = Waiting(client(server.url), api)
    in_line(server)
    server.kill()
    time.sleep(0.7)  # the waiter looks meanwhile
    server.start()
    assert client(server.url).lock.try_lock("locks", "r") is None
    lease.release()
    waiting.join()
    assert waiting.token is not None
    assert lease.token is not None
    assert waiting.token > lease.token


def test_a_server_that_stays_away_ends_a_wait(
    served: Serve, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_runtimes.components.redis.lock._AWAY", 0.5)
    server = served()
    assert client(server.url).lock.try_lock("locks", "r", expiry=3600) is not None
    waiting = Waiting(client(server.url), api, wait=None)
    in_line(server)
    server.kill()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        waiting.join()


def test_tokens_grow_over_a_lost_counter(served: Serve, client: Make, api: Api) -> None:
    server = served()
    mine = client(server.url)
    tokens = []
    for turn in range(4):
        lease = api.call(mine.lock, "try_lock", "locks", "r", expiry=3600)
        tokens.append(lease.token)
        if turn == 1:
            server.command("FLUSHALL")
        else:
            server.kill()
            server.start()
        api.pause(0.05)  # a loop that runs sees that its connection was closed
    assert tokens == sorted(set(tokens))


def test_what_a_hung_server_does_late_is_undone(served: Serve, client: Make, api: Api) -> None:
    """A try that was given up takes the lock for nobody, whether the server runs it before or after the undoing."""
    server = served()
    mine, other = client(server.url), client(server.url)
    for each in (mine, other):
        api.call(each.lock, "unlock", "locks", "r", "nobody")  # connects
    assert server.process is not None
    for _ in range(3):
        server.process.send_signal(signal.SIGSTOP)
        error = api.fails(DeadlineExceededError)(mine.lock, "try_lock", "locks", "r", expiry=3600, timeout=0.1)
        assert error.maybe_applied
        server.process.send_signal(signal.SIGCONT)
        with api.opened(other.lock.hold("locks", "r", wait=10)) as lease:
            lease.check()


def test_a_mark_refuses_what_comes_after_the_undoing(served: Serve, client: Make, api: Api) -> None:
    server = served()
    mine = client(server.url)
    driver = mine.lock._frame.driver("locks")
    request = mine.lock._request("r", None, 3600)
    op, _ = mine.lock._asking(_method(mine), "locks", 5.0, None)
    assert not driver._run(op, driver._releasing(request, queued=True))
    for wait in (False, True):
        limited = op.limited(0.3)
        assert api.call(driver, "acquire", limited, request, wait) is None
    assert server.command("ZCARD", "{cr:lock:locks}:q:r") == b":0\r\n"
    assert api.call(mine.lock, "try_lock", "locks", "r") is not None


def _method(client: CloudRuntimesClient) -> Any:
    from cloud_runtimes.lock import service

    return service._TRY


def test_a_try_whose_answer_was_lost_is_repeated(served: Serve, client: Make, api: Api) -> None:
    """The same claim asks again, as a waiter does: it gets the lease that it has."""
    server = served()
    mine = client(server.url)
    driver = mine.lock._frame.driver("locks")
    request = mine.lock._request("r", None, 3600)
    op, _ = mine.lock._asking(_method(mine), "locks", 5.0, None)
    grants = [api.call(driver, "acquire", op, request, False) for _ in range(2)]
    assert grants[0].token == grants[1].token
    assert api.call(mine.lock, "try_lock", "locks", "r") is None
    assert api.call(driver, "release", op, request) is True
    assert api.call(mine.lock, "try_lock", "locks", "r") is not None


# -- what is left -------------------------------------------------------------


def test_nothing_is_left_but_the_counter(home: RedisHome, api: Api) -> None:
    client = home.client()
    for _ in range(3):
        with api.opened(client.lock.hold("locks", "r")):
            pass
    with api.opened(client.lock.hold("locks", "r", expiry=1)):
        with pytest.raises(DeadlineExceededError):
            api.opened(client.lock.hold("locks", "r", wait=0.05)).__enter__()
    assert api.call(client.lock, "try_lock", "locks", "held", expiry=1) is not None
    home.advance(1 + 60 + 1)
    reply = home.server.command("KEYS", f"{{{home.prefix}:lock:*")
    assert reply.startswith(b"*1\r\n"), reply


def test_a_stranger_hides_no_lock(home: RedisHome, api: Api) -> None:
    client = home.client()
    assert api.call(client.lock, "try_lock", "locks", "r", "me") is not None
    lock = f"{{{home.prefix}:lock:locks}}:l:"
    home.server.command("SET", f"{lock}text", "x")
    home.server.command("HSET", f"{lock}fields", "d", "soon")
    assert [(each.resource_id, each.owner) for each in api.call(client.admin, "locks", "locks")] == [("r", "me")]
