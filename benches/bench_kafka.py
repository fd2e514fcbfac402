"""Kafka: events of 361 bytes, beside confluent-kafka, aiokafka and FastStream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benches.bench_engines import compare, sending, taking
from benches.engine_peers import Peer
from benches.kafka_peers import TOPIC, KafkaEngine
from cloud_runtimes import CloudRuntimesClient
from tests.support import kafka


@pytest.fixture(scope="module")
def engine() -> Iterator[KafkaEngine]:
    with kafka.serve() as server:
        new_engine = KafkaEngine("Kafka 4.4, one broker", server)
        yield new_engine
        new_engine.close()


@pytest.fixture(scope="module")
def client(engine: KafkaEngine) -> Iterator[CloudRuntimesClient]:
    with opened(engine) as new_client:
        yield new_client


def opened(engine: KafkaEngine, **settings: str) -> CloudRuntimesClient:
    """Return a client of ours."""
    table = {"component": "kafka", "servers": engine.url, "ensure": "create", **settings}
    return CloudRuntimesClient(app_id="bench", config={"pubsub": {"bus": table}})


def joining(client: CloudRuntimesClient, topic: str, size: int, count: int, decode: bool = False) -> Callable[[], None]:
    """Return what joins the group, receives a slice in batches, acknowledges each of them, and leaves."""

    def take() -> None:
        with client.pubsub.subscribe("bus", topic, batch=size) as subscription:
            taking(subscription, count, decode)()

    return take


def bench_send(beside: Any, note: Any, engine: KafkaEngine, client: CloudRuntimesClient) -> None:
    """From `send` to the acknowledgement of each event."""
    note(
        "send: ours renders each event with an id and a time of its own, of 361 bytes; JSON of the data alone has 167."
    )
    compare(beside, engine, "send", sending(client, engine.count, "ours"), engine.senders(), None)


def bench_send_frames(beside: Any, engine: KafkaEngine, client: CloudRuntimesClient) -> None:
    """The layout `frame` beside the layout `event`."""
    with opened(engine, layout="frame") as framed:
        peers = {"layout event": Peer(sending(client, engine.count, "ours"), goal=3)}
        compare(beside, engine, "send frames", sending(framed, engine.count, "frames"), peers, None)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("size", [100, 1000])
def bench_consume(
    beside: Any, note: Any, engine: KafkaEngine, client: CloudRuntimesClient, size: int, decode: bool
) -> None:
    """A group reads and acknowledges: nobody looks at the events, or all decode them."""
    note(
        "consume: a slice has all of it, from joining the group to leaving it, which takes most of the wall clock. "
        "`consume(1,000)` hands over messages that nobody looks at; ours has checked each event by then. "
        '"And decode" compares who decodes.'
    )
    peers = engine.readers(size) if decode else engine.takers(size)
    what = f"consume by {size:,}{' and decode' if decode else ''}"
    compare(beside, engine, what, joining(client, TOPIC, size, engine.count, decode), peers, engine.fill)


def bench_consume_frames(beside: Any, engine: KafkaEngine, client: CloudRuntimesClient) -> None:
    """The layout `frame` beside the layout `event`."""
    with opened(engine, layout="frame") as framed:
        sends = [sending(session, engine.count, topic) for session, topic in ((client, "ours"), (framed, "frames"))]

        def fill() -> None:
            for send in sends:
                send()

        # what the benches before have sent
        for topic in ("ours", "frames"):
            client.pubsub.subscribe("bus", topic, start="latest", batch=1000).close()
        peers = {"layout event": Peer(joining(client, "ours", 1000, engine.count), goal=2)}
        compare(beside, engine, "consume frames by 1,000", joining(client, "frames", 1000, engine.count), peers, fill)
