"""Typed payloads and plain handlers, as users write them: dataclasses, and a handler for each event."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import pydantic
import pytest

from benches.typed_peers import COUNT, ORDER, Celery, FastStream, Handled, Order, Taskiq
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.codec import json, msgpack
from cloud_runtimes.pubsub import Event, EventBatch
from tests.support import redis

SLICE = 2000


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

    def __init__(
        self,
        client: CloudRuntimesClient,
        topic: str,
        make: Callable[[], Any],
        attributes: Callable[[int], dict[str, Any]] | None = None,
    ) -> None:
        self._publisher = client.pubsub.publisher("bus", topic, delivery_timeout=600)
        self._make = make
        self._attributes = attributes
        self._given: list[dict[str, Any]] = []
        self._values: list[Any] = []

    def prepare(self) -> None:
        """Make the objects of a slice."""
        self._publisher.flush()
        self._values = [self._make() for _ in range(SLICE)]
        if self._attributes is not None:
            self._given = [self._attributes(number) for number in range(SLICE)]

    def send(self) -> None:
        """Send them."""
        send = self._publisher.send
        for value in self._values:
            send(value)

    def send_with_attributes(self) -> None:
        """Send them with attributes of their own."""
        send = self._publisher.send
        for value, given in zip(self._values, self._given, strict=True):
            send(value, attributes=given)


def bench_send_attributes(beside: Any, client: CloudRuntimesClient) -> None:
    def attributes(number: int) -> dict[str, Any]:
        return {"id": f"order-{number}", "type": "shop.order.created", "subject": f"orders/{number}", "tenant": "red"}

    ours = Sending(client, "a", lambda: dict(ORDER), attributes)
    theirs = Sending(client, "d", lambda: dict(ORDER))

    def prepare() -> None:
        ours.prepare()
        theirs.prepare()

    beside(
        "send of a dict with four attributes",
        ours.send_with_attributes,
        {"send of a dict": theirs.send},
        per=SLICE,
        unit="event",
        slices=True,
        before=prepare,
        clocks={"CPU of the thread": time.thread_time},
    )


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


@pytest.mark.parametrize("way", ["of", "into"])
@pytest.mark.parametrize("value", [Order(**ORDER), BASKET], ids=["4 fields", "nested, 5 x 3 fields"])  # type: ignore[arg-type]
def bench_messagepack(beside: Any, value: Any, way: str, request: pytest.FixtureRequest) -> None:
    cls, encoder = type(value), msgspec.msgpack.Encoder()
    data, text, decoder = msgpack.encode(value), json.encode(value), msgspec.msgpack.Decoder(cls)
    assert encoder.encode(value) == data
    assert msgpack.decode(data, type=cls) == decoder.decode(data) == value
    ours: Callable[[], Any]
    if way == "of":
        ours, theirs, other = lambda: msgpack.encode(value), lambda: encoder.encode(value), lambda: json.encode(value)
    else:
        ours, theirs = lambda: msgpack.decode(data, type=cls), lambda: decoder.decode(data)
        other = lambda: json.decode(text, type=cls)  # noqa: E731
    name = request.node.callspec.id.removesuffix(f"-{way}")
    beside(f"MessagePack {way} a dataclass, {name}", ours, {"msgspec": theirs, "ours, JSON": other})


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


class Handlers(Handled):
    """Handlers that count, by what they take."""

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

    def taking(self, client: CloudRuntimesClient, kind: str, group: str) -> Callable[[], None]:
        """Return what handles a slice by the handler of a kind, for a group that begins here."""
        handler, options = self.handlers()[kind]
        client.pubsub.subscribe("bus", "t", group=group).close()

        def take() -> None:
            self.done.clear()
            with client.pubsub.subscribe("bus", "t", handler, group=group, start="earliest", **options):
                assert self.done.wait(60)
            assert client.pubsub.lag("bus", "t", group=group) == 0

        return take


def fill(client: CloudRuntimesClient) -> None:
    """Send the events of a slice."""
    publisher = client.pubsub.publisher("bus", "t")
    for _ in range(COUNT):
        publisher.send(ORDER)
    publisher.flush()


HANDLERS = {"Event": 0, "Event and its data": 0, "dict": 0, "dataclass": 4.5, "dataclass, async": 5.5}


@pytest.mark.parametrize("kind", HANDLERS)
def bench_handler(beside: Any, client: CloudRuntimesClient, kind: str) -> None:
    """CPU of the process, from the subscription to the last answer."""
    handled = Handlers(COUNT)
    batches = "batches of 500, untouched"
    ours, theirs = handled.taking(client, kind, "ours"), handled.taking(client, batches, "batches")
    goal = HANDLERS[kind]
    beside(
        f"handler of {kind}",
        ours,
        {batches: theirs},
        goals={batches: round(1 / goal, 2)} if goal else None,
        per=COUNT,
        unit="event",
        slices=True,
        before=lambda: fill(client),
        clocks={"CPU of the process": time.process_time},
    )


@pytest.mark.parametrize("peer", [Celery, Taskiq])
def bench_handler_and_tasks(beside: Any, client: CloudRuntimesClient, peer: type[Celery | Taskiq]) -> None:
    theirs = peer()
    kind = "dataclass" if peer is Celery else "dataclass, async"
    ours = Handlers(COUNT).taking(client, kind, "ours")

    def before() -> None:
        fill(client)
        theirs.fill()

    name, goal = ("Celery", 30) if peer is Celery else ("taskiq", 5)
    beside(
        f"handler of {kind}, beside tasks",
        ours,
        {name: theirs.handle},
        goals={name: goal},
        per=COUNT,
        unit="event",
        slices=True,
        before=before,
        clocks={"CPU of the process": time.process_time},
    )


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
