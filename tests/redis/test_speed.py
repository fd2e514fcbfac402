"""Cost of an event, compared with prepared bytes on a bare socket, side by side in one run."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.support import Figure
from tests.support.harnesses.redis import RedisHome
from tests.support.wires import BODY, EVENT, RedisWire, beside

pytestmark = pytest.mark.soak
COUNT = 20_000


def test_sending(home: RedisHome, figure: Figure) -> None:
    """Ours renders each event, with an id and a time of its own."""
    assert home.server.process is not None
    with (
        closing(RedisWire(home.server.port)) as wire,
        home.client() as client,
        client.pubsub.publisher("bus", "sent") as publisher,
    ):

        def ours() -> None:
            for _ in range(COUNT):
                publisher.send(EVENT)
            publisher.flush()

        def bare() -> None:
            wire.send(f"{home.prefix}:bare".encode(), BODY, COUNT)

        measurement = beside(home.server.process.pid, ours, bare, COUNT, 50)
        stats = publisher.stats()
        assert stats.delivered == stats.accepted > 0
    figure(f"send on {home.server.kind} beside a bare socket", str(measurement))
    assert measurement.rate >= 0.6
    assert measurement.client <= 7


def test_consuming(home: RedisHome, figure: Figure) -> None:
    """Both read one stream by 1,000 and acknowledge; ours takes the events apart."""
    assert home.server.process is not None
    with (
        closing(RedisWire(home.server.port)) as wire,
        home.client() as client,
        client.pubsub.publisher("bus", "read") as publisher,
        client.pubsub.subscribe("bus", "read", group="ours", batch=1000) as subscription,
    ):
        stream = f"{{{home.prefix}:pubsub:bus}}:topic:read".encode()
        assert wire.exchange(wire.pack(b"XGROUP", b"CREATE", stream, b"bare", b"$"), 1) == [b"OK"]

        def fill() -> None:
            for _ in range(COUNT):
                publisher.send(EVENT)
            publisher.flush()

        def ours() -> None:
            remaining = COUNT
            while remaining:
                batch = subscription.receive(10)
                remaining -= len(batch)
                batch.ack()

        def bare() -> None:
            wire.take(stream, b"bare", 1000, COUNT)

        measurement = beside(home.server.process.pid, ours, bare, COUNT, 50, fill)
    figure(f"consume by 1,000 on {home.server.kind} beside a bare socket", str(measurement))
    assert measurement.rate >= 0.6
    assert measurement.client <= 4
