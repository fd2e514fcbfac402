"""Conformance of transactions that publish (outbox) and that settle events (inbox)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import ClosedError, ConflictError, PayloadError, UnsupportedError
from ...spi.operation import Method, Operation
from ...spi.pubsub import SubscribeRequest
from ..apis import Api
from ..harness import Harness, requires
from ._base import Broken, Call, Suite
from ._pubsub_answers import collect, data, nothing

_OPERATION = Method("pubsub", "suite", repeatable=False)


class OutboxTests(Suite):
    """State and events of one transaction: both or neither."""

    service = "state"

    @pytest.fixture
    def events(self, call: Call, client: CloudRuntimesClient, api: Api, harness: Harness) -> Call:
        """The pub/sub component beside the state component."""
        return Call(api, client, "pubsub", harness.store("pubsub"))

    @pytest.fixture
    def bus(self, events: Call) -> str:
        return events._component[0]

    def test_an_undeclared_outbox_is_refused(self, call: Call) -> None:
        if call.lacks("state.outbox") and not call.lacks("state.transaction"):
            with call.opened("transaction") as tx, pytest.raises(UnsupportedError, match="publish in a transaction"):
                tx.publish("bus", "t", 1)

    @requires("state.outbox")
    def test_a_transaction_publishes(self, call: Call, events: Call, bus: str, api: Api) -> None:
        with events.opened("subscribe", "t") as sub:
            with call.opened("transaction") as tx:
                tx.save("order", {"id": 7})
                first = tx.publish(bus, "t", {"order": 7}, key="7", attributes={"type": "order.placed"})
                tx.publish(bus, "t", "second")
                nothing(api, sub)
            got = collect(api, sub, 2)
            nothing(api, sub)
        assert call("get", "order") == {"id": 7}
        assert [event.data for event in got] == [{"order": 7}, "second"]
        assert (got[0].id, got[0].key, got[0].type) == (first, "7", "order.placed")

    @requires("state.outbox")
    def test_publishing_alone(self, call: Call, events: Call, bus: str, api: Api) -> None:
        with events.opened("subscribe", "t") as sub:
            with call.opened("transaction") as tx:
                tx.publish(bus, "t", 1)
            assert data(api, sub, 1) == [1]
        with pytest.raises(ClosedError):
            tx.publish(bus, "t", 2)

    @requires("state.outbox")
    def test_what_fails_publishes_nothing(self, call: Call, events: Call, bus: str, api: Api, harness: Harness) -> None:
        call("save", "taken", 1)
        with events.opened("subscribe", "t") as sub:
            with pytest.raises(Broken), call.opened("transaction") as tx:
                tx.save("a", 1)
                tx.publish(bus, "t", "broken")
                raise Broken
            with pytest.raises(ConflictError), call.opened("transaction") as tx:
                tx.publish(bus, "t", "conflict")
                tx.save("a", 1)
                tx.save("taken", 2, etag=harness.bad_etag)
            with call.opened("transaction") as tx, pytest.raises(PayloadError):
                tx.publish(bus, "t", object())
            nothing(api, sub)
        assert call("get", "a") is None
        assert call("get", "taken") == 1

    @requires("state.outbox", "state.ttl", "state.fence")
    def test_a_transaction_delays(
        self, call: Call, events: Call, bus: str, api: Api, client: CloudRuntimesClient, harness: Harness
    ) -> None:
        with events.opened("subscribe", "t") as sub:
            with call.opened("transaction") as tx:
                tx.save("a", 1, ttl=60, fence=3)
                tx.publish(bus, "t", "now")
                if client.supports("pubsub.delay", bus):
                    tx.publish(bus, "t", "later", delay=30)
                if client.supports("pubsub.ttl", bus):
                    tx.publish(bus, "t", "short", ttl=1, delay=20)
            assert data(api, sub, 1) == ["now"]
            nothing(api, sub)
            harness.advance(31)
            assert data(api, sub, 1) == ["later"]
            nothing(api, sub)
        with pytest.raises(ConflictError, match="fence"), call.opened("transaction") as tx:
            tx.save("a", 2, fence=2)
            tx.publish(bus, "t", "fenced")


class InboxTests(Suite):
    """An event that is settled in the transaction that writes what came of it."""

    service = "pubsub"

    @pytest.fixture
    def state(self, call: Call, client: CloudRuntimesClient, api: Api, harness: Harness) -> Call:
        """The state component beside the pub/sub component."""
        return Call(api, client, "state", harness.store("state"))

    @pytest.fixture
    def orders(self, state: Call) -> str:
        return state._component[0]

    @requires("pubsub.subscribe")
    def test_an_event_is_handled_in_a_transaction(self, call: Call, state: Call, orders: str, api: Api) -> None:
        needed = ("state.transaction", "state.transaction_etag", "state.ttl")
        with call.opened("subscribe", "t") as sub:
            call("publish", "t", 1)
            (event,) = collect(api, sub, 1, ack=False)
            if any(map(state.lacks, needed)) or not state.driver().takes_hidden:
                with pytest.raises(UnsupportedError):
                    event.transaction(orders)
                event.ack()
                return
            with api.opened(event.transaction(orders)) as tx:
                tx.save("done", event.data)
            nothing(api, sub)
        assert state("get", "done") == 1
        assert state("list_keys") == ["done"]

    @requires("pubsub.inbox")
    def test_an_event_and_its_writes(self, call: Call, state: Call, store: str, orders: str, api: Api) -> None:
        call("publish_bulk", "t", ["first", "second"])
        with call.opened("subscribe", "t") as sub:
            first, second = collect(api, sub, 2, ack=False)
            with api.opened(first.transaction(orders)) as tx:
                tx.save("done", first.data)
                tx.publish(store, "results", "made of first")
            first.retry(0)  # too late: it is settled
            with pytest.raises(ConflictError, match="settled already"), api.opened(first.transaction(orders)) as tx:
                tx.save("done", "twice")
            second.retry(0)
            (second,) = collect(api, sub, 1, ack=False)
            with api.opened(second.transaction(orders)):
                pass  # nothing to write
        with call.opened("subscribe", "t") as sub:
            nothing(api, sub)
        with call.opened("subscribe", "results") as sub:
            assert data(api, sub, 1) == ["made of first"]
        assert state("get", "done") == "first"

    @requires("pubsub.inbox")
    def test_what_fails_settles_nothing(self, call: Call, state: Call, orders: str, api: Api, harness: Harness) -> None:
        state("save", "taken", 1)
        call("publish", "t", 1)
        with call.opened("subscribe", "t") as sub:
            for _ in range(2):
                (event,) = collect(api, sub, 1, ack=False)
                with pytest.raises(Broken), api.opened(event.transaction(orders)) as tx:
                    tx.save("a", 1)
                    raise Broken
                with pytest.raises(ConflictError), api.opened(event.transaction(orders)) as tx:
                    tx.save("a", 1)
                    tx.save("taken", 2, etag=harness.bad_etag)
                event.retry(0)
            (event,) = collect(api, sub, 1)
        assert event.delivery_count == 3
        assert state("get", "a") is None
        assert state("get", "taken") == 1

    @requires("pubsub.inbox")
    def test_an_answered_event(self, call: Call, state: Call, orders: str, api: Api) -> None:
        call("publish", "t", 1)
        with call.opened("subscribe", "t") as sub:
            (event,) = collect(api, sub, 1)
            with pytest.raises(ConflictError, match="settled already"), api.opened(event.transaction(orders)) as tx:
                tx.save("a", 1)
        with pytest.raises(ClosedError), api.opened(event.transaction(orders)):
            pass  # the subscription is over
        assert state("get", "a") is None

    @requires("pubsub.inbox")
    def test_a_batch(self, call: Call, state: Call, orders: str, api: Api) -> None:
        call("publish_bulk", "t", list(range(20)))
        with call.opened("subscribe", "t", batch=20) as sub:
            batch = api.call(sub, "receive", 10.0)
            rest = 20 - len(batch)
            with api.opened(batch.transaction(orders)) as tx:
                for event in batch:
                    tx.save(f"event-{event.data}", event.data)
            while rest:
                rest -= len(more := api.call(sub, "receive", 10.0))
                more.ack()
        with call.opened("subscribe", "t") as sub:
            nothing(api, sub)
        assert len(state("list_keys")) == len(batch)

    @requires("pubsub.inbox")
    def test_handlers(self, call: Call, client: CloudRuntimesClient, state: Call, orders: str, api: Api) -> None:
        count = 60
        seen: list[int] = []

        def sync_handler(event: Any) -> None:
            with event.transaction(orders) as tx:
                tx.save(f"event-{event.data}", event.delivery_count)
                seen.append(event.data)
                if event.data % 10 == 0 and event.delivery_count == 1:
                    raise Broken
            if event.data % 7 == 0:
                raise Broken  # it is settled all the same

        async def async_handler(event: Any) -> None:
            async with event.transaction(orders) as tx:
                tx.save(f"event-{event.data}", event.delivery_count)
                seen.append(event.data)
                if event.data % 10 == 0 and event.delivery_count == 1:
                    raise Broken
            if event.data % 7 == 0:
                raise Broken

        call("publish_bulk", "t", list(range(count)))
        handler = sync_handler if api.name == "sync" else async_handler
        with call.opened("subscribe", "t", handler, workers=4):
            assert api.until(lambda: len(client.state.list_keys(orders)) == count)
        values = {key: item.value for key, item in state("get_bulk", state("list_keys")).items()}
        assert values == {f"event-{n}": 2 if n % 10 == 0 else 1 for n in range(count)}
        assert len(seen) == count + count // 10
        with call.opened("subscribe", "t") as sub:
            nothing(api, sub)

    @requires("pubsub.inbox", "pubsub.ack_wait")
    def test_an_event_that_went_to_another(
        self, call: Call, client: CloudRuntimesClient, state: Call, orders: str, store: str, harness: Harness
    ) -> None:
        """The last to commit is the one that holds the lease."""
        call("publish", "t", 1)
        driver = call.driver()
        request = SubscribeRequest("t", "suite", None, 50.0, None, None, False, None)
        op = Operation(_OPERATION, store, 10.0)
        writes = state.driver()
        slow, fast = driver.subscribe(op, request), driver.subscribe(op, request)
        (lost,) = slow.poll((), 1, 10.0)
        harness.advance(60.0)
        (taken,) = fast.poll((), 1, 10.0)
        assert lost.record.id == taken.record.id
        from ...state.prepare import save_write

        def change(who: str) -> Any:
            return writes.change([save_write("who", who, None, None, None, None, None, None, None)])

        with pytest.raises(ConflictError, match="another member"):
            slow.commit(op, [lost.token], [change("slow")])
        assert state("get", "who") is None
        fast.commit(op, [taken.token], [change("fast")])
        assert state("get", "who") == "fast"
        slow.close(())
        fast.close(())
        with call.opened("subscribe", "t", group="suite") as sub, ThreadPoolExecutor(1) as pool:
            assert pool.submit(sub.receive, 0.3).result() is None
