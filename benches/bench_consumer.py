"""Consumer: a group that takes batches and answers them, durably."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from benches.bench_producer import rows
from cloud_runtimes import CloudRuntimesClient

COUNT = 20_000
BATCH = 100


def bench_consume(beside: Any, tmp_path: Path, event: dict[str, Any]) -> None:
    """Ours: a group with answers, at least once. The peer deletes 100 rows a transaction and returns them: no group, and what was taken is gone if the process dies."""
    body = orjson.dumps(event)
    by_hand = rows(tmp_path / "hand.db")
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}, app_id="bench") as client:
        subscription = client.pubsub.subscribe("bus", "t", group="bench", batch=BATCH)
        publisher = client.pubsub.publisher("bus", "t")

        def fill() -> None:
            for _ in range(COUNT):
                publisher.send(event)
            publisher.flush()
            by_hand.execute("BEGIN IMMEDIATE")
            by_hand.executemany("INSERT INTO events (body) VALUES (?)", ((body,) for _ in range(COUNT)))
            by_hand.execute("COMMIT")

        def ours() -> None:
            remaining = COUNT
            while remaining:
                got = subscription.receive(timeout=10)
                assert got is not None
                remaining -= len(got)
                got.ack()

        def delete_returning() -> None:
            remaining = COUNT
            sql = "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT ?) RETURNING body"
            while remaining:
                remaining -= len(by_hand.execute(sql, (BATCH,)).fetchall())

        beside(
            "consume in batches of 100",
            ours,
            {"SQLite DELETE … RETURNING of 100": delete_returning},
            goals={"SQLite DELETE … RETURNING of 100": 3},
            per=COUNT,
            unit="event",
            slices=True,
            before=fill,
        )
        subscription.close()
