"""A cluster of three, whose nodes are killed in turn."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.rabbitmq.test_faults import YOUNG
from tests.support import Figure, Rounds
from tests.support.needs import present
from tests.support.rabbitmq import serve_cluster

pytestmark = pytest.mark.soak


def test_nodes_are_killed(rounds: Rounds, figure: Figure) -> None:
    """Nodes are killed one after another, while a publisher and a member go on. No acknowledged event is lost."""
    chance = random.Random(7)
    turns = rounds(2, 30)
    with ExitStack() as resources:
        nodes = resources.enter_context(present(serve_cluster()))
        url = "amqp://guest:guest@" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        config = {"capa": {"home": {"url": url, "groups": ["suite"]}}}
        client = resources.enter_context(CloudRuntimesClient(app_id="suite", config=config, timeout=60))
        seen: Counter[int] = Counter()
        subscription = client.pubsub.subscribe("bus", "t", lambda event: seen.update([event.data]))
        publisher = client.pubsub.publisher("bus", "t", batch_events=50)
        time.sleep(YOUNG)
        sent = 0
        for turn in range(turns):
            victim = nodes[turn % len(nodes)]
            end = time.monotonic() + chance.uniform(1, 3)
            killed = False
            while time.monotonic() < end or not killed:
                for _ in range(100):
                    publisher.send(sent)
                    sent += 1
                if not killed and chance.random() < 0.1:
                    victim.kill()
                    killed = True
                time.sleep(0.02)
            publisher.flush(60)
            victim.start()
        publisher.close()
        end = time.monotonic() + 60
        while len(seen) < sent and time.monotonic() < end:
            time.sleep(0.1)
        subscription.close()
        assert set(seen) == set(range(sent))
        again = sum(seen.values()) - len(seen)
    figure(
        "a node of three of RabbitMQ killed",
        f"{turns} times: {sent:,} events acknowledged, 0 absent; {again:,} handled again",
    )
