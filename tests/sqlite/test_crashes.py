"""SIGKILL at any moment: nothing acknowledged is lost, nothing is torn, everything is handled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient

pytestmark = pytest.mark.process


@pytest.mark.parametrize("body", ["publish_until_killed", "batch_until_killed"])
def test_killed_producers_lose_nothing_acknowledged(
    start: Callable[..., Any], rounds: Callable[[int, int], int], figure: Callable[[str, str], None], body: str
) -> None:
    acknowledged: set[tuple[str, int]] = set()
    count = rounds(3, 20)
    for number in range(count):
        producers = {f"{number}-{side}": start(body, f"{number}-{side}") for side in "ab"}
        for producer in producers.values():
            producer.ready()
        time.sleep(random.uniform(0.1, 0.5))
        for name, producer in producers.items():
            for line in producer.kill():
                if "acked" in line:
                    acknowledged.add((name, line["acked"]))
                elif "delivered" in line:  # sequence numbers begin at 1, data at 0
                    acknowledged.update((name, each) for each in range(line["delivered"]))
    (found,) = start("check").rest()
    assert found["integrity"] == "ok"
    stored = {(name, each) for name, each in found["data"]}
    lost = acknowledged - stored
    assert len(acknowledged) > 20 * count
    assert not lost
    assert len(stored) == len(found["data"]) == found["distinct"]
    figure(
        f"SIGKILL of two producers, {count} rounds, {body.split('_')[0]}",
        f"{len(acknowledged):,} acknowledged, 0 lost, 0 twice, integrity ok",
    )


def test_killed_consumers_leave_nothing_unhandled(
    start: Callable[..., Any],
    home: Path,
    client: CloudRuntimesClient,
    rounds: Callable[[int, int], int],
    figure: Callable[[str, str], None],
) -> None:
    ack_wait = 0.5
    handled: set[int] = set()
    late = 0.0
    count = rounds(4, 50)
    client.pubsub.publish_bulk("bus", "t", list(range(count * 4)))
    pending: dict[int, float] = {}  # begun and not ended, and when its consumer died
    for _ in range(count):
        consumer = start("consume_slowly", ack_wait).ready()
        running: int | None = None
        while running is None or random.random() < 0.6:
            line = consumer.line()
            if "begin" in line:
                running = line["begin"]
                if running in pending:
                    late = max(late, line["at"] - pending.pop(running))
            elif line["end"] == running:
                handled.add(line["end"])
                running = None
            if len(handled) == count * 4:
                break
        for line in consumer.kill():
            if "end" in line:
                handled.add(line["end"])
                running = None if line["end"] == running else running
            else:
                running = line["begin"]
                pending.pop(running, None)
        if running is not None and running not in handled:
            pending[running] = time.monotonic()
    last = start("consume_slowly", ack_wait).ready()
    deadline = time.monotonic() + 60
    while len(handled) < count * 4 and time.monotonic() < deadline:
        line = last.line()
        if "end" in line:
            handled.add(line["end"])
        elif line["begin"] in pending:
            late = max(late, line["at"] - pending.pop(line["begin"]))
    assert handled == set(range(count * 4))
    assert late < ack_wait + 1.0
    figure(
        f"SIGKILL of a consumer in its handler, {count} rounds",
        f"{len(handled)} of {count * 4} handled, redelivered at most {late:.2f} s after the kill (ack_wait {ack_wait} s)",
    )
