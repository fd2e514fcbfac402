"""A real daprd over a way that breaks, and one that is killed and comes back: subscriptions resume, and nothing that was published or acknowledged is lost. Without a daprd this is skipped.

Its server ends connections that ask more often than every eight seconds whether it is there, so what only silence tells is tried on sidecars of ours alone.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Api
from tests.faults.fault_cases import BREAKS, SOON, Consumer, publish_through, wait_for_value
from tests.faults.fault_harnesses import TOKEN, Beneath
from tests.support import Make, Rounds
from tests.support.daprd import Daprd, component, redis_call, redis_component, redis_process, tried_again
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.process
if not os.environ.get("DAPRD"):
    pytest.skip("DAPRD names no daprd", allow_module_level=True)
LOUD = [name for name in BREAKS if name != "answers are lost" and not name.startswith("half-open")]
_topics = (f"topic-{number}" for number in itertools.count())


class DaprdFaults(Beneath):
    """The runtime dapr over gRPC, and a daprd whose events and configuration are in Redis."""

    name = "daprd over gRPC"
    table = "dapr"
    streams = True
    larger = False
    quiet = False
    sees_garbage = False
    has_token = False
    bulk = True
    asks_first = True

    def __init__(self, folder: Path, redis: int) -> None:
        settings = {"consumerID": "faults", "processingTimeout": "2000", "redeliverInterval": "500"}
        settings["poolSize"] = "500"  # each subscription has a connection, for a while after its end too
        parts = [
            redis_component("bus", "pubsub.redis", redis, **settings),
            redis_component("settings", "configuration.redis", redis, 1),
            component("store", "state.in-memory"),
        ]
        resources = {"components": "---\n".join(parts), "policy": tried_again("bus", times=5)}
        self.daprd = Daprd(os.environ["DAPRD"], folder, resources)
        self.redis = redis
        self.port = self.daprd.grpc
        self.server = self.client(self.port, timeout=20)

    def client(
        self, port: int, *, host: str = "127.0.0.1", token: str = TOKEN, tls: bool = False, **arguments: Any
    ) -> CloudRuntimesClient:
        return CloudRuntimesClient(f"grpc://{host}:{port}", app_id="suite", **arguments)

    def publish_in_parts(self, patched: pytest.MonkeyPatch, events: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.server.close()
        self.daprd.close()


@pytest.fixture(scope="module")
def beneath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaprdFaults]:
    with redis_process(tmp_path_factory.mktemp("redis")) as redis:
        if redis is None:
            pytest.skip("there is no redis-server")
        instance = DaprdFaults(tmp_path_factory.mktemp("daprd"), redis)
        yield instance
        instance.close()


@pytest.mark.parametrize("name", LOUD)
def test_a_subscription_resumes(
    name: str, beneath: DaprdFaults, proxy: FaultProxy, api: Api, connect: Make, rounds: Rounds
) -> None:
    topic, numbers = next(_topics), itertools.count()

    def publish(count: int) -> int:
        some = list(itertools.islice(numbers, count))
        beneath.server.pubsub.publish_bulk("bus", topic, some)
        return some[-1] + 1

    with api.opened(api.call(connect().pubsub, "subscribe", "bus", topic, timeout=SOON)) as sub:
        consumer = Consumer(api, sub)
        consumer.take_all(publish(5))
        for _ in range(rounds(1, 20)):
            publish(5)
            BREAKS[name](proxy)
            count = publish(5)
            for _ in range(5):
                consumer.take(0.02)
            proxy.heal()
            if name == "gone":
                proxy.back()
            consumer.take_all(count)


def test_a_subscription_to_configuration_resumes(
    beneath: DaprdFaults, proxy: FaultProxy, api: Api, connect: Make
) -> None:
    def change(value: str) -> None:
        redis_call(beneath.redis, "SET", "a", value, database=1)

    change("0")
    sub = api.call(connect().configuration, "subscribe_configuration", "settings", ["a"], timeout=SOON)
    with api.opened(sub):
        for number, name in enumerate(("reset", "ended", "gone"), 1):
            BREAKS[name](proxy)
            change(str(number))
            proxy.heal()
            if name == "gone":
                proxy.back()
            wait_for_value(api, sub, "a", str(number))


def test_a_publisher_gets_through(beneath: DaprdFaults, proxy: FaultProxy, api: Api, connect: Make) -> None:
    topic, count = next(_topics), 300
    publish_through(beneath.server, connect(timeout=SOON), proxy, api, topic, count, every=100)


def test_one_that_is_killed_in_mid_stream(
    beneath: DaprdFaults, proxy: FaultProxy, api: Api, connect: Make, rounds: Rounds
) -> None:
    topic, count = next(_topics), 0
    client = connect(timeout=SOON)
    with api.opened(api.call(client.pubsub, "subscribe", "bus", topic, timeout=SOON)) as sub:
        consumer = Consumer(api, sub)
        with api.opened(client.pubsub.publisher("bus", topic)) as publisher:
            for _ in range(rounds(2, 10)):
                for number in range(count, count + 20):
                    publisher.send(number)
                api.call(publisher, "flush", SOON)
                while len(consumer.acknowledged) < count + 10:
                    assert consumer.take(SOON)
                beneath.daprd.kill()
                for number in range(count + 20, count + 40):
                    publisher.send(number)  # nobody is there: it is tried again
                beneath.daprd.start()
                count += 40
                consumer.take_all(count)
                api.call(publisher, "flush", SOON)
            assert (publisher.stats().delivered, publisher.stats().failed) == (count, 0)
    # what was acknowledged is done, but for an answer that was on its way when it was killed
    with beneath.server.pubsub.subscribe("bus", topic) as rest:
        beneath.server.pubsub.publish("bus", topic, -1)
        while (event := rest.receive(SOON)) is not None and event.data != -1:
            assert event.data in consumer.acknowledged
            event.ack()
        assert event is not None
