"""Counters of a subscription."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import DropEvent, Event, EventBatch, Subscription, SubscriptionStats
from cloud_runtimes.testing import Api
from tests.support.waiting import until


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
        seen.append(event.data)

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
