"""Publish and subscribe of the runtime dapr: publishing over HTTP, and what of streams the suite does not show."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import grpc
import pytest

from cloud_runtimes import CloudRuntimesClient, errors
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.errors import (
    ComponentNotFoundError,
    InternalError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.protocols.dapr.messages import messages
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.testing import Api
from tests.support import grpc_forks
from tests.support.ports import reserved_port
from tests.support.waiting import until

SOON = 20.0


def take(sub: Any, count: int) -> list[Any]:
    events = []
    while len(events) < count:
        event = sub.receive(SOON)
        assert event is not None, f"only {len(events)} of {count} came"
        event.ack()
        events.append(event)
    return events


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Sidecar]:
    beneath = CloudRuntimesClient(config={"capa": {"home": ":memory:dapr-pubsub"}}, app_id="shop")
    with beneath, Sidecar(beneath, SidecarSettings(app_id="shop", http_port=0, grpc_port=0)) as server:
        yield server


@pytest.fixture
def over_http(sidecar: Sidecar) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(sidecar.http_address, app_id="shop") as client:
        yield client


@pytest.fixture
def over_grpc(sidecar: Sidecar) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", app_id="shop") as client:
        yield client


# -- publishing over HTTP ----------------------------------------------------------


def test_over_http_events_arrive_as_they_were(
    over_http: CloudRuntimesClient, over_grpc: CloudRuntimesClient, api: Api
) -> None:
    sent = [b"", b"\x00\xff", 1, 2**63 - 1, 0.1, 1e300, 2.0, None, "", "text", "ünïcødé 🎉", {"a": [1.5, None]}, []]
    attributes = {"id": "mine", "subject": "s", "time": "2025-01-15T09:30:12Z", "level": 7, "urgent": True}
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with over_grpc.pubsub.subscribe("bus", f"http-{api}") as sub:
        for value in sent:
            api.call(over_http.pubsub, "publish", "bus", f"http-{api}", value)
        api.call(over_http.pubsub, "publish_bulk", "bus", f"http-{api}", sent)
        options = {"key": "k", "attributes": {**attributes, "traceparent": trace, "tracestate": "a=b"}}
        api.call(over_http.pubsub, "publish", "bus", f"http-{api}", "x", content_type="text/plain", **options)
        *events, last = take(sub, 2 * len(sent) + 1)
    got = [event.data for event in events]
    assert got == sent + sent
    assert [type(value) for value in got] == [type(value) for value in sent + sent]
    assert (last.id, last.subject, last.key, last.traceparent) == ("mine", "s", "k", trace)
    assert dict(last.extensions) == {"level": 7, "urgent": True, "tracestate": "a=b"}
    assert (last.source, last.type, last.topic, last.pubsub_name) == (
        "shop", "cloud_runtimes.event", f"http-{api}", "bus",
    )  # fmt: skip


def test_over_http_raw_ttl_and_what_is_not_there(
    over_http: CloudRuntimesClient, over_grpc: CloudRuntimesClient, api: Api
) -> None:
    with over_grpc.pubsub.subscribe("bus", f"raw-{api}", raw=True) as sub:
        api.call(over_http.pubsub, "publish", "bus", f"raw-{api}", b"\x01", raw=True)
        api.call(over_http.pubsub, "publish", "bus", f"raw-{api}", "in an envelope", ttl=60)
        plain, wrapped = take(sub, 2)
    assert plain.data == b"\x01"
    assert json.loads(wrapped.data)["data"] == "in an envelope"
    api.fails(UnsupportedError)(over_http.pubsub, "publish", "bus", "t", 1, delay=1)


def test_others_see_plain_json(over_grpc: CloudRuntimesClient, sidecar: Sidecar) -> None:
    with over_grpc.pubsub.subscribe("bus", "plain") as sub:
        over_grpc.pubsub.publish("bus", "plain", {"n": [1, True]}, key="k")
        [event] = take(sub, 1)
    document = json.loads(event.to_json())
    assert document["data"] == {"n": [1, True]}
    assert document["partitionkey"] == "k"


def test_an_event_that_no_message_holds(sidecar: Sidecar) -> None:
    config = {"dapr": {"max_message": "128KiB"}}
    with CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", config=config) as client:
        limit = client.pubsub._frame.driver("bus").max_event_bytes
        assert limit == 48 << 10
        client.pubsub.publish("bus", "large", bytes(limit))
        client.pubsub.publish_bulk("bus", "large", [bytes(limit)] * 3)  # one after the other
        with pytest.raises(ResourceExhaustedError):
            client.pubsub.publish("bus", "large", bytes(limit + 1))
        with pytest.raises(ResourceExhaustedError, match="max_message"):
            client.pubsub.publish("bus", "large", bytes(limit), attributes={"long": "x" * 65_500})


# -- answers -------------------------------------------------------------------------


def test_a_retry_is_held_back_and_a_drop_goes_to_the_dead_letters(over_grpc: CloudRuntimesClient) -> None:
    with over_grpc.pubsub.subscribe("bus", "held") as sub:
        over_grpc.pubsub.publish("bus", "held", 1)
        event = sub.receive(SOON)
        before = time.monotonic()
        event.retry(delay=0.3)
        [again] = take(sub, 1)
        assert time.monotonic() - before > 0.25
        assert (again.id, again.delivery_count) == (event.id, None)
    with over_grpc.pubsub.subscribe("bus", "lost") as dead:
        with over_grpc.pubsub.subscribe("bus", "held", dead_letter_topic="lost") as sub:
            over_grpc.pubsub.publish("bus", "held", "bad")
            sub.receive(SOON).drop()
            [letter] = take(dead, 1)
    assert (letter.data, letter.topic) == ("bad", "held")


def test_many_in_flight_are_each_answered_once(over_grpc: CloudRuntimesClient) -> None:
    seen: list[int] = []
    lock = threading.Lock()

    def handle(event: Any) -> None:
        with lock:
            seen.append(event.data)

    with over_grpc.pubsub.subscribe("bus", "many", handle, workers=8, max_in_flight=200):
        over_grpc.pubsub.publish_bulk("bus", "many", list(range(2000)))
        end = time.monotonic() + SOON
        while len(seen) < 2000 and time.monotonic() < end:
            time.sleep(0.01)
    with over_grpc.pubsub.subscribe("bus", "many") as sub:
        assert sub.receive(0.3) is None
    assert sorted(seen) == list(range(2000))


# -- connections ------------------------------------------------------------------------


class Streams:
    """A server of streams that the test drives: what came is in ``came``, what is put into ``say`` goes out; an exception ends it."""

    def __init__(self) -> None:
        self.came: Queue[Any] = Queue()
        self.say: Queue[Any] = Queue()
        self.opened = 0
        self.extensions: Any = None
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((self,))
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service_name(self) -> str:
        return ""

    def service(self, details: Any) -> Any:
        kinds = messages()
        return grpc.stream_stream_rpc_method_handler(
            self._stream,
            kinds.SubscribeTopicEventsRequestAlpha1.FromString,
            lambda message: message.SerializeToString(),
        )

    def _stream(self, requests: Any, context: Any) -> Iterator[Any]:
        kinds = messages()
        self.opened += 1
        mine = self.opened
        assert next(requests).HasField("initial_request")
        over = threading.Event()

        def read() -> None:
            try:
                for request in requests:
                    self.came.put((mine, request.event_processed.id, request.event_processed.status.status))
                self.came.put((mine, "end", 0))
            except Exception:  # the stream is gone
                pass
            over.set()

        threading.Thread(target=read, daemon=True).start()
        yield kinds.SubscribeTopicEventsResponseAlpha1(
            initial_response=kinds.SubscribeTopicEventsResponseInitialAlpha1()
        )
        while not over.is_set():
            try:
                what = self.say.get(timeout=0.02)
            except Empty:
                continue
            if isinstance(what, grpc.StatusCode):
                context.abort(what, "stream closed")
            event = kinds.TopicEventRequest(
                extensions=self.extensions,
                id=what,
                source="s",
                type="t",
                spec_version="1.0",
                data_content_type="application/json",
                data=b"1",
            )
            yield kinds.SubscribeTopicEventsResponseAlpha1(event_message=event)

    def close(self) -> None:
        self._server.stop(None).wait()


@contextmanager
def streams() -> Iterator[tuple[Streams, CloudRuntimesClient]]:
    server = Streams()
    try:
        with CloudRuntimesClient(server.url, app_id="shop") as client:
            yield server, client
    finally:
        server.close()


def test_answers_go_to_the_connection_that_brought_the_event() -> None:
    with streams() as (server, client), client.pubsub.subscribe("bus", "t") as sub:
        for id in ("a", "b", "c"):
            server.say.put(id)
        a, b, c = (sub.receive(SOON) for _ in range(3))
        b.ack()
        assert server.came.get(timeout=SOON) == (1, "b", 0)
        server.say.put(grpc.StatusCode.UNKNOWN)  # as Dapr ends them
        server.say.put("a")  # and again on the next
        again = sub.receive(SOON)
        assert (again.id, server.opened) == ("a", 2)
        a.ack()  # of the connection that is gone: no answer to the new one
        c.drop()
        again.retry(delay=0)
        while (came := server.came.get(timeout=SOON)) == (1, "end", 0):
            pass  # of the connection that is gone
        assert came == (2, "a", 1)
        assert server.came.empty()


def test_attributes_of_others() -> None:
    with streams() as (server, client), client.pubsub.subscribe("bus", "t") as sub:
        extensions = messages().Struct()
        extensions.update(
            {"Not_Ours": "x", "level": 7, "ratio": 1.5, "list": [1], "none": None, "topic": "t", "traceid": ""}
        )
        server.extensions = extensions
        server.say.put("a")
        event = sub.receive(SOON)
        assert (event.id, event.data, dict(event.extensions)) == ("a", 1, {"level": 7})
        extensions.update({"time": "yesterday"})  # which no event of CloudEvents has: it is left out, not the event
        server.say.put("b")
        event = sub.receive(SOON)
        assert (event.id, event.data) == ("b", 1)


def test_closing_answers_first() -> None:
    with streams() as (server, client):
        sub = client.pubsub.subscribe("bus", "t")
        for id in ("a", "b", "c"):
            server.say.put(id)
        a, _, c = (sub.receive(SOON) for _ in range(3))
        a.ack()
        c.drop()
        sub.close()
        assert [server.came.get(timeout=SOON) for _ in range(3)] == [(1, "a", 0), (1, "c", 2), (1, "end", 0)]


def test_a_subscription_that_is_refused(api: Api) -> None:
    with streams() as (server, client):
        sub = client.pubsub.subscribe("bus", "t")
        server.say.put(grpc.StatusCode.PERMISSION_DENIED)
        api.fails(PermissionDeniedError)(sub, "receive", SOON)
    with CloudRuntimesClient("grpc://127.0.0.1:1") as client, pytest.raises(UnavailableError):
        api.call(client.pubsub, "subscribe", "bus", "t")


def test_it_reconnects_to_a_sidecar_that_comes_back(tmp_path: Path) -> None:
    beneath = CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}, app_id="shop")
    with beneath, reserved_port() as port:
        settings = SidecarSettings(app_id="shop", http_port=0, grpc_port=port)
        with Sidecar(beneath, settings):
            client = CloudRuntimesClient(f"grpc://127.0.0.1:{port}", app_id="shop")
            sub = client.pubsub.subscribe("bus", "t")
            client.pubsub.publish("bus", "t", 1)
            take(sub, 1)
        beneath.pubsub.publish("bus", "t", 2)
        with Sidecar(beneath, settings):
            assert [event.data for event in take(sub, 1)] == [2]
            sub.close()
            client.close()


def test_a_sidecar_that_stays_away_is_not_asked_without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    with streams() as (server, client):
        opened: list[float] = []
        transport = client.pubsub._frame.driver("bus")._transport
        real = transport.open

        def open(*arguments: Any) -> Any:
            opened.append(time.monotonic())
            return real(*arguments)

        monkeypatch.setattr(transport, "open", open)
        with client.pubsub.subscribe("bus", "t") as sub:
            began = time.monotonic()
            server.close()
            assert sub.receive(2.5) is None
            until(lambda: len(opened) >= 3)
        assert len(opened) <= 6 * (time.monotonic() - began)


def test_a_full_subscription_does_not_spin() -> None:
    with streams() as (server, client), client.pubsub.subscribe("bus", "t", max_in_flight=2) as sub:
        for number in range(50):
            server.say.put(str(number))
        held = [sub.receive(SOON) for _ in range(2)]
        source = sub._fetcher._source
        while len(source._events) < 48:
            time.sleep(0.01)

        def spins() -> bool:
            before = time.process_time()
            time.sleep(0.5)
            return time.process_time() - before >= 0.3

        assert not all(spins() for _ in range(3)), "not threads of other tests alone"
        for event in held:
            event.ack()
        assert sub.receive(SOON).id == "2"


@pytest.mark.process
def test_fork(sidecar: Sidecar) -> None:
    grpc_forks.check("is_refused_beside_a_stream", endpoint=f"grpc://{sidecar.grpc_address}", app_id="shop")


# -- failures -----------------------------------------------------------------------------


def test_no_such_component(sidecar: Sidecar, api: Api, tmp_path: Path) -> None:
    config = {"capa": {"home": str(tmp_path), "strict": True}, "pubsub": {"bus": {"component": "sqlite"}}}
    beneath = CloudRuntimesClient(config=config, app_id="shop")
    with beneath, Sidecar(beneath, SidecarSettings(app_id="shop", http_port=0, grpc_port=0)) as server:
        for address in (server.http_address, f"grpc://{server.grpc_address}"):
            with CloudRuntimesClient(address) as client:
                if address.startswith("grpc"):
                    api.fails(ComponentNotFoundError)(client.pubsub, "subscribe", "no-such-bus", "t")
                for method, data in (("publish", 1), ("publish_bulk", [1, OutgoingEvent(2)])):
                    api.fails(ComponentNotFoundError)(client.pubsub, method, "no-such-bus", "t", data)


def test_what_failed_of_a_bulk_is_told(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloud_runtimes.runtimes._sidecar.transport import ErrorReply
    from cloud_runtimes.runtimes.dapr.transport import DaprSidecarError

    with CloudRuntimesClient("http://h") as client:
        transport = client.pubsub._frame.driver("bus")._transport
        for known in (True, False):

            def publish_bulk(pubsub: str, topic: str, entries: Any, known: bool = known) -> Any:
                raise DaprSidecarError(
                    ErrorReply(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "", "full"), frozenset({"1"}) if known else None
                )
                yield

            monkeypatch.setattr(transport, "publish_bulk", publish_bulk)
            error = api.fails(errors.BulkError if known else InternalError, match="full")(
                client.pubsub, "publish_bulk", "bus", "t", [1, 2, 3]
            )
            exception: Any = error
            assert exception.maybe_applied
            if known:
                assert list(exception.failed) == [1]
