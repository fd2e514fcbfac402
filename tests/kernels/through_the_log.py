"""What a test of volume runs in a process of its own: events through ``send``, the log and a consumer; each arrives, and nothing stays in memory.

``python through_the_log.py HOME COUNT`` prints JSON: how many were lost and came twice, and how memory went.

What is resident tells little of what is held: frames of a megabyte are freed in another thread than they were made in, and glibc keeps up to some tens of megabytes of them in its arenas, now more, now less. So what malloc has handed out is read as well.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Sequence
from statistics import linear_regression, median
from typing import Any

from held_memory import EVENT, resident

from cloud_runtimes import CloudRuntimesClient

ROUND = 50_000
"""Events sent, then consumed."""


WINDOW = 10
"""Rounds of which the least counts: at another moment a frame or a page of SQLite's cache is in hand."""


class _Info(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def held() -> int:
    """Return the bytes that malloc has handed out; where it cannot tell, what is resident."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return resident()
    ask.restype = _Info
    info = ask()
    return int(info.uordblks + info.hblkhd)


def floor(values: Sequence[int]) -> list[int]:
    """Return the least of each `WINDOW`."""
    return [min(values[at : at + WINDOW]) for at in range(0, len(values) - WINDOW + 1, WINDOW)]


def slope(events: Sequence[int], values: Sequence[int]) -> float:
    """Return by how much the floor rises with each event."""
    return linear_regression(floor(events), floor(values)).slope


def through(home: str, count: int) -> dict[str, Any]:
    """Send and consume so many; the first fifth, and at least two rounds, warm up."""
    settings = {"component": "sqlite", "home": home, "retention": 0.5}
    event: dict[str, Any] = {**EVENT, "text": "x" * 250}
    lost = twice = 0
    seen: list[tuple[int, int, int, int]] = []
    with CloudRuntimesClient(app_id="volume", config={"pubsub": {"bus": settings}}) as client:
        subscription = client.pubsub.subscribe("bus", "t", batch=500)
        publisher = client.pubsub.publisher("bus", "t")
        for begin in range(0, count, ROUND):
            for number in range(begin, begin + ROUND):
                event["n"] = number
                publisher.send(event)
            publisher.flush()
            marks = bytearray(ROUND)
            left = ROUND
            while left:
                batch = subscription.receive(timeout=30)
                if batch is None:
                    break
                for each in batch:
                    place = each.data["n"] - begin
                    if 0 <= place < ROUND and not marks[place]:
                        marks[place] = 1
                        left -= 1
                    else:
                        twice += 1
                batch.ack()
                del batch, each
            lost += left
            gc.collect()
            seen.append((begin + ROUND, held(), resident(), sys.getallocatedblocks()))
        stats = publisher.stats()
        subscription.close()
    warm = seen[max(2, len(seen) // 5) :]
    events, memory, pages, blocks = zip(*warm, strict=True)
    third = -(-len(warm) // 3)
    enough = len(warm) >= 4 * WINDOW
    return {
        "lost": lost,
        "twice": twice,
        "delivered": stats.delivered,
        "grown": median(memory[-third:]) - median(memory[:third]),
        "slope": slope(events, memory) if enough else None,
        "resident_slope": slope(events, pages) if enough else None,
        "blocks": median(blocks[-third:]) - median(blocks[:third]),
        "resident": max(pages),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(through(sys.argv[1], int(sys.argv[2]))))
