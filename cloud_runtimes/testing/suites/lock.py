"""Conformance of a `LockDriver`, through the service."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...client import CloudRuntimesClient, context_of
from ...errors import (
    ClosedError,
    ConflictError,
    DeadlineExceededError,
    LeaseLostError,
    UnsupportedError,
)
from ...lock import Lease, LockHold, UnlockStatus
from ..apis import Api
from ..harness import Harness, requires
from ._base import Broken, Call, Suite


class LockSuite(Suite):
    """Every case of Dapr's lock conformance, and those that it misses: tokens, renewal, waiting, contention, lost leases."""

    service = "lock"

    # -- one try --------------------------------------------------------------

    def test_acquire_and_release(self, call: Call, api: Api) -> None:
        before = datetime.now(UTC)
        lease = call("try_lock", "r", "me", expiry=15)
        assert isinstance(lease, Lease)
        assert (lease.resource_id, lease.owner, lease.lost) == ("r", "me", False)
        assert before + timedelta(seconds=13) < lease.expires_at <= datetime.now(UTC) + timedelta(seconds=15)
        lease.check()
        for owner in ("you", "me"):
            assert call("try_lock", "r", owner) is None, "not by its owner either"
        api.call(lease, "release")
        other = call("try_lock", "r", "you")
        assert other is not None
        api.call(lease, "release")  # once more does nothing
        other.check()
        assert call("unlock", "r", "you") is UnlockStatus.SUCCESS

    def test_owners_have_names_of_their_own(self, call: Call) -> None:
        first, second = (call("try_lock", name) for name in ("a", "b"))
        assert first.owner
        assert first.owner != second.owner
        assert call("unlock", "a", first.owner) is UnlockStatus.SUCCESS

    def test_resources_and_stores_are_apart(self, call: Call, harness: Harness) -> None:
        other = harness.store("lock")
        for resource in ("r", "R", "r ", "ü" * 512):
            assert call("try_lock", resource) is not None
        assert call.on(store=other)("try_lock", "r") is not None
        assert call.on(harness.client(), other)("try_lock", "r") is None, "clients share"

    def test_one_of_many_gets_it(self, client: CloudRuntimesClient, api: Api, store: str, harness: Harness) -> None:
        calls: list[Any] = [(each.lock, "try_lock", (store, "r"), {}) for each in (client, harness.client())] * 8
        assert [type(each) for each in api.together(calls) if each is not None] == [Lease]

    def test_unlock(self, call: Call, api: Api) -> None:
        assert call("unlock", "r", "me") is UnlockStatus.NOT_FOUND
        lease = call("try_lock", "r", "me")
        assert call("unlock", "r", "you") is UnlockStatus.NOT_OWNER
        assert call("try_lock", "r") is None
        assert call("unlock", "r", "me") is UnlockStatus.SUCCESS
        assert call("unlock", "r", "me") is UnlockStatus.NOT_FOUND
        api.fails(LeaseLostError, match="'r'")(lease, "release")
        assert lease.lost

    # -- expiry ---------------------------------------------------------------

    def test_expires_by_the_clock_of_the_store(self, call: Call, api: Api, store: str, harness: Harness) -> None:
        lease = call("try_lock", "r", "me", expiry=600)
        harness.advance(580)
        assert call("try_lock", "r", "you") is None
        harness.advance(20.5)
        assert call("unlock", "r", "me") is UnlockStatus.NOT_FOUND
        other = call("try_lock", "r", "you", expiry=60)
        assert other is not None
        error = api.fails(LeaseLostError)(lease, "release")
        assert isinstance(error, ConflictError)
        assert (error.code, error.component) == ("ABORTED", store)
        assert error.operation == "release"
        assert call("try_lock", "r", "me") is None  # that release took nothing from others

    def test_expires_in_real_time(self, call: Call, api: Api) -> None:
        begun = time.monotonic()
        lease = call("try_lock", "r", expiry=0.3)
        while (other := call("try_lock", "r")) is None:
            assert time.monotonic() < begun + 30
            api.pause(0.005)
        assert time.monotonic() - begun > 0.25
        assert lease.lost  # the holder knows no later than others
        with pytest.raises(LeaseLostError):
            lease.check()
        other.check()

    def test_the_holder_is_the_first_to_know(self, call: Call, client: CloudRuntimesClient, api: Api) -> None:
        lease = call("try_lock", "r", expiry=30)
        lease.check()
        context = context_of(client)
        later = context.now() + 30
        context.now = lambda: later
        assert lease.lost
        assert call("try_lock", "r") is None
        api.fails(LeaseLostError)(lease, "release")
        assert call("try_lock", "r") is not None

    # -- tokens ---------------------------------------------------------------

    @requires("lock.token")
    def test_tokens_grow(self, call: Call, api: Api, harness: Harness) -> None:
        tokens = []
        callers = call, call.on(harness.client())
        for n in range(6):
            lease = callers[n % 2]("try_lock", "r", "me", expiry=60)
            assert type(lease.token) is int
            tokens.append(lease.token)
            if n % 3 == 0:
                api.call(lease, "release")
            elif n % 3 == 1:
                harness.advance(200)
            else:
                call("unlock", "r", "me")
        assert tokens == sorted(set(tokens))
        assert tokens[0] >= 1

    @requires("lock.token", "state.fence")
    def test_a_lower_token_is_refused(
        self, call: Call, client: CloudRuntimesClient, api: Api, store: str, harness: Harness
    ) -> None:
        state = Call(api, client, "state", store)
        first = call("try_lock", "r", expiry=60)
        state("save", "k", 1, fence=first.token)
        harness.advance(61)
        second = call("try_lock", "r", expiry=60)
        state("save", "k", 2, fence=first.token)  # none higher was seen yet
        state("save", "k", 3, fence=second.token)
        for _ in range(3):
            state.fails(ConflictError)("save", "k", 4, fence=first.token)
        assert state("get", "k") == 3
        state("delete", "k", fence=second.token)
        state.fails(ConflictError)("save", "k", 4, fence=first.token)

    # -- renewing -------------------------------------------------------------

    @requires("lock.renew")
    def test_renew(self, call: Call, api: Api, harness: Harness) -> None:
        lease = call("try_lock", "r", expiry=60)
        before, token = lease.expires_at, lease.token
        for _ in range(3):
            harness.advance(40)
            api.call(lease, "renew")
        assert call("try_lock", "r") is None
        assert lease.expires_at >= before
        assert lease.token == token
        api.call(lease, "release")
        api.fails(ClosedError, match="released")(lease, "renew")
        with pytest.raises(ClosedError, match="released"):
            lease.check()
        assert not lease.lost

    @requires("lock.renew")
    def test_what_has_ended_is_not_renewed(self, call: Call, api: Api, harness: Harness) -> None:
        lease = call("try_lock", "r", expiry=60)
        harness.advance(61)
        error = api.fails(LeaseLostError)(lease, "renew")
        assert error.operation == "renew"
        assert lease.lost
        assert call("try_lock", "r") is not None

    def test_without_renewal(self, call: Call, api: Api) -> None:
        if call.lacks("lock.renew"):
            with pytest.raises(UnsupportedError):
                call.plain("hold", "r", renew=True)
            with pytest.raises(UnsupportedError), call.opened("hold", "r") as lease:
                api.call(lease, "renew")
            return
        with pytest.raises(LeaseLostError), call.opened("hold", "r", expiry=0.1, renew=False) as lease:
            assert api.until(lambda: lease.lost)

    # -- blocks ---------------------------------------------------------------

    def test_a_lease_as_a_block(self, call: Call, api: Api) -> None:
        with api.opened(call("try_lock", "r")) as lease:
            lease.check()
            assert call("try_lock", "r") is None
        assert call("try_lock", "r") is not None
        with pytest.raises(ClosedError), api.opened(lease):
            pytest.fail("a released lease has no block")

    def test_hold(self, call: Call, api: Api) -> None:
        handle = call.plain("hold", "r")
        assert isinstance(handle, LockHold)
        with api.opened(handle) as lease:
            assert isinstance(lease, Lease)
            assert call("try_lock", "r") is None
        with call.opened("hold", "r", wait=0) as lease:
            api.call(lease, "release")  # early is fine
            assert call("try_lock", "r") is not None
        with pytest.raises(ClosedError), api.opened(handle):
            pytest.fail("a handle serves one block")

    def test_an_exception_leaves_the_block(self, call: Call, harness: Harness) -> None:
        with pytest.raises(Broken), call.opened("hold", "r"):
            raise Broken
        assert call("try_lock", "r", "me") is not None
        assert call("unlock", "r", "me") is UnlockStatus.SUCCESS
        with pytest.raises(Broken), call.opened("hold", "r", expiry=60, renew=False):
            harness.advance(61)
            raise Broken
        with pytest.raises(LeaseLostError), call.opened("hold", "r", expiry=60, renew=False):
            harness.advance(61)

    def test_lost_to_another(self, call: Call) -> None:
        with pytest.raises(LeaseLostError), call.opened("hold", "r") as lease:
            assert call("unlock", "r", lease.owner) is UnlockStatus.SUCCESS
            other = call("try_lock", "r")
        other.check()
        assert call("try_lock", "r") is None

    @requires("lock.renew")
    def test_held_longer_than_its_expiry(self, call: Call, api: Api) -> None:
        for expiry in (1.5, 6.0, 24.0):
            try:
                with call.opened("hold", "r", expiry=expiry) as lease:
                    first, end = lease.expires_at, time.monotonic() + 1.2 * expiry
                    while time.monotonic() < end:
                        lease.check()
                        assert call("try_lock", "r") is None or lease.lost
                        api.pause(0.05)
                    assert lease.expires_at > first
                return
            except LeaseLostError:  # a busy machine may stand still for longer than that
                assert expiry < 24

    @requires("lock.renew")
    def test_a_loss_is_noticed_while_renewing(self, call: Call, api: Api) -> None:
        with pytest.raises(LeaseLostError), call.opened("hold", "r", expiry=1.5) as lease:
            call("unlock", "r", lease.owner)
            assert api.until(lambda: lease.lost)  # by the store's answer, or by the clock

    # -- waiting --------------------------------------------------------------

    def test_no_wait_and_a_short_one(self, call: Call, store: str) -> None:
        assert call("try_lock", "r", "me") is not None
        for wait in (0, 0.05):
            with pytest.raises(DeadlineExceededError, match="'r'") as caught:
                call.opened("hold", "r", wait=wait).__enter__()
            assert (caught.value.component, caught.value.operation) == (store, "hold")
            assert not caught.value.maybe_applied
        assert call("unlock", "r", "me") is UnlockStatus.SUCCESS
        assert call("try_lock", "r") is not None  # who gave up is not in line

    def test_waits_for_a_release(self, call: Call, subtests: pytest.Subtests) -> None:
        for wait in (None, 20):
            with subtests.test(wait=wait):
                lease = call.plain("try_lock", f"r{wait}", expiry=3600)
                timer = threading.Timer(0.1, lease.release)
                timer.start()
                with call.opened("hold", f"r{wait}", wait=wait) as mine:
                    mine.check()
                    if mine.token is not None and lease.token is not None:
                        assert mine.token > lease.token
                timer.join()

    def test_waits_for_a_dead_holder(self, call: Call) -> None:
        dead = call("try_lock", "r", expiry=0.4)
        with call.opened("hold", "r", wait=30):
            assert dead.lost

    @requires("lock.fair")
    def test_in_the_order_of_coming(self, call: Call, harness: Harness) -> None:
        callers = call, call.on(harness.client())
        got: list[int] = []

        def wait(number: int) -> None:
            with callers[number % 2].plain("hold", "r", wait=30):
                got.append(number)

        for pause in (0.2, 0.6, 1.8):
            got.clear()
            threads = [threading.Thread(target=wait, args=(number,)) for number in range(6)]
            with call.plain("hold", "r"):
                for thread in threads:
                    thread.start()
                    time.sleep(pause)  # it stands in the line by then, unless the machine is busy
            for thread in threads:
                thread.join(30)
            if got == list(range(6)):
                break
        assert got == list(range(6))

    def test_contention(self, call: Call, api: Api) -> None:
        """Many hold it in turn, none at the same time."""
        inside: list[Lease] = []
        tokens: list[Any] = []

        def enter(lease: Lease) -> None:
            assert not inside
            inside.append(lease)
            tokens.append(lease.token)

        class Worker:
            def work(self) -> None:
                for _ in range(5):
                    with call.plain("hold", "r", wait=60) as lease:
                        enter(lease)
                        time.sleep(0.001)
                        inside.remove(lease)

            async def work_async(self) -> None:
                for _ in range(5):
                    async with call.plain("hold", "r", wait=60) as lease:
                        enter(lease)
                        await asyncio.sleep(0.001)
                        inside.remove(lease)

        assert api.together([(Worker(), "work", (), {})] * 8) == [None] * 8
        assert len(tokens) == 40
        if not call.lacks("lock.token"):
            assert tokens == sorted(set(tokens))

    def test_cancelled_while_waiting(self, call: Call, store: str) -> None:
        async def run() -> None:
            async with call.plain("hold", "r") as lease:
                # a question may be under way just then: without a line of its own a store is asked again and again
                for _ in range(10):
                    waiting = asyncio.create_task(call.plain("hold", "r").__aenter__())
                    await asyncio.sleep(0.1)
                    waiting.cancel()
                    with pytest.raises(asyncio.CancelledError) as caught:
                        await waiting
                    if not caught.value.maybe_applied:  # type: ignore[attr-defined]
                        break
                assert caught.value.maybe_applied is False  # type: ignore[attr-defined]
                lease.check()
            assert await call.plain("try_lock_async", "r") is not None

        asyncio.run(run())

    def test_a_closed_client(self, call: Call, client: CloudRuntimesClient, api: Api, harness: Harness) -> None:
        other = call.on(harness.client())
        assert other("unlock", "r", "me") is UnlockStatus.NOT_FOUND
        held = call("try_lock", "r", expiry=60)
        handle = call.plain("hold", "q")
        client.close()
        for method in ("renew", "release"):
            api.fails(ClosedError)(held, method)
        call.fails(ClosedError)("try_lock", "r")
        with pytest.raises(ClosedError):
            api.opened(handle).__enter__()
        assert other("try_lock", "r") is None  # it lasts until its expiry

    def test_closing_ends_a_wait(self, call: Call, client: CloudRuntimesClient, harness: Harness) -> None:
        assert call.on(harness.client()).plain("try_lock", "r", expiry=3600) is not None
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                call.plain("hold", "r").__enter__()
            except ClosedError as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        client.close()
        thread.join(10)
        assert [type(error) for error in ended] == [ClosedError]
