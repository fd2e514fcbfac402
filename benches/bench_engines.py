"""Redis, Valkey, NATS and RabbitMQ: events of 361 bytes and values, beside bare sockets, the usual clients and FastStream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benches.engine_peers import EVENT, Engine, Peer, RedisEngine
from benches.nats_peers import NatsEngine
from benches.postgres_peers import in_flight, in_flight_async
from benches.rabbitmq_peers import RabbitmqEngine
from cloud_runtimes import CloudRuntimesClient
from tests.support import nats, rabbitmq, redis

CALLS = 1000
FLIGHT = 50
SERVERS: dict[str, Any] = {
    "Valkey 9.1, nothing on disk": ("valkey", {}),
    "Valkey 9.1, appendfsync always": ("valkey", {"appendonly": "yes", "appendfsync": "always"}),
    "Redis 7.0, nothing on disk": ("redis", {}),
    "NATS 2.15, files, synced every 2 min": ("nats", {}),
    "NATS 2.15, files, sync always": ("nats", {"jetstream": {"sync_interval": "always"}}),
    "RabbitMQ 3.10, a quorum queue": ("rabbitmq", {}),
}
IN_MEMORY = [name for name in SERVERS if "always" not in name]
WITH_STATE = [name for name in IN_MEMORY if "RabbitMQ" not in name]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    kind, options = SERVERS[request.param]
    if kind == "nats":
        with nats.serve(**options) as server:
            # a message is synced alone
            new_engine: Engine = NatsEngine(request.param, server, **({"count": 2000} if options else {}))
            yield new_engine
            new_engine.close()
    elif kind == "rabbitmq":
        with rabbitmq.serve(**options) as broker:
            new_engine = RabbitmqEngine(request.param, broker, count=20_000)
            yield new_engine
            new_engine.close()
    else:
        with redis.serve(kind, **options) as other:
            new_engine = RedisEngine(request.param, other)
            yield new_engine
            new_engine.close()


@pytest.fixture
def client(engine: Engine) -> Iterator[CloudRuntimesClient]:
    with home(engine, "event") as new_client:
        yield new_client


def home(engine: Engine, layout: str) -> CloudRuntimesClient:
    """Return a client of ours; skips where it has no pub/sub there."""
    settings = {"url": engine.url, "layout": layout, **engine.settings}
    client = CloudRuntimesClient(app_id="bench", config={"capa": {"home": settings}})
    if not client.supports("pubsub"):
        client.close()
        pytest.skip("ours has no pub/sub there")
    return client


def sending(client: CloudRuntimesClient, count: int, topic: str = "t") -> Callable[[], None]:
    """Return what sends a slice until all of it is acknowledged."""
    publisher = client.pubsub.publisher("bus", topic)

    def send() -> None:
        for _ in range(count):
            publisher.send(EVENT)
        publisher.flush()
        stats = publisher.stats()
        assert stats.delivered == stats.accepted
        assert stats.failed == stats.dropped == 0

    return send


def taking(subscription: Any, count: int, decode: bool = False) -> Callable[[], None]:
    """Return what receives a slice in batches and acknowledges each of them."""

    def take() -> None:
        remaining = count
        while remaining:
            batch = subscription.receive(timeout=10)
            assert batch is not None
            remaining -= len(batch)
            if decode:
                data = [each.data for each in batch]
                assert data[0] == data[-1] == EVENT
            batch.ack()

    return take


def compare(
    beside: Any, engine: Engine, what: str, ours: Callable[[], None], peers: Mapping[str, Peer], before: Any
) -> None:
    """Time a slice of ours beside those of the peers."""
    beside(
        f"{engine.name}: {what}",
        ours,
        {name: peer.run for name, peer in peers.items()},
        goals={name: peer.goal for name, peer in peers.items() if peer.goal is not None},
        per=engine.count,
        each={name: peer.count or engine.count for name, peer in peers.items()},
        unit="event",
        slices=True,
        before=before,
        clocks=engine.clocks,
    )


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def bench_send(beside: Any, note: Any, engine: Engine, client: CloudRuntimesClient) -> None:
    """From `send` to the acknowledgement of each event."""
    note(
        '"The busier" is the processor time that bounds the rate, that of the client or of the server. It holds on a busy machine; the clock does not.'
    )
    note(
        "send: bare sockets and `redis-benchmark` send prepared bytes, ours renders each event with an id and a time of its own."
    )
    compare(beside, engine, "send", sending(client, engine.count), engine.senders(), engine.empty)


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def bench_send_frames(beside: Any, engine: Engine, client: CloudRuntimesClient) -> None:
    """The layout `frame` beside the layout `event`."""
    with home(engine, "frame") as framed:
        compare(
            beside,
            engine,
            "send frames",
            sending(framed, engine.count),
            {"layout event": Peer(sending(client, engine.count), goal=3)},
            None,
        )


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("size", [100, 1000])
@pytest.mark.parametrize("engine", IN_MEMORY, indirect=True)
def bench_consume(beside: Any, note: Any, engine: Engine, client: CloudRuntimesClient, size: int, decode: bool) -> None:
    """A group reads and acknowledges: nobody looks at the events, or all decode them."""
    note(
        'consume: redis-py hands over bytes, which costs as little as the server itself, so nobody can be much faster. Ours has checked each event by then. "And decode" compares who decodes.'
    )
    peers = engine.readers(size) if decode else engine.takers(size)
    send = sending(client, engine.count)

    def fill() -> None:
        engine.fill()
        send()

    with client.pubsub.subscribe("bus", "t", group="bench", batch=size) as subscription:
        what = f"consume by {size:,}{' and decode' if decode else ''}"
        compare(beside, engine, what, taking(subscription, engine.count, decode), peers, fill)
        assert subscription.receive(timeout=0.1) is None


@pytest.mark.parametrize("size", [100, 1000])
@pytest.mark.parametrize("engine", IN_MEMORY, indirect=True)
def bench_consume_frames(beside: Any, engine: Engine, client: CloudRuntimesClient, size: int) -> None:
    """The layout `frame` beside the layout `event`."""
    with home(engine, "frame") as framed:
        publishers = [
            session.pubsub.publisher("bus", topic) for session, topic in ((client, "events"), (framed, "frames"))
        ]

        def fill() -> None:
            for publisher in publishers:
                for _ in range(engine.count):
                    publisher.send(EVENT)
                publisher.flush()

        def subscribed(topic: str) -> Any:
            return client.pubsub.subscribe("bus", topic, group="bench", batch=size)

        with subscribed("frames") as frames, subscribed("events") as events:
            peers = {"layout event": Peer(taking(events, engine.count), goal=2)}
            compare(beside, engine, f"consume frames by {size:,}", taking(frames, engine.count), peers, fill)


@pytest.mark.parametrize("flight", [1, FLIGHT])
@pytest.mark.parametrize("api", ["sync", "async"])
@pytest.mark.parametrize("name", ["get", "save"])
@pytest.mark.parametrize("engine", WITH_STATE, indirect=True)
def bench_state(beside: Any, note: Any, engine: Engine, name: str, api: str, flight: int) -> None:
    """A key that is there."""
    note("state: ours has an etag for each value, which takes a script on Redis; the peers only keep bytes.")
    peer, theirs = engine.state(name, api)
    if peer == "nats-py" and api == "sync" and flight > 1:
        pytest.skip("nats-py has no sync API")
    values = (EVENT,) if name == "save" else ()
    config = {"capa": {"home": engine.url}}
    with CloudRuntimesClient(app_id="bench", config=config) as client, ThreadPoolExecutor(FLIGHT) as pool:
        client.state.save("store", "key", EVENT)
        assert client.state.get("store", "key") == EVENT
        method = getattr(client.state, name if api == "sync" else f"{name}_async")

        def runs(call: Callable[[], Any]) -> Callable[[], None]:
            if api == "sync":
                return in_flight(call, CALLS, flight, pool)
            return in_flight_async(call, CALLS, flight, engine.loop)

        beside(
            f"{engine.name}: state {name}, {api}, {'one caller' if flight == 1 else f'{flight} in flight'}",
            runs(lambda: method("store", "key", *values)),
            {peer: runs(theirs)},
            goals={peer: 1 if flight == 1 else 1.3},
            per=CALLS,
            slices=True,
            clocks=engine.clocks,
        )
        assert client.state.get("store", "key") == EVENT
