"""A process that publishes through a spool, to be killed at any moment: it says up to where its events are durable."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from cloud_runtimes import CloudRuntimesClient

KEYS = 50
PAYLOAD = {"sku": "s", "quantity": 3, "price": 1.5}


def memory() -> int:
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(config: str, first: str, rate: str) -> None:
    """Publish ``rate`` events a second from number ``first`` on; tell the last durable number, and the memory, every 50 ms."""
    number, step = int(first), max(1, int(rate) // 20)
    with CloudRuntimesClient(app_id="shop", config=json.loads(config)) as client:
        with client.pubsub.publisher("bus", "t") as publisher:
            due = time.monotonic()
            while True:
                for _ in range(step):
                    publisher.send(
                        {**PAYLOAD, "number": number}, key=f"k{number % KEYS}", attributes={"id": str(number)}
                    )
                    number += 1
                publisher.flush()
                os.write(1, f"{number} {memory()}\n".encode())
                due += 0.05
                time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
