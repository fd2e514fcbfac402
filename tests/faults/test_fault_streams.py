"""Subscriptions and publishers over a way that breaks: they resume by themselves, and what was published or acknowledged is not lost."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import _lanes
from cloud_runtimes.testing import Api, SyncApi
from tests.faults.fault_cases import BREAKS, SOON, Consumer, publish_through, wait_for_value
from tests.faults.fault_harnesses import FAULTS, Beneath, LayottoFaults
from tests.support import Make, Rounds
from tests.support.attempts import attempts_that_ran_out
from tests.support.fault_proxy import FaultProxy
from tests.support.ports import reserved_port
from tests.support.running import declared, sidecar_process

streaming = pytest.mark.parametrize("beneath", [name for name, each in FAULTS.items() if each.streams], indirect=True)

_topics = (f"topic-{number}" for number in itertools.count())


@streaming
@pytest.mark.parametrize("name", BREAKS)
def test_a_subscription_resumes(
    name: str, beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, rounds: Rounds
) -> None:
    topic, numbers = next(_topics), itertools.count()

    def publish(count: int) -> int:
        some = list(itertools.islice(numbers, count))
        beneath.publish(topic, some)
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
    # what was not acknowledged comes to the next member, and nothing else is there
    with beneath.server.pubsub.subscribe("bus", topic) as rest:
        beneath.publish(topic, [-1])
        while (event := rest.receive(SOON)) is not None and beneath.data_of(event) != -1:
            assert beneath.data_of(event) in consumer.acknowledged  # its acknowledgement was lost on the way
            event.ack()
        assert event is not None


@pytest.mark.parametrize("beneath", [LayottoFaults.name], indirect=True)
def test_a_sidecar_that_notices_late(
    beneath: LayottoFaults, proxy: FaultProxy, api: Api, connect: Make, rounds: Rounds
) -> None:
    """It lets nobody in, and gives events to nobody, until it has seen that the stream is gone."""
    topic, late = next(_topics), float(rounds(1, 30))
    with api.opened(api.call(connect().pubsub, "subscribe", "bus", topic, timeout=SOON)) as sub:
        consumer = Consumer(api, sub)
        beneath.publish(topic, list(range(5)))
        consumer.take_all(5)
        beneath.quirks.notices_late = late
        try:
            proxy.break_all("reset")
            beneath.publish(topic, list(range(5, 10)))
            consumer.take_all(10, SOON + 3 * late)
        finally:
            beneath.quirks.notices_late = 0.0
    # each event at most once more for each stream that has ended in between
    assert all(count <= 2 for number, count in consumer.acknowledged.items() if number >= 5)


@pytest.mark.promise("B6")
@streaming
def test_a_subscription_to_configuration_resumes(beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make) -> None:
    store = next(_topics)
    beneath.server.configuration.save_configuration(store, {"a": "0"})
    sub = api.call(connect().configuration, "subscribe_configuration", store, ["a"], timeout=SOON)
    with api.opened(sub):
        for number, begin in enumerate((BREAKS["reset"], BREAKS["half-open"], BREAKS["gone"]), 1):
            begin(proxy)
            beneath.server.configuration.save_configuration(store, {"a": str(number)})
            proxy.heal()
            if begin is BREAKS["gone"]:
                proxy.back()
            wait_for_value(api, sub, "a", str(number))


def test_a_publisher_gets_through(beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make) -> None:
    topic, count = next(_topics), 600
    publish_through(beneath.server, connect(timeout=SOON), proxy, api, topic, count, every=150)


def test_a_publisher_goes_on_where_a_slow_way_has_stopped_it(
    beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, batches, size = next(_topics), 12 if beneath.bulk else 3, 5
    beneath.publish_in_parts(monkeypatch, size)
    client = connect(timeout=SOON)
    api.call(client.pubsub, "publish", "bus", next(_topics), 0)  # it is connected
    monkeypatch.setattr(_lanes, "ATTEMPT", 0.05)  # less than a request takes
    ended = attempts_that_ran_out(monkeypatch)
    proxy.up.latency = 0.06
    with beneath.server.pubsub.subscribe("bus", topic) as sub:
        with api.opened(client.pubsub.publisher("bus", topic, batch_events=size, linger=1)) as publisher:
            for number in range(batches * size):
                publisher.send(number)
            api.call(publisher, "flush", SOON)
            assert publisher.stats().delivered == batches * size
        proxy.heal()
        beneath.server.pubsub.publish("bus", topic, -1)
        came: list[int] = []
        while (event := sub.receive(SOON)) is not None and event.data != -1:
            event.ack()
            came.append(beneath.data_of(event))
    assert list(dict.fromkeys(came)) == list(range(batches * size))  # in order, and all
    # what had arrived was not sent again, but for the requests under way when attempts ended
    assert len(came) <= batches * size + len(ended) * size
    assert ended


@pytest.mark.process
def test_a_sidecar_that_is_killed(tmp_path: Path, rounds: Rounds) -> None:
    home = str(tmp_path / "home")
    with (
        reserved_port() as port,
        CloudRuntimesClient(app_id="app", config=declared(home)) as direct,
        CloudRuntimesClient(f"grpc://127.0.0.1:{port}", app_id="app", timeout=SOON) as client,
    ):
        with sidecar_process(home, grpc_port=port) as first:
            sub = client.pubsub.subscribe("store", "topic")
            consumer = Consumer(SyncApi(), sub)
            direct.pubsub.publish_bulk("store", "topic", list(range(20)))
            # at full length, what the killed one had fetched comes when its lease is over
            consumer.take_all(rounds(20, 10))
            os.kill(first.pid, signal.SIGKILL)
        direct.pubsub.publish_bulk("store", "topic", list(range(20, 40)))
        with sidecar_process(home, grpc_port=port):
            consumer.take_all(40)
            sub.close()
