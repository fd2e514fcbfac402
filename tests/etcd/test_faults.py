"""The server is killed, stopped and cut off, forgets revisions and ends leases: what was acknowledged is there, the rest is told."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from cloud_runtimes.components._net.connections import FRESH
from cloud_runtimes.components.etcd import configuration, connection, engine, lock, notifier
from cloud_runtimes.components.etcd.failures import ServerError, map_error
from cloud_runtimes.components.etcd.messages import pack
from cloud_runtimes.errors import CloudRuntimesError, DeadlineExceededError, LeaseLostError, UnavailableError
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.lock import LockRequest
from cloud_runtimes.testing import Api
from tests.support import Figure, Make, Rounds
from tests.support.counting import Counting
from tests.support.etcd import Serve, asked, compact, leases, stopped
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.etcd import EtcdHome
from tests.support.waiting import Stopwatch, running, until


def test_a_server_is_killed(served: Serve, client: Make, rounds: Rounds, figure: Figure) -> None:
    """Nothing acknowledged is lost, tokens only grow, and a subscriber gets the last value."""
    server = served()
    count = rounds(2, 100)
    clients = [client(server.url) for _ in range(3)]
    tokens: list[int] = []
    unclear: list[CloudRuntimesError] = []
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            try:
                with clients[2].lock.hold("l", "r", expiry=3, wait=2, timeout=2) as lease:
                    assert lease.token is not None
                    tokens.append(lease.token)
            except CloudRuntimesError as error:
                unclear.append(error)

    locking = threading.Thread(target=hold)
    with clients[2].configuration.subscribe_configuration("c") as sub, Counting(clients[:2]) as counting:
        locking.start()
        for number in range(count):
            had, held = len(counting.acknowledged[0]), len(tokens)
            until(lambda had=had, held=held: len(counting.acknowledged[0]) > had + 20 and len(tokens) > held)  # type: ignore[misc]
            clients[2].configuration.save_configuration("c", {"k": str(number)})
            server.kill()
            server.start()
            until(lambda number=number: sub.current().get("k") and sub.current()["k"].value == str(number), seconds=30)  # type: ignore[misc]
        over.set()
        locking.join(30)
    assert tokens == sorted(set(tokens))
    assert all(isinstance(error, (UnavailableError, DeadlineExceededError, LeaseLostError)) for error in unclear)
    figure("kills of an etcd server", f"{count} kills: {counting.check()}; {len(tokens):,} tokens only grew")


@pytest.mark.parametrize(
    ("text", "unsure"), [("raft proposal dropped", False), ("raft: stopped", True), ("context deadline exceeded", True)]
)
def test_what_passes_without_a_code(text: str, unsure: bool) -> None:
    """A cluster whose leader changes says so for a moment, and not by the code that gRPC has for it."""
    refused = ServerError(2, text)
    error = map_error("here", refused)
    assert isinstance(error, UnavailableError)
    assert refused.passes
    assert error.retryable
    assert error.maybe_applied == refused.unsure == unsure


@pytest.mark.promise("B2")
def test_a_call_without_a_limit_ends_too(
    served: Serve, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says nothing is asked whether it is there, and then given up."""
    monkeypatch.setattr(connection, "_SILENT", 0.2)
    server = served()
    instance = client(server.url)
    api.call(instance.state, "save", "s", "k", 1)
    with stopped(server):
        error = api.fails(UnavailableError, match="does not answer")(
            instance.state, "save", "s", "k", 2, concurrency="first-write", timeout=None
        )
        assert error.maybe_applied


def test_another_server_is_asked(served: Serve, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads go on at another server when one hangs or is away. The two servers here are no cluster."""
    server = served()
    monkeypatch.setattr(engine, "_SHARE", 0.5)
    with FaultProxy(server.port) as proxy:
        instance = client(f"etcd://127.0.0.1:{proxy.port},127.0.0.1:{server.port}")
        api.call(instance.state, "save", "s", "k", 1)
        proxy.down.lost = True
        begun = time.monotonic()
        with Stopwatch() as watch:
            assert api.call(instance.state, "get", "s", "k", timeout=20) == 1
            assert watch.seconds < 3
        assert time.monotonic() - begun > 0.4
        proxy.gone()
        assert api.call(instance.state, "get", "s", "k") == 1


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_connection_that_is_cut(served: Serve, client: Make, api: Api, end: Any, home: EtcdHome) -> None:
    """A write on its way may have been applied; the next call has another connection."""
    with FaultProxy(home.server.port) as proxy:
        instance = client(f"etcd://127.0.0.1:{proxy.port}", prefix=home.prefix)
        api.call(instance.state, "save", "s", "k", 1)
        proxy.end, proxy.up.cut, proxy.up.once = end, 30, True
        error = api.fails(UnavailableError)(instance.state, "save", "s", "k", 2, concurrency="first-write")
        assert error.maybe_applied
        assert "canary" not in str(error)
        proxy.up.cut = None
        assert api.call(instance.state, "get", "s", "k") == 1
        proxy.gone()
        time.sleep(10 * FRESH)
        error = api.fails(UnavailableError, match="no server can be reached")(instance.state, "save", "s", "k", 3)
        assert not error.maybe_applied
        proxy.back()
        api.call(instance.state, "save", "s", "k", 3)


def test_a_lease_that_is_lost(home: EtcdHome, api: Api) -> None:
    """By time, and by whoever revokes it; the next holder has a higher token."""
    locks = home.client().lock
    before = leases(home.server.url).keys()
    lease = api.call(locks, "try_lock", "l", "r", expiry=1)
    until(lambda: lease.lost)
    other = api.call(locks, "try_lock", "l", "r", expiry=30)
    while other is None:  # the server counts from later, and looks every half second
        api.pause(0.1)
        other = api.call(locks, "try_lock", "l", "r", expiry=30)
    assert other.token > lease.token
    (id,) = leases(home.server.url).keys() - before
    asked(home.server.url, "/etcdserverpb.Lease/LeaseRevoke", pack((1, id)))
    api.fails(LeaseLostError)(other, "renew")
    assert other.lost
    assert api.call(locks, "try_lock", "l", "r").token > other.token


def test_a_waiter_that_dies_delays_the_queue_for_seconds(
    home: EtcdHome, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever expiry it asked for."""
    monkeypatch.setattr(lock, "_WAITING", 2)
    locks = home.client().lock
    lease = api.call(locks, "try_lock", "l", "r", expiry=300)
    driver = home.client()._context.runtime().driver("lock", "l")  # type: ignore[attr-defined]
    request = LockRequest("r", "dead", "dead", 300_000, time.monotonic)
    op = Operation(Method("lock", "hold", repeatable=True), "l", 5.0)
    driver._component.engine.run(op, driver._turn(request, True, 0))
    begun = time.monotonic()
    api.call(lease, "release")
    with api.opened(locks.hold("l", "r", wait=100)) as mine:
        assert 1 < time.monotonic() - begun < 60
        assert mine.token > lease.token


@pytest.mark.promise("B6")
@pytest.mark.parametrize("forgets", [True, False])
def test_a_watch_that_was_away(home: EtcdHome, client: Make, api: Api, forgets: bool) -> None:
    """It goes on where it was. Where the server has forgotten that revision, it looks at all there is."""
    with FaultProxy(home.server.port) as proxy:
        instance = client(f"etcd://127.0.0.1:{proxy.port}", prefix=home.prefix)
        direct = home.client()
        direct.configuration.save_configuration("c", {"gone": "1", "k": "0"})
        with api.opened(instance.configuration.subscribe_configuration("c")) as sub:
            assert api.call(sub, "receive", 5).keys() == {"gone", "k"}
            proxy.gone()
            for number in range(5):
                direct.configuration.save_configuration("c", {"k": str(number), "new": "1"})
            direct.configuration.delete_configuration("c", ["gone"])
            if forgets:
                compact(home.server.url)
            proxy.back()
            assert api.until(lambda: "new" in sub.current() and "gone" not in sub.current(), 20)
            assert sub.current()["k"].value == "4"
            direct.configuration.save_configuration("c", {"k": "5"})
            assert api.until(lambda: sub.current()["k"].value == "5")


def test_a_notification_that_was_lost(home: EtcdHome, client: Make, api: Api) -> None:
    """A waiter whose watch was cut is served all the same."""
    with FaultProxy(home.server.port) as proxy:
        instance = client(f"etcd://127.0.0.1:{proxy.port}", prefix=home.prefix)
        lease = home.client().lock.try_lock("l", "r", expiry=30)
        assert lease is not None

        def release() -> None:
            time.sleep(0.3)
            proxy.break_all("reset")
            lease.release()

        with running(release):
            with api.opened(instance.lock.hold("l", "r", wait=20)) as mine:
                assert mine.token > lease.token  # type: ignore[operator]


def test_a_watch_that_is_silent(home: EtcdHome, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was lost without a word is given up, and what it missed comes by the next."""
    monkeypatch.setattr(notifier, "_QUIET", 0.2)
    monkeypatch.setattr(configuration, "_LONGEST", 0.1)
    with FaultProxy(home.server.port) as proxy:
        instance = client(f"etcd://127.0.0.1:{proxy.port}", prefix=home.prefix)
        with api.opened(instance.configuration.subscribe_configuration("c")) as sub:
            home.client().configuration.save_configuration("c", {"k": "1"})
            assert api.until(lambda: "k" in sub.current())
            proxy.down.lost = True
            home.client().configuration.save_configuration("c", {"k": "2"})
            api.pause(0.3)
            proxy.down.lost = False
            assert api.until(lambda: sub.current()["k"].value == "2", 20)
