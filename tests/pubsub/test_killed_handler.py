"""A process that is killed half-way through a handler slower than ``ack_wait``: its event comes again within ``ack_wait`` + 2 s, on every engine with leases."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Figure
from tests.support.harnesses.nats import NatsHome
from tests.support.harnesses.postgres import PostgresHome
from tests.support.harnesses.rabbitmq import RabbitHome
from tests.support.harnesses.redis import RedisHome
from tests.support.waiting import Stopwatch

pytestmark = pytest.mark.process

ACK_WAIT = 2.0
HOMES: dict[str, tuple[Any, str]] = {
    "postgres": (PostgresHome, "postgres_url"),
    "redis": (RedisHome, "valkey_server"),
    "nats": (NatsHome, "nats_server"),
    "rabbitmq": (RabbitHome, "rabbitmq_url"),
}
SLOW = """
import json, sys, time
from cloud_runtimes import CloudRuntimesClient

def handle(event):
    print(event.data, event.delivery_count, flush=True)
    time.sleep(60)

with CloudRuntimesClient(app_id="suite", config=json.loads(sys.argv[1])) as client:
    with client.pubsub.subscribe("bus", "t", handle, **json.loads(sys.argv[2])):
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.fixture(params=["sqlite", *HOMES])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "sqlite":
        yield {"capa": {"home": str(tmp_path / "home")}}
        return
    make, server = HOMES[request.param]
    harness = make(request.getfixturevalue(server))
    yield harness.config()
    harness.close()


def _options(config: dict[str, Any]) -> dict[str, Any]:
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        return {"ack_wait": ACK_WAIT} if client.supports("pubsub.ack_wait", "bus") else {}


@pytest.mark.promise("A3")
@pytest.mark.parametrize("order", [None, "key"])
def test_killed_half_way(config: dict[str, Any], order: str | None, figure: Figure, request: Any) -> None:
    options = _options(config)
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        if order is not None:
            if not client.supports("pubsub.key_order", "bus"):
                pytest.skip("pubsub.key_order is not declared")
            options["order"] = order
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, json.dumps(config), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            client.pubsub.publish("bus", "t", 1, key="k")
            assert process.stdout.readline().split()[0] == b"1"
            with client.pubsub.subscribe("bus", "t", **options) as sub:
                assert sub.receive(3 * ACK_WAIT) is None  # the handler keeps it
                with Stopwatch() as watch:
                    process.kill()
                    event = sub.receive(60)
                assert event is not None
                assert (event.data, event.delivery_count) in ((1, 2), (1, None))
                event.ack()
            assert watch.seconds < ACK_WAIT + 2
        finally:
            process.kill()
            process.communicate()
        assert not client.supports("pubsub.lag", "bus") or client.pubsub.lag("bus", "t") == 0
    engine = request.node.callspec.params["config"]
    figure(f"killed half-way through a handler on {engine}, order {order}", f"again after {watch.seconds:.1f} s")
