"""Transactions of any length that overlap, some of them undone: each group gets each event once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import psycopg

from tests.support import Figure, Rounds
from tests.support.harnesses.postgres import PostgresHome

WRITERS = 4
GROUPS = ("a", "b")


def write(home: PostgresHome, bodies: list[tuple[int, bytes]], chance: random.Random, committed: list[int]) -> None:
    """Store the frames of events, a few in each transaction, which stays open for a while."""
    insert = f"INSERT INTO {home.schema}.frames (topic, count, body) SELECT id, 1, %s FROM {home.schema}.topics WHERE name = 'orders'"
    with psycopg.connect(home.url) as connection:
        while bodies:
            some = [bodies.pop() for _ in range(min(len(bodies), chance.randint(1, 4)))]
            for _, body in some:
                connection.execute(insert.encode(), (body,))
                time.sleep(chance.choice([0, 0, 0.001, 0.02]))
            if chance.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()
                committed += [number for number, _ in some]


def receive(home: PostgresHome, group: str, batch: int, received: list[int], ended: threading.Event) -> None:
    """Take and acknowledge what comes, until the writers have ended and nothing more does."""
    with home.client().pubsub.subscribe("bus", "orders", group=group, start="earliest", batch=batch) as sub:
        while True:
            last = ended.is_set()
            got = sub.receive(0.5 if last else 0.05)
            if got is not None:
                received += [event.data for event in got]
                got.ack()
            elif last:
                return


def test_each_event_comes_once(home: PostgresHome, rounds: Rounds, figure: Figure) -> None:
    count = rounds(200, 40_000)
    client = home.client()
    client.pubsub.publish("bus", "orders", -1)
    for number in range(count):
        client.pubsub.publish("bus", "scratch", number)
    with psycopg.connect(home.url) as connection:
        rows = connection.execute(
            f"SELECT f.body FROM {home.schema}.frames f JOIN {home.schema}.topics t ON t.id = f.topic WHERE t.name = 'scratch' ORDER BY f.id".encode()
        ).fetchall()
    bodies = [(number, body) for number, (body,) in enumerate(rows)]
    committed = [-1]
    received: dict[str, list[int]] = {group: [] for group in GROUPS}
    ended = threading.Event()
    writers = [
        threading.Thread(target=write, args=(home, bodies[each::WRITERS], random.Random(each), committed))
        for each in range(WRITERS)
    ]
    readers = [
        threading.Thread(target=receive, args=(home, group, batch, received[group], ended))
        for group in GROUPS
        for batch in (1, 3)
    ]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join()
    client.pubsub.publish("bus", "orders", count)  # the writers woke nobody
    committed.append(count)
    ended.set()
    for thread in readers:
        thread.join()
    assert len(committed) < count
    for group in GROUPS:
        came, stored = Counter(received[group]), Counter(committed)
        assert (stored - came, came - stored) == (Counter(), Counter())  # lost, twice
    figure(
        f"{count:,} events in overlapping transactions on PostgreSQL, a fifth of them undone",
        f"{len(committed):,} committed, each once to each of {len(GROUPS)} groups of two members",
    )
