"""Parents that follow events and calls: what is current where something is sent is the parent where it is handled."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import batch, telemetry
from cloud_runtimes.codec import cloudevents
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.rpc import RpcRequest
from cloud_runtimes.rpc.host import hosts
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.waiting import in_threads

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
REMOTE = f"00-{TRACE}-00f067aa0ba902b7-01"


def here(instance: CloudRuntimesClient) -> dict[str, Any]:
    """Return what a handler sees: the headers that its own calls would have, and whether its parent is remote."""
    headers: dict[str, Any] = {}
    instance.telemetry.inject(headers)
    current = telemetry.current_span()
    return {**headers, "remote": current is not None and current.is_remote}


class Topic:
    """A topic with a handler that notes what it sees; plain or async."""

    def __init__(self, instance: CloudRuntimesClient, name: str, *, is_async: bool, **options: Any) -> None:
        self.trace = instance
        self.name = name
        self.seen: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue()

        async def handle_async(event: Any) -> None:
            self.seen.put((event, here(instance)))

        self.subscription = instance.pubsub.subscribe(
            "bus", name, handle_async if is_async else self._handle, **options  # type: ignore[call-overload]
        )

    def _handle(self, event: Any) -> None:
        self.seen.put((event, here(self.trace)))

    def next(self) -> tuple[Any, dict[str, Any]]:
        return self.seen.get(timeout=30)


def publish(instance: CloudRuntimesClient, topic: str) -> None:
    instance.pubsub.publish("bus", topic, {"n": 1})


def publish_async(instance: CloudRuntimesClient, topic: str) -> None:
    asyncio.run(instance.pubsub.publish_async("bus", topic, {"n": 1}))


def publish_with_attributes(instance: CloudRuntimesClient, topic: str) -> None:
    instance.pubsub.publish("bus", topic, b"\x00", attributes={"subject": "s", "mine": 1})


def publish_bulk(instance: CloudRuntimesClient, topic: str) -> None:
    instance.pubsub.publish_bulk("bus", topic, [OutgoingEvent("text", key="k")])


def publish_bulk_async(instance: CloudRuntimesClient, topic: str) -> None:
    asyncio.run(instance.pubsub.publish_bulk_async("bus", topic, [{"n": 1}]))


def send_first(instance: CloudRuntimesClient, topic: str) -> None:
    with instance.pubsub.publisher("bus", topic) as publisher:
        publisher.send({"n": 1})


def send(instance: CloudRuntimesClient, topic: str) -> None:
    with instance.pubsub.publisher("bus", topic) as publisher:
        context = telemetry.current.set(None)
        publisher.send({"n": 0})  # the first goes another way: it makes the buffer
        telemetry.current.reset(context)
        publisher.send({"n": 1})


def send_text(instance: CloudRuntimesClient, topic: str) -> None:
    with instance.pubsub.publisher("bus", topic) as publisher:
        publisher.send("text", key="k")


def send_with_attributes(instance: CloudRuntimesClient, topic: str) -> None:
    with instance.pubsub.publisher("bus", topic, attributes={"subject": "s"}) as publisher:
        publisher.send({"n": 1}, attributes={"mine": "x"})


def send_async(instance: CloudRuntimesClient, topic: str) -> None:
    async def run() -> None:
        async with instance.pubsub.publisher("bus", topic) as publisher:
            await publisher.send_async([1, 2])

    asyncio.run(run())


WAYS = [
    publish, publish_async, publish_with_attributes, publish_bulk, publish_bulk_async, send_first, send, send_text,
    send_with_attributes, send_async,
]  # fmt: skip


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_event_carries_the_span_that_is_current(client: Make, way: Any, is_async: bool) -> None:
    instance = client(home=":memory:")
    topic = Topic(instance, "t", is_async=is_async)
    with instance.telemetry.tracer("t").span("producer") as span:
        way(instance, "t")
    wanted = {"traceparent": span.context.traceparent, "remote": True}
    if way is send:
        event, seen = topic.next()
        assert (event.traceparent, seen) == (None, {"remote": False})
    event, seen = topic.next()
    assert event.traceparent == span.context.traceparent
    assert seen == wanted
    assert instance.telemetry.extract(event).span_id == span.context.span_id
    way(instance, "t")  # without a span there is nothing, and what was before is gone
    for _ in range(2 if way is send else 1):
        event, seen = topic.next()
        assert (event.traceparent, seen) == (None, {"remote": False})


@pytest.mark.parametrize("way", WAYS)
def test_trace_state_and_baggage_stand_beside_it(client: Make, way: Any) -> None:
    instance = client(home=":memory:")
    topic = Topic(instance, "t", is_async=False)
    parent = instance.telemetry.extract({"traceparent": REMOTE, "tracestate": "a=b,c=d"})
    with (
        instance.telemetry.use_baggage({"user": "a b", "tier": "1"}),
        instance.telemetry.tracer("t").span("producer", parent=parent) as span,
    ):
        way(instance, "t")
    event, seen = topic.next()
    if way is send:  # baggage is there without a span too
        assert (event.traceparent, event.extensions["baggage"]) == (None, "user=a%20b,tier=1")
        event, seen = topic.next()
    assert seen == {
        "traceparent": span.context.traceparent,
        "tracestate": "a=b,c=d",
        "baggage": "user=a%20b,tier=1",
        "remote": True,
    }
    assert event.extensions["tracestate"] == "a=b,c=d"
    document = event.to_json()
    assert b'"traceparent":"' + span.context.traceparent.encode() in document
    assert cloudevents.decode(document).extensions["tracestate"] == "a=b,c=d"


def test_a_context_given_by_hand_wins_whole(client: Make) -> None:
    instance = client(home=":memory:")
    topic = Topic(instance, "t", is_async=False)
    above = telemetry.SpanContext(TRACE, "1" * 16, 1, "x=y")
    with (
        instance.telemetry.tracer("t").span("producer", parent=above),
        instance.pubsub.publisher("bus", "t") as publisher,
    ):
        instance.pubsub.publish("bus", "t", 1, attributes={"traceparent": REMOTE})
        publisher.send({}, attributes={"traceparent": REMOTE, "tracestate": "m=n"})
    assert topic.next()[1] == {"traceparent": REMOTE, "remote": True}
    assert topic.next()[1] == {"traceparent": REMOTE, "tracestate": "m=n", "remote": True}


def test_a_raw_event_has_no_envelope_to_carry_it(client: Make) -> None:
    instance = client(home=":memory:")
    with (
        instance.pubsub.subscribe("bus", "t", raw=True) as events,
        instance.telemetry.tracer("t").span("producer"),
        instance.telemetry.use_baggage({"a": "b"}),
    ):
        instance.pubsub.publish("bus", "t", b"raw", raw=True)
        event = events.receive(30)
    assert event is not None
    assert (event.traceparent, dict(event.extensions), event.data) == (None, {}, b"raw")


def test_a_trace_that_is_not_sampled_stays_so(client: Make) -> None:
    instance = client(home=":memory:", sampler="always_off")
    other = client(home=":memory:", sampler="parentbased_always_on")
    started: queue.Queue[Any] = queue.Queue()

    def handle(event: Any) -> None:
        started.put(other.telemetry.tracer("t").start_span("child"))

    instance.pubsub.subscribe("bus", "t", handle)
    with instance.telemetry.tracer("t").span("producer") as span:
        assert span.context.traceparent.endswith("-00")
        instance.pubsub.publish("bus", "t", 1)
    child = started.get(timeout=30)
    assert (child.context.trace_id, child.is_recording) == (span.context.trace_id, False)


def test_invalid_contexts_are_none(client: Make) -> None:
    instance = client(home=":memory:")
    topic = Topic(instance, "t", is_async=False)
    for given in ({"traceparent": "nonsense"}, {"traceparent": REMOTE, "tracestate": "=", "baggage": "=x"}):
        instance.pubsub.publish("bus", "t", 1, attributes=given)
    assert topic.next()[1] == {"remote": False}
    assert topic.next()[1] == {"traceparent": REMOTE, "remote": True}


@pytest.mark.parametrize("is_async", [False, True])
def test_a_batch_has_no_current_context(client: Make, is_async: bool) -> None:
    instance = client(home=":memory:")
    topic = Topic(instance, "t", is_async=is_async, batch=10)
    with instance.telemetry.tracer("t").span("producer") as span:
        instance.pubsub.publish_bulk("bus", "t", [1, 2])
    seen = 0
    while seen < 2:
        events, what = topic.next()
        assert what == {"remote": False}
        assert {event.traceparent for event in events} == {span.context.traceparent}
        seen += len(events)


def test_a_subscription_does_not_keep_the_span_it_was_made_in(client: Make) -> None:
    instance = client(home=":memory:")

    async def run() -> None:
        seen: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def handle(event: Any) -> None:
            seen.put_nowait(here(instance))

        with instance.telemetry.tracer("t").span("start-up"), instance.telemetry.use_baggage({"a": "b"}):
            subscription = await instance.pubsub.subscribe_async("bus", "t", handle)
        await instance.pubsub.publish_async("bus", "t", 1)
        async with asyncio.timeout(30):
            assert await seen.get() == {"remote": False}
        await subscription.close_async()

    asyncio.run(run())


def test_a_handler_s_spans_are_children(client: Make) -> None:
    instance = client(home=":memory:")
    tracer = instance.telemetry.tracer("t")
    children: queue.Queue[Any] = queue.Queue()

    def handle(event: Any) -> None:
        with tracer.span("child") as child:
            children.put(child)
            instance.pubsub.publish("bus", "further", 1)

    instance.pubsub.subscribe("bus", "t", handle)
    with instance.pubsub.subscribe("bus", "further") as further, tracer.span("producer") as span:
        instance.pubsub.publish("bus", "t", 1)
        event = further.receive(30)
    assert event is not None
    child = children.get(timeout=30)
    assert child.context.trace_id == span.context.trace_id
    assert event.traceparent == child.context.traceparent


# -- RPC ----------------------------------------------------------------------


@pytest.fixture(params=["process", "http"])
def service(request: pytest.FixtureRequest, client: Make, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Client that offers methods, and client that calls them: in the process, or over HTTP."""
    instance = client()

    @instance.rpc.method("plain")
    def plain(data: Any, request: RpcRequest) -> Any:
        return {**here(instance), "seen": request.traceparent}

    @instance.rpc.method("async")
    async def run(data: Any, request: RpcRequest) -> Any:
        return {**here(instance), "seen": request.traceparent}

    @instance.rpc.method("chain")
    def chain() -> Any:
        with instance.telemetry.tracer("t").span("middle") as middle:
            return {
                **instance.rpc.invoke_method(instance._context.settings.app_id, "plain"),
                "middle": middle.context.traceparent,
            }

    if request.param == "process":
        yield instance, instance
        return
    # what this process offers is found first, by whoever asks in it
    monkeypatch.setattr(hosts, "find", lambda app_id: None)
    with instance.rpc.serving():
        yield instance, client()


@pytest.mark.parametrize("method", ["plain", "async"])
def test_a_call_carries_the_span_that_is_current(service: Any, method: str, api: Api) -> None:
    instance, caller = service

    def call(**options: Any) -> Any:
        return api.call(caller.rpc, "invoke_method", "shop", method, 1, **options)

    assert call() == {"remote": False, "seen": None}
    parent = instance.telemetry.extract({"traceparent": REMOTE, "tracestate": "a=b"})
    with (
        instance.telemetry.tracer("t").span("caller", parent=parent) as span,
        instance.telemetry.use_baggage({"k": "v"}),
    ):
        reply = call()
        mine = call(headers={"traceparent": REMOTE})
        bad = call(headers={"traceparent": "nonsense"})
    assert reply == {
        "traceparent": span.context.traceparent,
        "tracestate": "a=b",
        "baggage": "k=v",
        "remote": True,
        "seen": span.context.traceparent,
    }
    assert mine == {"traceparent": REMOTE, "remote": True, "seen": REMOTE}
    assert bad == {"remote": False, "seen": "nonsense"}
    assert telemetry.current_span() is None


def test_the_chain_of_calls_is_one_trace(service: Any) -> None:
    instance, caller = service
    with instance.telemetry.tracer("t").span("caller") as span:
        reply = caller.rpc.invoke_method("shop", "chain")
    assert reply["seen"] == reply["middle"]
    assert reply["middle"][3:35] == span.context.trace_id


def test_what_is_too_long_for_headers_is_left_out(client: Make) -> None:
    instance = client(home=":memory:")

    @instance.rpc.method("m")
    def m(data: Any, request: RpcRequest) -> Any:
        return sorted(request.headers)

    with (
        instance.telemetry.tracer("t").span("caller"),
        instance.telemetry.use_baggage({f"k{n}": "v" * 500 for n in range(16)}),
    ):
        assert instance.rpc.invoke_method("shop", "m") == ["baggage", "traceparent"]
        headers = {"x-long": "x" * (16 * 1024 - 100)}
        assert instance.rpc.invoke_method("shop", "m", headers=headers) == ["traceparent", "x-long"]


# -- speed --------------------------------------------------------------------


@pytest.mark.native_only
@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        (None, {"n": 1}),
        (None, [1]),
        (None, b"1"),
        (None, bytearray(b"1")),
        ("text/plain", "1"),
        ("application/msgpack", {"n": 1}),
    ],
)
@pytest.mark.parametrize("attributes", [None, {"subject": "s", "tenant": "red"}])
def test_send_in_a_span_enters_no_python(
    client: Make, content_type: str | None, data: Any, attributes: dict[str, Any] | None
) -> None:
    if batch.__name__.endswith("_py"):
        pytest.skip("the compiled kernels are not in use")
    instance = client(home=":memory:")
    publisher = instance.pubsub.publisher("bus", "t", linger=5, content_type=content_type, attributes=attributes)
    entered: list[str] = []

    def note(frame: Any, kind: str, _: Any) -> None:
        if kind == "call":
            entered.append(frame.f_code.co_qualname)

    with instance.telemetry.tracer("t").span("producer") as span, instance.pubsub.subscribe("bus", "t") as events:
        publisher.send(data)
        sys.setprofile(note)
        try:
            for _ in range(50):
                publisher.send(data, key="k")
        finally:
            sys.setprofile(None)
        assert not entered
        publisher.flush()
        for _ in range(51):
            event = events.receive(30)
            assert event is not None
            assert event.traceparent == span.context.traceparent
            assert (event.subject, event.extensions) == (("s", {"tenant": "red"}) if attributes else (None, {}))
    publisher.close()


def test_threads_send_under_their_own_spans(client: Make) -> None:
    instance = client(home=":memory:")
    tracer = instance.telemetry.tracer("t")
    wanted: dict[int, str] = {}

    with instance.pubsub.publisher("bus", "t") as publisher, instance.pubsub.subscribe("bus", "t") as events:

        def work(number: int) -> None:
            with tracer.span("s") as span:
                wanted[number] = span.context.traceparent
                for _ in range(200):
                    publisher.send({"thread": number})

        in_threads(*[threading.Thread(target=work, args=(number,)) for number in range(4)])
        for _ in range(800):
            event = events.receive(30)
            assert event is not None
            assert event.traceparent == wanted[event.data["thread"]]
            event.ack()
