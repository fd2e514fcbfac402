"""PostgreSQL: a home on a server that syncs each commit, beside psycopg by hand and libraries of jobs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any

import orjson
import psycopg
import pytest

from benches.postgres_peers import (
    BATCH,
    ByHand,
    Jobs,
    PgQueuerJobs,
    ProcrastinateJobs,
    Server,
    StateByHand,
    in_flight,
    in_flight_async,
    served,
)
from cloud_runtimes import CloudRuntimesClient

COUNT = 20_000
FEW = 1000
"""Events of a slice of who takes a millisecond for one."""
TAKEN = 100
"""Events of one batch of a consumer."""
CALLS = 1000
FLIGHT = 50
COPY, MANY = "COPY binary, a row each", "executemany"
DELETE, RELAXED = "DELETE … SKIP LOCKED of 100", "the same, synchronous_commit off"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served() as postgres:
        yield postgres


@pytest.fixture
def client(server: Server) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(config={"capa": {"home": server.url}}, app_id="bench") as new_client:
        yield new_client


@pytest.fixture(scope="module")
def hand(server: Server) -> Iterator[ByHand]:
    peer = ByHand(server.url)
    yield peer
    peer.close()


@pytest.fixture
def events(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Events of 361 bytes, no two alike: the server compresses what ours writes."""
    chance = random.Random(361)

    def another(number: int) -> dict[str, Any]:
        id, trace = f"{chance.getrandbits(130):026X}"[:26], f"{chance.getrandbits(128):032x}"
        seconds, status = chance.uniform(10, 59.9), chance.choice([200, 204, 404, 500])
        return {
            **event,
            "id": id,
            "time": f"2025-01-15T09:30:{seconds:.6f}Z",
            "seq": 100_000 + number,
            "trace": trace,
            "status": status,
        }

    batch = [another(number) for number in range(COUNT)]
    assert {len(orjson.dumps(each)) for each in batch} == {361}
    return batch


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    event_loop = asyncio.new_event_loop()
    yield event_loop
    event_loop.close()


def sending(client: CloudRuntimesClient, topic: str, events: Sequence[Any]) -> Callable[[], None]:
    """Return what sends them and waits until the last one is on the disk."""
    publisher = client.pubsub.publisher("bus", topic)

    def send() -> None:
        for event in events:
            publisher.send(event)
        publisher.flush()
        stats = publisher.stats()
        assert stats.delivered == stats.accepted
        assert stats.failed == stats.dropped == 0

    return send


def taking(subscription: Any, batches: list[Any]) -> Callable[[], None]:
    """Return what receives a slice of events in batches, decodes, keeps and acknowledges them."""

    def take() -> None:
        remaining = COUNT
        while remaining:
            batch = subscription.receive(timeout=10)
            assert batch is not None
            data = [each.data for each in batch]
            batches.append(data)
            remaining -= len(data)
            batch.ack()

    return take


def check(batches: list[Any], events: list[Any]) -> None:
    """Check that a slice was found, each event once, and forget it."""
    assert not batches or sorted((each for batch in batches for each in batch), key=itemgetter("seq")) == events
    batches.clear()


def stored(server: Server, topic: str) -> tuple[int, int]:
    """Return how many events a topic keeps, and how many commits they took."""
    with psycopg.connect(server.url) as connection:
        row = connection.execute(
            "SELECT sum(f.count), count(DISTINCT f.xid) FROM cloud_runtimes.frames f JOIN cloud_runtimes.topics t ON t.id = f.topic WHERE t.name = %s",
            (topic,),
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def bench_publish(
    beside: Any, note: Any, server: Server, client: CloudRuntimesClient, hand: ByHand, events: list[Any]
) -> None:
    """From `send` to the disk. All encode each event as a CloudEvent with an id and a time of its own; the peers commit as seldom as ours does."""
    beside(
        "publish",
        sending(client, "published", events),
        {COPY: lambda: hand.copy(events), MANY: lambda: hand.executemany(events)},
        goals={COPY: 1.5, MANY: 8},
        per=COUNT,
        unit="event",
        slices=True,
        clocks=server.clocks,
    )
    kept, commits = stored(server, "published")
    assert kept % COUNT == 0
    assert hand.rows("copied") == hand.rows("inserted") == kept - COUNT  # one slice of ours goes before
    note(f"publish: {kept / commits:,.0f} events a commit of ours, {BATCH:,} of the peers'; {server.version}")


def bench_consume(beside: Any, server: Server, client: CloudRuntimesClient, hand: ByHand, events: list[Any]) -> None:
    """Ours: a group with leases, delivered again if its member dies. The peer takes rows off for good, before they are handled."""
    send = sending(client, "consumed", events)
    batches: dict[str, list[Any]] = {"ours": [], "queue": [], "relaxed": []}

    def fill() -> None:
        for each in batches.values():
            check(each, events)
        send()
        hand.copy(events, "queue")
        hand.copy(events, "relaxed")

    def delete(table: str) -> None:
        remaining = COUNT
        while remaining:
            data = hand.take(table, TAKEN)
            batches[table].append(data)
            remaining -= len(data)

    def relaxed() -> None:
        hand.connection.execute("SET synchronous_commit = off")
        delete("relaxed")
        hand.connection.execute("SET synchronous_commit = on")

    with client.pubsub.subscribe("bus", "consumed", group="bench", batch=TAKEN) as subscription:
        beside(
            "consume in batches of 100",
            taking(subscription, batches["ours"]),
            {DELETE: lambda: delete("queue"), RELAXED: relaxed},
            goals={DELETE: 3},
            per=COUNT,
            unit="event",
            slices=True,
            before=fill,
            clocks=server.clocks,
        )
        assert subscription.receive(timeout=0.1) is None
    for each in batches.values():
        check(each, events)
    assert hand.rows("queue") == hand.rows("relaxed") == 0


@pytest.mark.parametrize("flight", [1, FLIGHT])
@pytest.mark.parametrize("api", ["sync", "async"])
@pytest.mark.parametrize("name", ["get", "save"])
def bench_state(
    beside: Any,
    server: Server,
    client: CloudRuntimesClient,
    hand: ByHand,
    loop: asyncio.AbstractEventLoop,
    event: dict[str, Any],
    name: str,
    api: str,
    flight: int,
) -> None:
    """A key that is there, over ten connections each."""
    peer = StateByHand(server.url, loop)
    client.state.save("store", "key", event)
    peer.save("key", event)
    assert client.state.get("store", "key") == peer.get("key") == event
    assert loop.run_until_complete(client.state.get_async("store", "key")) == event
    values = (event,) if name == "save" else ()
    method = name if api == "sync" else f"{name}_async"
    ours, theirs = getattr(client.state, method), getattr(peer, method)
    with ThreadPoolExecutor(FLIGHT) as pool:

        def runs(call: Callable[[], Any]) -> Callable[[], None]:
            if api == "sync":
                return in_flight(call, CALLS, flight, pool)
            return in_flight_async(call, CALLS, flight, loop)

        beside(
            f"state {name}, {api}, {'one caller' if flight == 1 else f'{flight} in flight'}",
            runs(lambda: ours("store", "key", *values)),
            {"psycopg by hand": runs(lambda: theirs("key", *values))},
            goals={"psycopg by hand": 1},
            per=CALLS,
            slices=True,
            clocks=server.clocks,
        )
    peer.close()


@pytest.mark.parametrize("library", [ProcrastinateJobs, PgQueuerJobs])
def bench_jobs(
    beside: Any,
    server: Server,
    client: CloudRuntimesClient,
    loop: asyncio.AbstractEventLoop,
    events: list[Any],
    library: type[Jobs],
) -> None:
    """A job for each event, enqueued by 1,000 and processed by a worker of the library's own defaults."""
    jobs = library(server.url, loop)
    send = sending(client, library.name, events)
    batches: list[Any] = []

    def fill() -> None:
        check(batches, events)
        send()
        jobs.enqueue(events[:FEW])

    def process() -> None:
        before = jobs.handled
        jobs.process()
        assert jobs.handled == before + FEW

    how: dict[str, Any] = {"goals": {library.name: 10}, "per": COUNT, "each": {library.name: FEW}, "unit": "event"}
    how |= {"slices": True, "clocks": server.clocks}
    with client.pubsub.subscribe("bus", library.name, group="bench", batch=TAKEN) as subscription:
        beside("process", taking(subscription, batches), {library.name: process}, **how, before=fill)
    check(batches, events)
    jobs.close()


@pytest.mark.parametrize("library", [ProcrastinateJobs, PgQueuerJobs])
def bench_jobs_enqueued(
    beside: Any,
    server: Server,
    client: CloudRuntimesClient,
    loop: asyncio.AbstractEventLoop,
    events: list[Any],
    library: type[Jobs],
) -> None:
    """The other end of it."""
    jobs = library(server.url, loop)
    peers = {library.name: lambda: jobs.enqueue(events[:FEW])}
    how: dict[str, Any] = {"goals": {library.name: 10}, "per": COUNT, "each": {library.name: FEW}, "unit": "event"}
    how |= {"slices": True, "clocks": server.clocks}
    beside("enqueue", sending(client, f"{library.name} enqueued", events), peers, **how)
    jobs.close()
