"""A process on a machine of its own, as far as its home, working directory and environment go: serves, consumes, watches, runs jobs, and tells."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from cloud_runtimes import CloudRuntimesClient


def say(**fields: Any) -> None:
    os.write(1, (json.dumps(fields) + "\n").encode())


def main() -> None:
    client = CloudRuntimesClient(app_id="warehouse")

    @client.rpc.method("double")
    def double(number: int) -> int:
        return number * 2

    @client.schedule.job("tick")
    def tick(data: Any) -> None:
        say(ran=data)

    def changed(items: Any) -> None:
        say(configured={key: item.value for key, item in items.items()})

    with (
        client,
        client.pubsub.subscribe("bus", "orders", lambda event: say(event=event.data), start="earliest"),
        client.configuration.subscribe_configuration("app", handler=changed),
        client.rpc.serving(host=sys.argv[1]),
        client.schedule.running(),
        client.lock.hold("locks", "door", expiry=60.0) as lease,
    ):
        client.schedule.schedule_job("tick", due_time=0.1, target=tick, data=[1], overwrite=True)
        say(ready=True, token=lease.token)
        sys.stdin.readline()
        lease.release()
        say(released=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
