"""Counters of a subscription, and the metrics made of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.semconv._incubating.metrics import messaging_metrics as messaging

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import context_of
from cloud_runtimes.errors import PermissionDeniedError
from cloud_runtimes.pubsub import DropEvent, Event, EventBatch, Subscription, SubscriptionStats
from cloud_runtimes.spi.pubsub import OutgoingBatch
from cloud_runtimes.testing import Api
from tests.support.waiting import until
from tests.telemetry.otlp_receiver import Receiver


@pytest.fixture
def client() -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}}) as client:
        yield client


def answers(stats: SubscriptionStats) -> tuple[int, ...]:
    return stats.handled, stats.retried, stats.dropped, stats.redelivered


def settle(number: int, count: int | None) -> None:
    """Drop each fourth event, and fail each third at its first delivery."""
    if number % 4 == 0:
        raise DropEvent
    if number % 3 == 0 and count == 1:
        raise ValueError("not yet")


# of 0 … 99: 25 dropped, 25 failed once and then handled
EXPECTED = (75, 25, 25, 25)


def one(event: Event[int]) -> None:
    settle(event.data, event.delivery_count)


def many(events: EventBatch[int]) -> None:
    for event in events:
        try:
            settle(event.data, event.delivery_count)
        except DropEvent:
            event.drop()
        except ValueError:
            event.retry(0)


@pytest.mark.parametrize("options", [{}, {"workers": 4}, {"order": "key"}, {"batch": 7}], ids=str)
def test_counts_are_exact(client: CloudRuntimesClient, api: Api, options: dict[str, Any]) -> None:
    api.call(client.pubsub, "publish_bulk", "bus", "t", list(range(100)))
    handler = api.handler(many if "batch" in options else one)
    subscription = api.call(client.pubsub, "subscribe", "bus", "t", handler, **options)
    assert api.until(lambda: subscription.stats().handled + subscription.stats().dropped == 100)
    stats = subscription.stats()
    assert answers(stats) == EXPECTED
    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert 0 < stats.handler_seconds < 20
    api.call(subscription, "close")
    assert answers(subscription.stats()) == EXPECTED
    with pytest.raises(AttributeError):
        stats.handled = 1  # type: ignore[misc]


def test_what_is_received(client: CloudRuntimesClient, api: Api) -> None:
    client.pubsub.publish_bulk("bus", "t", [1, 2, 3, 4])
    subscription: Subscription[Event[int]] = api.call(client.pubsub, "subscribe", "bus", "t")
    events = [api.call(subscription, "receive", timeout=10) for _ in range(4)]
    assert subscription.stats() == SubscriptionStats(0, 0, 0, 0, 4, 0, 0.0)
    events[0].ack()
    events[0].retry()  # the first answer counts
    events[1].retry(0)
    events[2].drop()
    assert api.until(lambda: subscription.stats().redelivered == 1)
    assert subscription.stats() == SubscriptionStats(1, 1, 1, 1, 2, 0, 0.0)
    api.call(subscription, "close")
    assert subscription.stats() == SubscriptionStats(1, 1, 1, 1, 0, 0, 0.0), "what is given back is no answer"


def test_transactions_and_misfits(client: CloudRuntimesClient) -> None:
    seen: list[int] = []

    def handler(event: Event[int]) -> None:
        with event.transaction("bus") as transaction:
            transaction.save("n", event.data)
            seen.append(event.data)  # before the commit, which is what counts the event

    options: dict[str, Any] = {"type": int, "dead_letter_topic": "dead"}
    with client.pubsub.subscribe("bus", "t", handler, **options) as subscription:
        client.pubsub.publish_bulk("bus", "t", [1, "no number", 2])
        until(lambda: subscription.stats().handled == 2 and subscription.stats().dropped == 1)
        assert (seen, answers(subscription.stats())) == ([1, 2], (2, 0, 1, 0))


def test_events_that_wait_for_their_key(client: CloudRuntimesClient) -> None:
    held, go = threading.Event(), threading.Event()

    def handler(event: Event[int]) -> None:
        held.set()
        go.wait(20)

    client.pubsub.publish_bulk("bus", "t", [1])
    with client.pubsub.subscribe("bus", "t", handler, order="key") as subscription:
        assert held.wait(10)
        for number in range(9):
            client.pubsub.publish("bus", "t", number, key="one")
        until(lambda: subscription.stats().waiting == 8)
        time.sleep(0.1)
        stats = subscription.stats()
        assert (stats.in_flight, stats.handled) == (10, 0)
        assert stats.handler_seconds >= 0.1, "a call that runs counts"
        go.set()
        until(lambda: subscription.stats().handled == 10)
        assert subscription.stats().waiting == 0
        assert subscription.stats().handler_seconds >= stats.handler_seconds


def test_time_of_handlers(client: CloudRuntimesClient, api: Api) -> None:
    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    subscription = api.call(client.pubsub, "subscribe", "bus", "t", api.handler(lambda event: time.sleep(0.02)))
    assert api.until(lambda: bool(subscription.stats().handled == 10))
    assert 0.19 <= subscription.stats().handler_seconds < 5
    seconds = subscription.stats().handler_seconds
    time.sleep(0.2)
    assert subscription.stats().handler_seconds == seconds, "nobody works now"
    api.call(subscription, "close")


def points(receiver: Receiver, client: CloudRuntimesClient) -> dict[str, list[Any]]:
    """Collect; return the points of each metric as (attributes, point)."""
    receiver.requests.clear()
    assert client.telemetry.flush(30)
    out: dict[str, list[Any]] = {}
    for metric in receiver.metrics():
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            attributes = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in point.attributes}
            out.setdefault(metric.name, []).append((attributes, point))
    return out


def test_metrics_are_exported(api: Api) -> None:
    with Receiver() as receiver:
        table = {"endpoint": receiver.url, "instrument": True, "flush_on_sigterm": False}
        config = {"capa": {"home": ":memory:"}, "telemetry": table}
        with CloudRuntimesClient(app_id="shop", config=config) as client:
            client.pubsub.publish_bulk("bus", "t", list(range(100)))
            subscription = api.call(client.pubsub, "subscribe", "bus", "t", api.handler(one))
            assert api.until(lambda: subscription.stats().handled + subscription.stats().dropped == 100)
            api.call(subscription, "close")
            collected = points(receiver, client)
            common = {
                "messaging.system": "sqlite",
                "messaging.destination.name": "t",
                "messaging.consumer.group.name": "shop",
                "cloud_runtimes.component": "bus",
            }
            ((attributes, received),) = collected[messaging.MESSAGING_CLIENT_CONSUMED_MESSAGES]
            operation = {"messaging.operation.name": "receive", "messaging.operation.type": "receive"}
            assert (attributes, received.as_int) == (common | operation, 125)
            settled = collected["cloud_runtimes.pubsub.settled"]
            assert [(attributes, point.as_int) for attributes, point in settled] == [
                (common | {"cloud_runtimes.pubsub.settlement": answer}, count)
                for answer, count in (("ack", 75), ("retry", 25), ("drop", 25))
            ]
            ((attributes, again),) = collected["cloud_runtimes.pubsub.redelivered"]
            assert (attributes, again.as_int) == (common, 25)
            ((attributes, age),) = collected["cloud_runtimes.pubsub.age"]
            assert (attributes, age.count) == (common, 125)
            assert 0 < age.sum < 125 * 60
            operation = {"messaging.operation.name": "process", "messaging.operation.type": "process"}
            durations = {
                attributes.pop("error.type", None): (attributes, point.count)
                for attributes, point in collected["messaging.process.duration"]
            }
            # dropping an event is an answer, not a failure
            assert durations == {None: (common | operation, 100), "ValueError": (common | operation, 25)}
            assert "cloud_runtimes.pubsub.waiting" not in collected, "nothing waited"


def test_metrics_of_an_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver:
        config = {
            "capa": {"home": ":memory:here"},
            "pubsub": {"bus": {"component": "sqlite", "home": ":memory:there"}},
            "telemetry": {"endpoint": receiver.url, "instrument": True, "flush_on_sigterm": False},
        }
        with CloudRuntimesClient(app_id="shop", config=config) as client:
            driver: Any = context_of(client).frame("pubsub").driver("bus")
            publish = driver.publish

            def refusing(op: Any, batch: OutgoingBatch) -> Any:
                publish(op, OutgoingBatch.of(batch.topic, [record for record in batch if record.key != "bad"]))
                denied = PermissionDeniedError("not yours")
                return {index: denied for index, record in enumerate(batch) if record.key == "bad"}

            monkeypatch.setattr(driver, "publish", refusing)
            with client.pubsub.subscribe("bus", "t") as events:
                with client.state.transaction("orders") as tx:
                    for number in range(5):
                        tx.publish("bus", "t", number, key="bad" if number < 2 else "good")
                assert [event.data for _ in range(3) if (event := events.receive(30)) is not None] == [2, 3, 4]
                names = ("cloud_runtimes.relay.forwarded", "cloud_runtimes.relay.refused")
                found: dict[str, Any] = {}

                def counted() -> bool:
                    found.update(points(receiver, client))
                    return all(name in found for name in names)

                until(counted)
            attributes = {"messaging.system": "sqlite", "cloud_runtimes.component": "bus"}
            assert [(each, point.as_int) for name in names for each, point in found[name]] == [
                (attributes, 3),
                (attributes, 2),
            ]


def test_metric_of_events_that_wait(client: CloudRuntimesClient) -> None:
    held, go = threading.Event(), threading.Event()

    def handler(event: Event[int]) -> None:
        held.set()
        go.wait(20)

    with Receiver() as receiver:
        table = {"endpoint": receiver.url, "instrument": True, "flush_on_sigterm": False}
        with CloudRuntimesClient(app_id="s", config={"capa": {"home": ":memory:"}, "telemetry": table}) as client:

            def waiting() -> Any:
                ((_, point),) = points(receiver, client)["cloud_runtimes.pubsub.waiting"]
                return point.as_int

            for number in range(5):
                client.pubsub.publish("bus", "t", number, key="one")
            with client.pubsub.subscribe("bus", "t", handler, order="key") as subscription:
                assert held.wait(10)
                until(lambda: waiting() == 4)
                go.set()
                until(lambda: subscription.stats().handled == 5)
                until(lambda: waiting() == 0)


@pytest.mark.parametrize("exporter", [None, "none"])
def test_nothing_is_observed_where_metrics_are_off(exporter: str | None) -> None:
    table: dict[str, Any] = {} if exporter is None else {"instrument": True, "exporter": exporter}
    with CloudRuntimesClient(app_id="s", config={"capa": {"home": ":memory:"}, "telemetry": table}) as client:
        with client.pubsub.subscribe("bus", "t", print) as subscription:
            assert subscription._fetcher._observe is None
