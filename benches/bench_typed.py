"""Typed payloads and plain handlers, as users write them: dataclasses, and a handler for each event."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import pydantic
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.codec import json
from cloud_runtimes.pubsub import Event, EventBatch
from tests.support import redis

COUNT = 5000
SLICE = 2000


@dataclass
class Order:
    id: str
    sku: str
    qty: int
    price: float


@dataclass
class Line:
    sku: str
    qty: int
    price: float


@dataclass
class Basket:
    id: str
    lines: list[Line]


class OrderStruct(msgspec.Struct):
    id: str
    sku: str
    qty: int
    price: float


class OrderModel(pydantic.BaseModel):
    id: str
    sku: str
    qty: int
    price: float


ORDER = {"id": "o-1000017", "sku": "sku-4711", "qty": 3, "price": 19.99}
BASKET = Basket("o-1000017", [Line(f"sku-{number}", number, 1.5 * number + 0.49) for number in range(5)])
KINDS: dict[str, tuple[Callable[..., Any], float]] = {
    "dataclass": (Order, 0.87),
    "msgspec.Struct": (OrderStruct, 1.0),
}


@pytest.fixture
def client() -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="bench", config={"capa": {"home": ":memory:"}}) as made:
        yield made


class Sending:
    """Sends objects that were made before, each of them once; what leaves the buffer is timed by nobody."""

    def __init__(self, client: CloudRuntimesClient, topic: str, make: Callable[[], Any]) -> None:
        self._publisher = client.pubsub.publisher("bus", topic, delivery_timeout=600)
        self._make = make
        self._values: list[Any] = []

    def prepare(self) -> None:
        """Make the objects of a slice."""
        self._publisher.flush()
        self._values = [self._make() for _ in range(SLICE)]

    def send(self) -> None:
        """Send them."""
        send = self._publisher.send
        for value in self._values:
            send(value)


@pytest.mark.parametrize("kind", KINDS)
def bench_send(beside: Any, client: CloudRuntimesClient, kind: str) -> None:
    make, goal = KINDS[kind]
    values = tuple(ORDER.values())
    ours, theirs = Sending(client, "t", lambda: make(*values)), Sending(client, "d", lambda: dict(ORDER))

    def prepare() -> None:
        ours.prepare()
        theirs.prepare()

    beside(
        f"send of a {kind}",
        ours.send,
        {"send of a dict": theirs.send},
        goals={"send of a dict": goal},
        per=SLICE,
        unit="event",
        slices=True,
        before=prepare,
        clocks={"CPU of the thread": time.thread_time},
    )


def bench_send_model(beside: Any, client: CloudRuntimesClient) -> None:
    ours = Sending(client, "t", lambda: OrderModel(**ORDER))  # type: ignore[arg-type]
    publisher = client.pubsub.publisher("bus", "b", delivery_timeout=600)

    def dumped() -> None:
        for model in ours._values:
            publisher.send(model.model_dump_json().encode())

    beside(
        "send of a pydantic model",
        ours.send,
        {"model_dump_json and send of bytes": dumped},
        goals={"model_dump_json and send of bytes": 0.91},
        per=SLICE,
        unit="event",
        slices=True,
        before=ours.prepare,
        clocks={"CPU of the thread": time.thread_time},
    )


@pytest.mark.parametrize("cls", [Order, Basket], ids=["4 fields", "nested, 5 x 3 fields"])
def bench_decode(beside: Any, cls: Any, request: pytest.FixtureRequest) -> None:
    cattrs = pytest.importorskip("cattrs")
    value = Order(**ORDER) if cls is Order else BASKET  # type: ignore[arg-type]
    data = json.encode(value)
    decoder, adapter = msgspec.json.Decoder(cls), pydantic.TypeAdapter(cls)
    converter = cattrs.Converter()
    peers: dict[str, Callable[[], Any]] = {
        "msgspec": lambda: decoder.decode(data),
        "pydantic": lambda: adapter.validate_json(data),
        "cattrs over orjson": lambda: converter.structure(orjson.loads(data), cls),
        "orjson, to a dict": lambda: orjson.loads(data),
    }
    assert json.decode(data, type=cls) == decoder.decode(data) == adapter.validate_json(data) == value
    name = request.node.callspec.id
    beside(f"decode into a dataclass, {name}", lambda: json.decode(data, type=cls), peers, goals={"msgspec": 0.77})


def bench_data(beside: Any, client: CloudRuntimesClient) -> None:
    """`event.data` of events that were just received, beside orjson on their payloads."""
    subscription = client.pubsub.subscribe("bus", "t", batch=SLICE, max_in_flight=10 * SLICE)
    publisher = client.pubsub.publisher("bus", "t")
    batch: list[Any] = []
    payloads: list[bytes] = []

    def fill() -> None:
        for _ in range(SLICE):
            publisher.send(ORDER)
        publisher.flush()
        batch.clear()
        while len(batch) < SLICE:
            got = subscription.receive(10)
            assert got is not None
            batch.extend(got)
            got.ack()
        payloads[:] = [orjson.dumps(event.data) for event in batch]
        for event in batch:
            event._decoded = False

    def ours() -> None:
        for event in batch:
            event.data  # noqa: B018

    def loads() -> None:
        for each in payloads:
            orjson.loads(each)

    beside(
        "event.data",
        ours,
        {"orjson.loads": loads},
        goals={"orjson.loads": 0.71},
        per=SLICE,
        unit="event",
        slices=True,
        before=fill,
        clocks={"CPU of the thread": time.thread_time},
    )


class Handled:
    """Handlers that count, and the end of a slice."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._remaining = count
        self.done = threading.Event()

    def take(self, count: int = 1) -> None:
        self._remaining -= count
        if self._remaining <= 0:
            self._remaining = self._count
            self.done.set()

    def handlers(self) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
        """Return handlers by what they take, with the options of their subscriptions."""

        def untouched(batch: EventBatch[Any]) -> None:
            self.take(len(batch))

        def event(event: Event[Any]) -> None:
            self.take()

        def data(event: Event[Any]) -> None:
            assert event.data["qty"] == 3
            self.take()

        def plain(order: dict[str, Any]) -> None:
            assert order["qty"] == 3
            self.take()

        def typed(order: Order) -> None:
            assert order.qty == 3
            self.take()

        async def waiting(order: Order) -> None:
            assert order.qty == 3
            self.take()

        return {
            "batches of 500, untouched": (untouched, {"batch": 500}),
            "Event": (event, {}),
            "Event and its data": (data, {}),
            "dict": (plain, {}),
            "dataclass": (typed, {}),
            "dataclass, async": (waiting, {}),
        }


HANDLERS = {"Event": 0, "Event and its data": 0, "dict": 0, "dataclass": 4.5, "dataclass, async": 5.5}


@pytest.mark.parametrize("kind", HANDLERS)
def bench_handler(beside: Any, client: CloudRuntimesClient, kind: str) -> None:
    """CPU of the process, from the subscription to the last answer."""
    handled = Handled(COUNT)
    publisher = client.pubsub.publisher("bus", "t")
    handlers = handled.handlers()

    def taking(name: str, group: str) -> Callable[[], None]:
        handler, options = handlers[name]

        def take() -> None:
            handled.done.clear()
            with client.pubsub.subscribe("bus", "t", handler, group=group, start="earliest", **options):
                assert handled.done.wait(60)
            assert client.pubsub.lag("bus", "t", group=group) == 0

        return take

    for group in ("ours", "batches"):
        client.pubsub.subscribe("bus", "t", group=group).close()

    def fill() -> None:
        for _ in range(COUNT):
            publisher.send(ORDER)
        publisher.flush()

    batches = "batches of 500, untouched"
    goal = HANDLERS[kind]
    beside(
        f"handler of {kind}",
        taking(kind, "ours"),
        {batches: taking(batches, "batches")},
        goals={batches: round(1 / goal, 2)} if goal else None,
        per=COUNT,
        unit="event",
        slices=True,
        before=fill,
        clocks={"CPU of the process": time.process_time},
    )


class FastStream:
    """The same dataclass by FastStream's own handlers, from a stream with a group, acknowledged."""

    count = 1000

    def __init__(self, url: str, batch: int | None) -> None:
        self._redis = pytest.importorskip("faststream.redis")
        self._url = url
        self._batch = batch

    async def fill(self) -> None:
        """Publish a slice."""
        async with self._redis.RedisBroker(self._url, logger=None) as broker:
            async with broker._connection.pipeline(transaction=False) as pipeline:
                for _ in range(self.count):
                    await broker.publish(ORDER, stream="fast", pipeline=pipeline)
                await pipeline.execute()

    async def handle(self) -> None:
        """Handle a slice."""
        broker = self._redis.RedisBroker(self._url, logger=None)
        done = asyncio.Event()
        remaining = self.count
        stream = self._redis.StreamSub(
            "fast",
            group="fast",
            consumer="m",
            max_records=self._batch or 100,
            batch=bool(self._batch),
            polling_interval=10,
        )

        def take(count: int) -> None:
            nonlocal remaining
            remaining -= count
            if remaining <= 0:
                done.set()

        async def one(order: Order) -> None:
            assert order.qty == 3
            take(1)

        async def many(orders: list[Order]) -> None:
            assert orders[0].qty == 3
            take(len(orders))

        broker.subscriber(stream=stream)(many if self._batch else one)
        await broker.start()
        await asyncio.wait_for(done.wait(), 60)
        await broker.stop()


@pytest.mark.parametrize("batch", [None, 100], ids=["one by one", "batches of 100"])
def bench_handler_on_redis(beside: Any, batch: int | None) -> None:
    from redis import Redis

    with (
        redis.serve("redis") as server,
        CloudRuntimesClient(app_id="bench", config={"capa": {"home": server.url}}) as client,
        Redis.from_url(server.url) as peer,
    ):
        theirs, handled = FastStream(server.url, batch), Handled(COUNT)
        publisher = client.pubsub.publisher("bus", "t")
        client.pubsub.subscribe("bus", "t", group="ours").close()
        peer.xgroup_create("fast", "fast", mkstream=True)

        def typed(order: Order) -> None:
            assert order.qty == 3
            handled.take()

        def typed_batch(orders: list[Order]) -> None:
            assert orders[0].qty == 3
            handled.take(len(orders))

        def fill() -> None:
            for _ in range(COUNT):
                publisher.send(ORDER)
            publisher.flush()
            asyncio.run(theirs.fill())

        def ours() -> None:
            handled.done.clear()
            handler: Callable[..., Any] = typed if batch is None else typed_batch
            with client.pubsub.subscribe("bus", "t", handler, group="ours", batch=batch):
                assert handled.done.wait(60)

        beside(
            f"typed handler on Redis, {'one by one' if batch is None else f'batches of {batch}'}",
            ours,
            {"FastStream": lambda: asyncio.run(theirs.handle())},
            goals={"FastStream": 30 if batch is None else 6},
            per=COUNT,
            each={"FastStream": theirs.count},
            unit="event",
            slices=True,
            before=fill,
            clocks={"CPU of the process": time.process_time},
        )


def bench_logging(beside: Any, note: Any, client: CloudRuntimesClient) -> None:
    """Our handler beside one that does nothing: the difference is what it adds to the logging module."""

    class Nothing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            pass

    loggers = {}
    for name, handler in (("ours", client.telemetry.logging_handler()), ("nothing", Nothing())):
        logger = loggers[name] = logging.getLogger(f"bench.{name}")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    ratios = beside(
        "a record of the logging module",
        lambda: loggers["ours"].info("order %s of %d placed", "o-17", 3),
        {"a handler that does nothing": lambda: loggers["nothing"].info("order %s of %d placed", "o-17", 3)},
    )
    note(
        f"our logging handler takes {1 / ratios['a handler that does nothing'] - 1:.0%} of what the logging module itself takes"
    )
