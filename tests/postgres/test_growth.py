"""Cost of another frame, topic or group: none. Full length: ten million events kept, 1,000 topics, 100 groups."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.state import StateItem
from tests.support import Figure, Rounds
from tests.support.harnesses.postgres import PostgresHome
from tests.support.postgres import PostgresServer, processor_seconds

BATCH = 100
GROUPS_OF_ONE = 10
ALLOWED = 1.3
EVENT = {"id": "01J9ZQ4T8W3N5V6X7Y8Z9A0B1C", "type": "http.request", "source": "checkout-api", "level": "INFO"}
EXPLAINED = quote(
    "-c session_preload_libraries=auto_explain -c auto_explain.log_nested_statements=on -c log_min_messages=log"
)
"""Options of a session whose plans can be had in the server's log, those of statements in functions too."""


class Size(NamedTuple):
    """How much there is of everything; ``each``: events that each topic gets in a stage."""

    topics: int
    groups: int
    each: int
    stages: int
    parked: int

    @property
    def read(self) -> int:
        """Topics that have groups, ten each."""
        return self.groups // GROUPS_OF_ONE


class Cost(NamedTuple):
    """Of an event, in nanoseconds: processor time of this process and the server's sessions, and the wall clock."""

    processor: float
    wall: float


class Meter:
    """Costs of events, by what is done with them, one for each stage."""

    def __init__(self, url: str) -> None:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        assert row is not None
        self._postmaster = int(row[0].split("\n")[0])
        self.costs: dict[str, list[Cost]] = {}

    def of(self, what: str, events: int, work: Callable[[], None]) -> None:
        """Do it."""
        used, begun = self._used(), time.perf_counter()
        work()
        cost = Cost((self._used() - used) / events * 1e9, (time.perf_counter() - begun) / events * 1e9)
        self.costs.setdefault(what, []).append(cost)

    def _used(self) -> float:
        return time.process_time() + processor_seconds(self._postmaster)

    def report(self, what: str) -> str:
        """Return the processor time and the rate of the first and the last third, and how they compare."""
        costs = self.costs[what]
        third = max(1, len(costs) // 3)
        first, last = (
            [statistics.median(part) for part in zip(*some, strict=True)] for some in (costs[:third], costs[-third:])
        )
        return (
            f"{what} {first[0]:,.0f} → {last[0]:,.0f} ns of processor time an event (× {last[0] / first[0]:.2f}), "
            f"{1e9 / first[1]:,.0f} → {1e9 / last[1]:,.0f} a second"
        )

    def growth(self, what: str) -> float:
        """Return how many times as much processor time the last third takes as the best stage."""
        costs = [cost.processor for cost in self.costs[what]]
        return statistics.median(costs[-max(1, len(costs) // 3) :]) / min(costs)


def payload(number: int) -> dict[str, Any]:
    """Some 361 bytes, no two alike."""
    seconds = number % 60_000_000 / 1e6
    return {
        **EVENT,
        "time": f"2025-01-15T09:30:{seconds:09.6f}Z",
        "seq": number,
        "trace": f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}",
        "attributes": {
            "http.method": "GET",
            "http.route": "/cart/{id}",
            "user.tier": "gold",
            "retry": 0,
            "zone": "eu-1",
        },
        "duration_ms": number % 977 / 8,
        "status": 200,
        "sampled": True,
    }


def publish(client: CloudRuntimesClient, size: Size, stage: int) -> None:
    first = stage * size.each
    events = [payload(number) for number in range(first, first + size.each)]
    for topic in range(size.topics):
        client.pubsub.publish_bulk("bus", f"topic-{topic}", events)


def consume(client: CloudRuntimesClient, size: Size, stage: int) -> None:
    """Have each group take what this stage brought it, in batches, each event once."""
    first = stage * size.each
    for topic in range(size.read):
        for group in range(GROUPS_OF_ONE):
            with client.pubsub.subscribe(
                "bus", f"topic-{topic}", group=f"group-{group}", start="earliest", batch=BATCH
            ) as sub:
                numbers: list[int] = []
                while len(numbers) < size.each:
                    batch = sub.receive(30)
                    assert batch is not None
                    numbers += [event.data["seq"] for event in batch]
                    batch.ack()
            assert sorted(numbers) == list(range(first, first + size.each))


def park(client: CloudRuntimesClient, size: Size) -> None:
    """Have a group put off many events, so that claims are many, and keep as many values for an hour."""
    for start in range(0, size.parked, 1000):
        items = [
            StateItem(key=f"key-{number}", value=payload(number), ttl=3600) for number in range(start, start + 1000)
        ]
        client.state.save_bulk("store", items)
    client.pubsub.publish_bulk("bus", "parked", [payload(number) for number in range(size.parked)])
    with client.pubsub.subscribe("bus", "parked", group="parked", start="earliest", batch=BATCH) as sub:
        remaining = size.parked
        while remaining:
            batch = sub.receive(30)
            assert batch is not None
            batch.retry(3600)
            remaining -= len(batch)


@contextmanager
def log_plans(url: str) -> Iterator[None]:
    """Have the sessions that were opened for it log their plans."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LOAD 'auto_explain'")
        connection.execute("ALTER SYSTEM SET auto_explain.log_min_duration = 0")
        connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET auto_explain.log_min_duration")
            connection.execute("SELECT pg_reload_conf()")


def scanned(home: PostgresHome, client: CloudRuntimesClient, log: Path) -> list[str]:
    """Publish, receive, retry, delay, settle and sweep; return the plans in the server's log that read a whole table of frames, or of more than a megabyte."""
    with psycopg.connect(home.url) as connection:  # of few pages, which few large frames have, a plan rightly reads all
        connection.execute(
            f"INSERT INTO {home.schema}.frames (topic, count, body) "
            f"SELECT id, 0, '' FROM {home.schema}.topics, generate_series(1, 20000) WHERE name = 'topic-0'"
        )
    begin = log.stat().st_size
    with log_plans(home.url):
        for _ in range(3):
            with client.pubsub.subscribe("bus", "topic-1", group="explained", start="latest") as sub:
                for number in range(3):
                    client.pubsub.publish("bus", "topic-1", payload(number))
                client.pubsub.publish("bus", "topic-1", payload(3), delay=0.05)
                for again in (True, False, False, False, False):
                    event = sub.receive(5)
                    assert event is not None
                    event.retry(0) if again else event.ack()
        home.sweep()
    with psycopg.connect(home.url) as connection:
        big = {
            name
            for (name,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r' "
                "AND (pg_relation_size(oid) > 1 << 20 OR relname ~ '^frames_')",
                (home.schema,),
            )
        }
    assert {"claims", "state"} <= big
    with open(log) as file:
        file.seek(begin)
        plans = re.split(r"\n(?=\S*.*? LOG: )", file.read())
    assert any(re.search("Index Scan using frames_", plan) for plan in plans)
    assert any("Insert on claims" in plan for plan in plans)
    return [plan for plan in plans if set(re.findall(r"Seq Scan on (?:\w+\.)?(\w+)", plan)) & big]


def test_nothing_grows(postgres_url: str, rounds: Rounds, figure: Figure) -> None:
    full = bool(rounds(0, 1))
    size = Size(1000, 100, 1000, 10, 20_000) if full else Size(40, 20, 200, 3, 8000)
    with ExitStack() as stack:
        url = stack.enter_context(PostgresServer(fsync="on")).url if full else postgres_url
        home = PostgresHome(f"{url}?options={EXPLAINED}")
        stack.callback(home.close)
        client = home.client()
        meter = Meter(url)
        taken = size.read * GROUPS_OF_ONE * size.each
        for stage in range(size.stages):
            meter.of("publish", size.topics * size.each, partial(publish, client, size, stage))
            meter.of("consume", taken, partial(consume, client, size, stage))
        park(client, size)
        with psycopg.connect(url, autocommit=True) as connection:
            log = Path(connection.execute("SHOW data_directory").fetchone()[0]).parent / "log"  # type: ignore[index]
            if full:  # the server vacuums by itself, once a minute
                time.sleep(150)
            tables = {
                name: (dead, live, pages)
                for name, dead, live, pages in connection.execute(
                    "SELECT relname, n_dead_tup, n_live_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables WHERE schemaname = %s",
                    (home.schema,),
                )
            }
            kept = connection.execute(f"SELECT sum(count) FROM {home.schema}.frames").fetchone()
        assert kept == (size.topics * size.each * size.stages + size.parked,)
        assert scanned(home, client, log) == []
        stored = sum(bytes for name, (_, _, bytes) in tables.items() if name.startswith("frames_"))
        what = f"{size.topics * size.each * size.stages:,} events kept on PostgreSQL, {size.topics:,} topics, {size.groups} groups"
        figure(
            what, f"{meter.report('publish')}; {meter.report('consume')}; {stored / kept[0]:.0f} B an event on the disk"
        )
        dead = {name: tables[name] for name in ("claims", "groups")}
        figure(
            f"{what}: after {taken * size.stages:,} deliveries",
            "; ".join(
                f"{name} {live:,} rows, {gone:,} dead, {bytes / 1024:,.0f} KiB"
                for name, (gone, live, bytes) in dead.items()
            ),
        )
        if full:
            assert meter.growth("publish") <= ALLOWED
            assert meter.growth("consume") <= ALLOWED
            assert all(gone <= 0.2 * live + 1000 for gone, live, _ in dead.values())
