"""What a test of volume runs in a process of its own: events through ``send``, the log and a consumer; each arrives, and nothing stays in memory.

``python through_the_log.py HOME COUNT`` prints JSON: how many were lost and came twice, and how memory went.
"""

from __future__ import annotations

import gc
import json
import sys
from statistics import linear_regression, median
from typing import Any

from held_memory import EVENT, resident

from cloud_runtimes import CloudRuntimesClient

ROUND = 50_000
"""Events sent, then consumed."""


def through(home: str, count: int) -> dict[str, Any]:
    """Send and consume so many; the first fifth, and at least two rounds, warm up."""
    settings = {"component": "sqlite", "home": home, "retention": 0.5}
    event: dict[str, Any] = {**EVENT, "text": "x" * 250}
    lost = twice = 0
    seen: list[tuple[int, int, int]] = []
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
            seen.append((begin + ROUND, resident(), sys.getallocatedblocks()))
        stats = publisher.stats()
        subscription.close()
    warm = seen[max(2, len(seen) // 5) :]
    events, memory, blocks = zip(*warm, strict=True)
    third = -(-len(warm) // 3)
    return {
        "lost": lost,
        "twice": twice,
        "delivered": stats.delivered,
        "grown": median(memory[-third:]) - median(memory[:third]),
        "slope": linear_regression(events, memory).slope,
        "blocks": median(blocks[-third:]) - median(blocks[:third]),
        "resident": memory[-1],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(through(sys.argv[1], int(sys.argv[2]))))
