"""Leases that end by the server's clock. They are short, since that clock cannot be set."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud_runtimes.components.nats.entries import Put
from cloud_runtimes.errors import LeaseLostError
from cloud_runtimes.lock import UnlockStatus
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api
from tests.support.harnesses.nats import NatsHome


def test_a_lease_ends_when_it_should(home: NatsHome, api: Api) -> None:
    """Not before, and not only when the server removes it at a whole second."""
    lock = home.client().lock
    for _ in range(5):
        first = api.call(lock, "try_lock", "l", "r", expiry=0.4)
        assert first is not None
        begun = time.monotonic()
        while (second := api.call(lock, "try_lock", "l", "r", expiry=30)) is None:
            api.pause(0.01)
        took = time.monotonic() - begun
        assert took > 0.35  # from the grant, which was a little before
        assert second.token > first.token
        if took < 0.9:  # a busy machine may be late once
            break
        api.call(second, "release")
    assert took < 0.9
    api.fails(LeaseLostError)(first, "renew")
    assert api.call(lock, "try_lock", "l", "r") is None
    api.call(second, "release")
    assert api.call(lock, "try_lock", "l", "r").token > second.token


def test_a_renewal_keeps_the_token(home: NatsHome, api: Api) -> None:
    lock = home.client().lock
    for expiry in (0.5, 2.0, 8.0):
        try:
            with api.opened(api.call(lock, "try_lock", "l", f"r{expiry}", expiry=expiry)) as lease:
                token = lease.token
                for _ in range(4):
                    api.pause(0.4 * expiry)
                    api.call(lease, "renew")
                assert api.call(lock, "try_lock", "l", f"r{expiry}") is None
                assert lease.token == token
            return
        except LeaseLostError:  # a busy machine may stand still for longer than that
            assert expiry < 8


def test_one_has_it(home: NatsHome) -> None:
    """Threads of two clients add to a file's worth of memory under the lock, which would lose one otherwise."""
    clients = [home.client(), home.client()]
    count = inside = 0

    def add(number: int) -> int:
        nonlocal count, inside
        with clients[number % 2].lock.hold("l", "r", wait=20) as lease:
            inside += 1
            assert inside == 1
            seen = count
            time.sleep(0.001)
            count = seen + 1
            inside -= 1
            assert lease.token is not None
            return lease.token

    with ThreadPoolExecutor(6) as threads:
        tokens = list(threads.map(add, range(24)))
    assert count == 24
    assert len(set(tokens)) == 24


def test_what_has_ended_is_nobodys(home: NatsHome, api: Api) -> None:
    lock = home.client().lock
    ended = api.call(lock, "try_lock", "l", "r", owner="one", expiry=0.3)
    assert ended is not None
    api.pause(0.35)
    # the server has not removed it yet
    assert api.call(lock, "unlock", "l", "r", "one") is UnlockStatus.NOT_FOUND
    taken = api.call(lock, "try_lock", "l", "r", owner="two", expiry=20)
    assert taken is not None
    api.fails(LeaseLostError)(ended, "release")
    assert api.call(lock, "unlock", "l", "r", "one") is UnlockStatus.NOT_OWNER
    assert api.call(lock, "unlock", "l", "r", "two") is UnlockStatus.SUCCESS


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"owner": "o", "claim": "c", "token": null}'])
def test_a_stranger_holds_no_lock(home: NatsHome, api: Api, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    """A message that is no lease, or one without an end."""
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    client = home.client()
    driver = client._context.runtime().driver("lock", "l")
    op = Operation(Method("lock", "test", repeatable=True), "l", 5.0)
    client.lock.try_lock("l", "other")  # which makes the bucket
    driver.component.engine.run(op, driver._bucket.put([Put(driver._subject("r"), data)]))  # type: ignore[attr-defined]
    assert [each.resource_id for each in api.call(client.admin, "locks", "l")] == ["other"]
    assert api.call(client.lock, "unlock", "l", "r", "o") == UnlockStatus.NOT_FOUND
    lease = api.call(client.lock, "try_lock", "l", "r")
    assert lease is not None
    assert api.call(client.lock, "try_lock", "l", "r") is None
    api.call(lease, "renew")
    api.call(lease, "release")
    (record,) = caplog.records
    assert "'r'" in record.getMessage()
