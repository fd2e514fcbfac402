"""A pause over several processes: it holds within a second, and survives their restart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Figure, Rounds
from tests.support.pairs import pair
from tests.support.waiting import until

pytestmark = pytest.mark.process
_MEMBER = """
import json, sys, time
from cloud_runtimes import CloudRuntimesClient
config, path = json.loads(sys.argv[1]), sys.argv[2]
out = open(path, "a", buffering=1)
def handler(event):
    out.write(f"{time.time()} {event.data}\\n")
    time.sleep(0.002)
with CloudRuntimesClient(app_id="shop", config=config) as client:
    lease = {"ack_wait": 3} if client.supports("pubsub.ack_wait", "bus") else {}
    with client.pubsub.subscribe("bus", "t", handler, group="g", start="earliest", workers=4, **lease) as subscription:
        print("ready", flush=True)
        subscription.wait()
"""


def _handled(paths: list[Path]) -> list[tuple[float, int]]:
    lines = [line.split() for path in paths if path.exists() for line in path.read_text().splitlines()]
    return [(float(at), int(number)) for at, number in (each for each in lines if len(each) == 2)]


@pytest.mark.parametrize(
    "engines",
    ["sqlite sqlite", "sqlite postgres", "sqlite redis", "sqlite nats", "sqlite kafka", "sqlite rabbitmq-stream"],
)
def test_four_processes(
    engines: str, request: pytest.FixtureRequest, tmp_path: Path, rounds: Rounds, figure: Figure
) -> None:
    paths: list[Path] = []
    with pair(request, tmp_path, engines) as config, ExitStack() as stack:
        client = stack.enter_context(CloudRuntimesClient(app_id="shop", config=config))

        def member() -> subprocess.Popen[bytes]:
            paths.append(tmp_path / f"member{len(paths)}")
            argv = [sys.executable, "-c", _MEMBER, json.dumps(config), str(paths[-1])]
            process = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            return process

        members = [member() for _ in range(4)]
        published = 0

        def publish(events: int) -> None:
            nonlocal published
            client.pubsub.publish_bulk("bus", "t", list(range(published, published + events)))
            published += events

        publish(4000)
        shares = 1 if "kafka" in engines else 4  # its topic has one partition
        assert until(lambda: len([path for path in paths if path.exists() and path.read_text()]) >= shares)
        client.admin.pause("bus", "t", "g")
        paused = time.time()
        publish(1000)
        time.sleep(2)
        for process in members[:2]:
            process.kill()
        for _ in range(2):
            member()
        publish(1000)
        time.sleep(1)
        late = [at - paused for at, _ in _handled(paths) if at > paused]
        assert max(late, default=0.0) < rounds(5, 1)  # on a busy machine a member may not run for a while
        before: Any = len(_handled(paths))
        assert before < published
        client.admin.resume("bus", "t", "g")
        assert until(lambda: {number for _, number in _handled(paths)} == set(range(published)))
        figure(
            f"pause over {engines.split()[1]}",
            f"{before:,} of {published:,} events were handled; the last handler began {max(late, default=0):.2f} s later",
        )
