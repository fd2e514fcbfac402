"""Handlers by annotation: what the parameters of a handler get, and the applications that run them."""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloud_runtimes import CloudRuntimesClient, lifespan
from cloud_runtimes.configuration import ConfigurationItem
from cloud_runtimes.errors import ClosedError, InvalidArgumentError, PayloadError
from cloud_runtimes.pubsub import Event, EventBatch
from cloud_runtimes.rpc import RpcRequest
from cloud_runtimes.schedule import JobRun

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]


@dataclass
class Order:
    id: int
    total: float = 1.0


@pytest.fixture
def client() -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}}) as client:
        yield client


class Got:
    """Handlers put here what they get."""

    def __init__(self) -> None:
        self.all: queue.Queue[Any] = queue.Queue()

    def take(self) -> Any:
        return self.all.get(timeout=10)


@pytest.fixture
def got() -> Got:
    return Got()


# -- RPC ------------------------------------------------------------------


def test_methods_get_what_they_ask_for(client: CloudRuntimesClient) -> None:
    def data(order: Order) -> str:
        return f"{order!r}"

    def turned(request: RpcRequest, mine: CloudRuntimesClient, order: Order) -> list[Any]:
        return [request.method, mine is client, order.id]

    async def waits(order: Order, request: RpcRequest) -> list[Any]:
        return [order.id, request.method]

    class Called:
        def __call__(self, order: Order) -> int:
            return order.id

        def method(self, order: Order) -> int:
            return order.id

    def rest(*both: Any) -> list[Any]:
        return [type(each).__name__ for each in both]

    def optional(order: Order | None = None, retries: int = 3) -> list[Any]:
        return [None if order is None else order.id, retries]

    def plain(order, request):  # type: ignore[no-untyped-def]
        return [type(order).__name__, type(request).__name__]

    for handler, expected in [
        (data, "Order(id=7, total=1.0)"),
        (turned, ["m", True, 7]),
        (waits, [7, "m"]),
        (Called(), 7),
        (Called().method, 7),
        (functools.partial(data), "Order(id=7, total=1.0)"),
        (rest, ["dict", "RpcRequest"]),
        (optional, [7, 3]),
        (plain, ["dict", "RpcRequest"]),
        (lambda: 5, 5),
    ]:
        client.rpc.register_method("m", handler)  # type: ignore[arg-type]
        assert client.rpc.invoke_method("shop", "m", {"id": 7}) == expected
        client.rpc._host.handlers.clear()


def test_data_that_does_not_fit_an_annotation_is_the_callers_fault(client: CloudRuntimesClient) -> None:
    @client.rpc.method("place")
    def place_order(order: Order) -> None:
        raise AssertionError

    with pytest.raises(PayloadError, match="id"):
        client.rpc.invoke_method("shop", "place", {"id": "seven"})


def test_a_given_type_wins(client: CloudRuntimesClient) -> None:
    def place_order(order: Unknown) -> str:
        return type(order).__name__

    client.rpc.register_method("place", place_order, type=Order)
    assert client.rpc.invoke_method("shop", "place", {"id": 7}) == "Order"


@pytest.mark.parametrize(
    ("handler", "said"), [(lambda one, two, three: None, "needs 'three' too"), (lambda *, one: None, "needs 'one' too")]
)
def test_handlers_that_ask_for_more(client: CloudRuntimesClient, handler: Callable[..., Any], said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        client.rpc.register_method("m", handler)
    with pytest.raises(InvalidArgumentError, match=said):
        client.schedule.job("j")(handler)


def test_data_is_there_once(client: CloudRuntimesClient) -> None:
    def twice(order: Order, again: Order) -> None: ...

    with pytest.raises(InvalidArgumentError, match="needs 'again' too"):
        client.rpc.register_method("m", twice)


def test_annotations_that_cannot_be_resolved(client: CloudRuntimesClient) -> None:
    def unknown(order: Unknown) -> None: ...

    def inner(event: Event[Unknown]) -> None: ...

    def request(request: RpcRequest) -> None: ...

    for register in (
        lambda: client.rpc.register_method("m", unknown),
        lambda: client.pubsub.subscribe("b", "t", inner),
    ):
        with pytest.raises(InvalidArgumentError, match=r"cannot be resolved.*outside of TYPE_CHECKING.*type="):
            register()
    client.rpc.register_method("m", request)


# -- pub/sub --------------------------------------------------------------


def test_events(client: CloudRuntimesClient, got: Got) -> None:
    def data(order: Order) -> None:
        got.all.put(order)

    def event(event: Event[Order]) -> None:
        got.all.put(event.data)

    def both(order: Order, event: Event, mine: CloudRuntimesClient) -> None:
        got.all.put((order, event.topic, mine is client))

    def any_of(event: Any) -> None:
        got.all.put(type(event))

    def orders(orders: list[Order]) -> None:
        got.all.put(orders)

    def batch(batch: EventBatch[Order]) -> None:
        got.all.put([each.data for each in batch])

    async def waits(order: Order) -> None:
        got.all.put(order)

    client.pubsub.publish("bus", "orders", {"id": 7})
    order = Order(7)
    for index, (handler, options, expected) in enumerate(
        [
            (data, {}, order),
            (event, {}, order),
            (both, {}, (order, "orders", True)),
            (any_of, {}, Event),
            (lambda event: got.all.put(type(event)), {}, Event),
            (orders, {"batch": 10}, [order]),
            (batch, {"batch": 10}, [order]),
            (waits, {}, order),
        ]
    ):
        with client.pubsub.subscribe("bus", "orders", handler, group=f"g{index}", **options):  # type: ignore[call-overload]
            assert got.take() == expected


def test_events_that_do_not_fit_an_annotation_are_dead_letters(client: CloudRuntimesClient, got: Got) -> None:
    def data(order: Order) -> None:
        raise AssertionError

    client.pubsub.publish("bus", "orders", {"id": "seven"})
    with client.pubsub.subscribe("bus", "orders", data, dead_letter_topic="dead"):
        with client.pubsub.subscribe("bus", "dead", lambda event: got.all.put(event.extensions["dlreason"])):
            assert got.take() == "undecodable"


def test_handlers_of_batches_and_of_events(client: CloudRuntimesClient) -> None:
    def one(event: Event[Order]) -> None: ...

    def many(events: EventBatch[Order]) -> None: ...

    def data(order: Order) -> None: ...

    subscribe: Any = client.pubsub.subscribe
    with pytest.raises(InvalidArgumentError, match="with batch=5 it gets an EventBatch, not an Event"):
        subscribe("bus", "orders", one, batch=5)
    with pytest.raises(InvalidArgumentError, match="without batch= it gets an Event, not an EventBatch"):
        subscribe("bus", "orders", many)
    with pytest.raises(InvalidArgumentError, match=r"the data is a list: annotate it as list\[…\]"):
        subscribe("bus", "orders", data, batch=5)


# -- configuration, schedule ----------------------------------------------


def test_configuration(client: CloudRuntimesClient, got: Got) -> None:
    def handle(mine: CloudRuntimesClient, items: dict[str, ConfigurationItem]) -> None:
        got.all.put((mine is client, {key: item.value for key, item in items.items()}))

    client.configuration.save_configuration("store", {"a": "1"})
    with client.configuration.subscribe_configuration("store", handler=handle):
        assert got.take() == (True, {"a": "1"})


def test_jobs(client: CloudRuntimesClient, got: Got) -> None:
    @client.schedule.job("nightly")
    def nightly(run: JobRun, mine: CloudRuntimesClient, order: Order) -> None:
        got.all.put((run.name, mine is client, order))

    client.schedule.schedule_job("nightly", due_time=timedelta(0), data=Order(7))
    with client.schedule.running():
        assert got.take() == ("nightly", True, Order(7))


# -- applications ---------------------------------------------------------


def shop(client: CloudRuntimesClient, got: Got) -> None:
    """Register one of each."""

    @client.rpc.method("place")
    def place_order(order: Order, mine: CloudRuntimesClient) -> None:
        mine.pubsub.publish("bus", "orders", order)

    @client.pubsub.subscription("bus", "orders", group="workers")
    async def handle(order: Order) -> None:
        got.all.put(order)

    @client.schedule.job("nightly")
    def nightly(run: JobRun) -> None:
        got.all.put(run.name)


def test_an_application_runs_what_is_registered(client: CloudRuntimesClient, got: Got) -> None:
    shop(client, got)
    application = client.running()
    with application:
        assert application.address is not None
        assert application.address.startswith("http://127.0.0.1:")
        client.rpc.invoke_method("shop", "place", Order(7))
        assert got.take() == Order(7)
        client.schedule.schedule_job("nightly", due_time=timedelta(0))
        assert got.take() == "nightly"
    client.pubsub.publish("bus", "orders", Order(8))
    with pytest.raises(queue.Empty):
        got.all.get(timeout=0.2)
    with pytest.raises(ClosedError), application:
        pass


def test_an_application_in_a_loop(client: CloudRuntimesClient, got: Got) -> None:
    shop(client, got)

    async def main() -> None:
        async with client.running() as application:
            assert application.address is not None
            await client.rpc.invoke_method_async("shop", "place", Order(7))
            assert await asyncio.to_thread(got.take) == Order(7)

    asyncio.run(main())


def test_the_lifespan_of_an_asgi_application(client: CloudRuntimesClient, got: Got) -> None:
    shop(client, got)

    async def main() -> None:
        for number in range(2):  # as tests of such an application do
            async with lifespan(client)(None):
                client.pubsub.publish("bus", "orders", Order(number))
                assert await asyncio.to_thread(got.take) == Order(number)

    asyncio.run(main())


def test_an_application_ends_with_its_client(got: Got) -> None:
    client = CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}})
    shop(client, got)

    async def main() -> None:
        running = asyncio.create_task(client.run_async())
        await client.pubsub.publish_async("bus", "orders", Order(1))
        assert await asyncio.to_thread(got.take) == Order(1)
        await client.close_async()
        await asyncio.wait_for(running, 10)

    asyncio.run(main())


def test_nothing_to_run(client: CloudRuntimesClient) -> None:
    with pytest.raises(InvalidArgumentError, match="nothing is registered to run"):
        client.run()


def test_a_group_has_one_handler(client: CloudRuntimesClient) -> None:
    def handle(order: Order) -> None: ...

    client.pubsub.subscription("bus", "orders", group="a")(handle)
    client.pubsub.subscription("bus", "orders", group="b")(handle)
    with pytest.raises(InvalidArgumentError, match="the group 'a' has a handler already"):
        client.pubsub.subscription("bus", "orders", group="a")(handle)
    with pytest.raises(InvalidArgumentError, match="workers"):
        client.pubsub.subscription("bus", "orders", group="c", workers=0)(handle)


def test_subscriptions_can_be_entered_and_awaited(client: CloudRuntimesClient) -> None:
    async def main() -> None:
        await client.pubsub.publish_async("bus", "orders", 1)
        async with client.pubsub.subscribe_async("bus", "orders") as events:
            event = await events.receive_async(10)
            assert event is not None
            event.ack()
        async with await client.pubsub.subscribe_async("bus", "orders", group="other") as events:
            assert await events.receive_async(10) is not None
        task = asyncio.create_task(client.pubsub.subscribe_async("bus", "orders", group="third"))
        async with await task as events:
            assert await events.receive_async(10) is not None
        async with client.configuration.subscribe_configuration_async("store") as values:
            assert await values.receive_async(10) == {}

    asyncio.run(main())
