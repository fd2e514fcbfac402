"""SIGKILL at any moment of outbox and inbox transactions: never one without the other, on both engines."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.pubsub.transacting import handler
from tests.support import Figure, Rounds
from tests.support.child import Child
from tests.support.harnesses.postgres import PostgresHome
from tests.support.waiting import until

pytestmark = pytest.mark.process


@pytest.fixture(params=["sqlite", "postgres"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "sqlite":
        yield {"capa": {"home": str(tmp_path / "home")}}
        return
    harness = PostgresHome(request.getfixturevalue("postgres_url"))
    yield {"capa": {"home": {"url": harness.url, "schema": harness.schema}}}
    harness.close()


def _payloads(client: CloudRuntimesClient, topic: str) -> list[int]:
    """Return what a topic holds, in order, read by a group of its own."""
    payloads: list[int] = []
    with client.pubsub.subscribe("bus", topic, group="audit", batch=1000) as sub:
        while client.pubsub.lag("bus", topic, group="audit"):
            if (batch := sub.receive(0.5)) is not None:
                payloads += [event.data for event in batch]
                batch.ack()
    return payloads


def _numbers(keys: list[str], kind: str) -> set[int]:
    return {int(key.removeprefix(kind)) for key in keys if key.startswith(kind)}


@pytest.mark.promise("A4", figure="SIGKILL of outbox and inbox transactions")
def test_killed_transactions(config: dict[str, Any], rounds: Rounds, figure: Figure, request: Any) -> None:
    count, seed = rounds(5, 200), random.randrange(10_000)
    script = Path(__file__).parent / "transacting.py"
    child = Child(script, json.dumps(config), seed, count)
    try:
        assert child.line() == {"rounds": count}, f"seed {seed}"
    finally:
        child.close()
    with CloudRuntimesClient(app_id="shop", config=config) as client:
        published = _payloads(client, "orders")
        orders = _numbers(client.state.list_keys("orders", "order-"), "order-")
        assert Counter(published) == Counter(orders), f"seed {seed}"
        # what was not done is delivered again, and what was done is not
        with client.pubsub.subscribe("bus", "orders", handler(client), group="shop", workers=4):
            until(lambda: len(client.state.list_keys("orders", "done-")) >= len(orders))
        with client.pubsub.subscribe("bus", "orders", group="shop") as sub:
            assert sub.receive(1.5) is None
        keys = client.state.list_keys("orders")
        done = _numbers(keys, "done-")
        assert done == orders, f"seed {seed}"
        assert Counter(_payloads(client, "results")) == Counter(done), f"seed {seed}"
        assert not _numbers(keys, "twice-"), f"seed {seed}"
    name = request.node.callspec.params["config"]
    figure(
        f"SIGKILL of outbox and inbox transactions on {name}, {2 * count} kills",
        f"{len(orders):,} transactions of each kind, never one without the other",
    )
