"""Volume test in a process of its own: events pass through ``send``, the log and a consumer.

Each event arrives, and nothing stays in memory.

``python through_the_log.py HOME COUNT`` prints JSON: how many events were lost or came twice, and how memory went.

Resident memory says little about held memory. Frames of a megabyte are freed in another thread than the one that
allocated them. glibc keeps up to some tens of megabytes of them in its arenas, and no more after millions of events.
So the test also reads the bytes that malloc has handed out.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from typing import Any

from held_memory import EVENT, resident

from cloud_runtimes import CloudRuntimesClient

ROUND = 50_000
"""Events sent, then consumed."""


class _Info(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        ]
    )  # fmt: skip


def held() -> int:
    """Return the bytes that malloc has handed out; where it cannot tell, what is resident."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return resident()
    ask.restype = _Info
    info = ask()
    return int(info.uordblks + info.hblkhd)


def at_rest() -> tuple[int, int, int]:
    """Return what is held, resident, and the interpreter's blocks, while nothing is under way: the least of a second in which the sweeper ran."""
    gc.collect()
    samples = []
    for _ in range(20):
        samples.append((held(), resident(), sys.getallocatedblocks()))
        time.sleep(0.05)
    return min(each[0] for each in samples), min(each[1] for each in samples), min(each[2] for each in samples)


def send_and_consume(client: CloudRuntimesClient, begin: int, count: int) -> tuple[int, int, int]:
    """Send and consume so many by handles of their own; returns how many were lost, came twice, were delivered."""
    event: dict[str, Any] = {**EVENT, "text": "x" * 250}
    lost = twice = 0
    with (
        client.pubsub.subscribe("bus", "t", batch=500) as subscription,
        client.pubsub.publisher("bus", "t") as publisher,
    ):
        for first in range(begin, begin + count, ROUND):
            for number in range(first, first + ROUND):
                event["n"] = number
                publisher.send(event)
            publisher.flush()
            marks = bytearray(ROUND)
            remaining = ROUND
            while remaining:
                batch = subscription.receive(timeout=30)
                if batch is None:
                    break
                for each in batch:
                    index = each.data["n"] - first
                    if 0 <= index < ROUND and not marks[index]:
                        marks[index] = 1
                        remaining -= 1
                    else:
                        twice += 1
                batch.ack()
                del batch, each
            lost += remaining
        return lost, twice, publisher.stats().delivered


def through(home: str, count: int) -> dict[str, Any]:
    """Warm up with as many, then send and consume so many, at rest before and after."""
    settings = {"component": "sqlite", "home": home, "retention": 0.5}
    with CloudRuntimesClient(app_id="volume", config={"pubsub": {"bus": settings}}) as client:
        send_and_consume(client, 0, count)
        before = at_rest()
        lost, twice, delivered = send_and_consume(client, count, count)
        after = at_rest()
    return {
        "lost": lost,
        "twice": twice,
        "delivered": delivered,
        "grown": after[0] - before[0],
        "resident_grown": after[1] - before[1],
        "blocks": after[2] - before[2],
        "resident": after[1],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(through(sys.argv[1], int(sys.argv[2]))))
