"""A process that handles events in transactions of a store of another engine, to be killed at any moment."""

from __future__ import annotations

import json
import os
import sys
import uuid
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import Event


def main(client: CloudRuntimesClient) -> None:
    """Handle events until the standard input ends. Each time that one is handled leaves a key of its own."""

    def handle(event: Event[int]) -> None:
        with event.transaction("orders") as tx:
            tx.save(f"done-{event.data}-{uuid.uuid4()}", event.data)

    options: dict[str, Any] = {"ack_wait": 1.0} if client.supports("pubsub.ack_wait", "bus") else {}
    with client.pubsub.subscribe("bus", "t", handle, group="shop", workers=4, **options):
        os.write(1, b"ready\n")
        sys.stdin.read()


if __name__ == "__main__":
    with CloudRuntimesClient(app_id="shop", config=json.loads(sys.argv[1])) as application:
        main(application)
