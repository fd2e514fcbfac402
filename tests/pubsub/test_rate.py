"""The rate of a subscription: a token bucket, and a handler that is bounded by one."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.pubsub import EventBatch, Rate
from cloud_runtimes.pubsub._rate import Bucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_tokens() -> None:
    clock = Clock()
    bucket = Bucket(Rate(10, per=2.0), clock)
    assert bucket.take(7) == (7, 0.0)
    assert bucket.take(7) == (3, 0.0)
    count, seconds = bucket.take(1)
    assert (count, seconds) == (0, pytest.approx(0.2))
    clock.now += 0.3
    assert bucket.take(5) == (1, 0.0)
    assert bucket.take(1) == (0, pytest.approx(0.1))
    bucket.give_back(2)
    assert bucket.take(5) == (2, 0.0)
    clock.now += 1000  # no more than a burst gathers
    assert bucket.take(50) == (10, 0.0)


def test_a_burst_of_its_own() -> None:
    clock = Clock()
    bucket = Bucket(Rate(0.5, burst=3), clock)
    assert bucket.take(9) == (3, 0.0)
    assert bucket.take(9) == (0, pytest.approx(2.0))
    clock.now += 4
    assert bucket.take(9) == (2, 0.0)
    assert Bucket(Rate(0.1), clock).take(9) == (1, 0.0)


@pytest.mark.parametrize("rate", [Rate(0), Rate(1, per=0), Rate(float("inf")), Rate(True), Rate(1, burst=0), 5, Rate("1")])  # type: ignore[arg-type]
def test_what_is_no_rate(rate: Any) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        with pytest.raises(InvalidArgumentError, match="rate"):
            client.pubsub.subscribe("bus", "t", lambda event: None, rate=rate)
        with pytest.raises(InvalidArgumentError, match="rate"):
            client.pubsub.subscription("bus", "t", rate=rate)(lambda event: None)
        with pytest.raises(InvalidArgumentError, match="rate bounds a handler"):
            client.pubsub.subscribe("bus", "t", rate=Rate(1))


@pytest.mark.parametrize("kind", ["plain", "async", "batch"])
def test_a_handler_gets_no_more(kind: str) -> None:
    times: list[float] = []
    done = threading.Event()

    def take(count: int) -> None:
        times.extend([time.monotonic()] * count)
        if len(times) >= 40:
            done.set()

    async def waiting(event: Any) -> None:
        await asyncio.sleep(0)
        take(1)

    def together(batch: EventBatch[Any]) -> None:
        take(len(batch))

    handlers: dict[str, Any] = {
        "plain": lambda event: take(1),
        "async": waiting,
        "batch": together,
    }
    options: dict[str, Any] = {"batch": 7} if kind == "batch" else {"workers": 3}
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        client.pubsub.subscribe("bus", "t", group="g").close()
        client.pubsub.publish_bulk("bus", "t", list(range(60)))
        handler = handlers[kind]
        with client.pubsub.subscribe("bus", "t", handler, group="g", rate=Rate(100, burst=10), **options):
            assert done.wait(30)
        # ten at once, then one each 10 ms
        assert times[39] - times[0] > 0.25
    assert len(times) < 60


def test_closes_while_it_waits_for_the_next() -> None:
    first = threading.Event()
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        with client.pubsub.subscribe("bus", "t", lambda event: first.set(), rate=Rate(1, per=3600)):
            client.pubsub.publish_bulk("bus", "t", [1, 2, 3])
            assert first.wait(10)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert client.pubsub.lag("bus", "t") == 2
