"""An operator's work on each broker: a handler with four faults is seen by its dead letters, mended, and its group alone gets them again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import DropEvent, Event
from tests.support import Figure, Rounds
from tests.support.pairs import pair
from tests.support.waiting import until

pytestmark = pytest.mark.process
_REDRIVER = """
import json, sys
from cloud_runtimes import CloudRuntimesClient
with CloudRuntimesClient(app_id="shop", config=json.loads(sys.argv[1])) as client:
    print("ready", flush=True)
    client.admin.redrive("bus", "dead", group="billing")
"""
_OTHERS = ("mail", "audit")
_FAULTS = {
    ("dropped", "DropEvent"): 1,
    ("deliveries", "ValueError"): 2,
    ("deliveries", "KeyError"): 3,
    ("undecodable", "PayloadError"): 4,
}
"""Reason and error → last digit of the events that fail so."""


def _faulty(event: Event[int]) -> None:
    match event.data % 10:
        case 1:
            raise DropEvent("no such customer")
        case 2:
            raise ValueError("no such currency")
        case 3:
            raise KeyError("price")


def _data(number: int) -> Any:
    return f"{number}" if number % 10 == 4 else number  # the fourth fault: text where a number was asked for


@pytest.mark.parametrize(
    "engines",
    ["sqlite sqlite", "sqlite postgres", "sqlite redis", "sqlite nats", "sqlite kafka", "sqlite rabbitmq-stream"],
)
def test_a_group_is_mended(
    engines: str, request: pytest.FixtureRequest, tmp_path: Path, rounds: Rounds, figure: Figure
) -> None:
    events, kills = rounds(1000, 100_000), rounds(3, 20)
    # what is published while a stream is copied for a group may come twice
    start = "latest" if "stream" in engines else "earliest"
    with pair(request, tmp_path, engines) as config, ExitStack() as stack:
        client = stack.enter_context(CloudRuntimesClient(app_id="shop", config=config))
        bus = client.pubsub
        seen: dict[str, Counter[int]] = {group: Counter() for group in _OTHERS}

        def noting(group: str) -> Any:
            def note(event: Event[Any]) -> None:
                seen[group][int(event.data)] += 1

            return note

        subscriptions = [
            stack.enter_context(bus.subscribe("bus", "t", noting(group), group=group, start=start)) for group in _OTHERS
        ]
        options: dict[str, Any] = {"group": "billing", "start": start, "dead_letter_topic": "dead"}
        faulty = bus.subscribe("bus", "t", _faulty, type=int, max_deliveries=2, workers=4, **options)
        begun = time.monotonic()
        with bus.publisher("bus", "t") as publisher:
            for number in range(events):
                publisher.send(_data(number))
        failed = {number for number in range(events) if 1 <= number % 10 <= 4}
        assert until(
            lambda: sum(each.count for each in client.admin.dead_letters("bus", "dead")) == len(failed), seconds=600
        )
        faulty.close()
        letters = client.admin.dead_letters("bus", "dead")
        assert {(each.reason, each.error): each.count for each in letters} == dict.fromkeys(_FAULTS, events // 10)
        assert {(each.group, each.topic) for each in letters} == {("billing", "t")}
        assert until(lambda: all(sum(seen[group].values()) >= events for group in _OTHERS), seconds=600)
        told = time.monotonic() - begun

        handled: set[int] = set()

        # the handler is mended, and writes each event once into its store
        def mended(event: Event[Any]) -> None:
            with event.transaction("orders") as transaction:
                number = int(event.data)
                before = client.state.get("orders", f"order-{number}", type=int)
                transaction.save(f"order-{number}", (before or 0) + 1)
            handled.add(number)

        subscriptions.append(stack.enter_context(bus.subscribe("bus", "t", mended, workers=4, **options)))
        stop, published = threading.Event(), [events]

        def produce() -> None:
            while not stop.wait(0.01):
                bus.publish("bus", "t", published[0])
                published[0] += 1

        producer = threading.Thread(target=produce)
        producer.start()
        try:
            interrupted = 0
            for _ in range(kills):
                with subprocess.Popen(
                    [sys.executable, "-c", _REDRIVER, json.dumps(config)], stdout=subprocess.PIPE
                ) as process:
                    assert process.stdout is not None
                    assert process.stdout.readline() == b"ready\n"
                    time.sleep(random.uniform(0.0, 0.1))
                    process.kill()
                interrupted += client.admin.redrive("bus", "dead", dry_run=True).count > 0
            client.admin.redrive("bus", "dead", group="billing")
        finally:
            stop.set()
            producer.join()
        later = range(events, published[0])
        assert client.admin.dead_letters("bus", "dead") == []
        groups = ("billing", *_OTHERS)
        if client.supports("pubsub.lag", "bus"):
            assert until(lambda: not any(bus.lag("bus", "t", group=group) for group in groups), seconds=600)
        else:  # its groups are counted once they have no members
            everything = {*range(events), *later}
            assert until(lambda: handled >= {*failed, *later}, seconds=600)
            assert until(lambda: all(seen[group].keys() == everything for group in _OTHERS), seconds=600)
            for subscription in subscriptions:
                subscription.close()
            assert not any(client.admin.delete_group("bus", "t", group, dry_run=True) for group in groups)
        effects = {number: client.state.get("orders", f"order-{number}", type=int) for number in {*failed, *later}}
        assert Counter(effects.values()) == {1: len(failed) + len(later)}
        for group in _OTHERS:
            assert seen[group].keys() == {*range(events), *later}
            again = [number for number, times in seen[group].items() if times > 1]
            assert not set(again) & failed, "another group saw redriven events"
        figure(
            f"a group is mended on {engines.split()[1]}",
            f"{len(letters)} rows of {len(failed):,} dead letters of {events:,} events after {told:.0f} s; redriven while {len(later):,} "
            f"were published and {kills} redrivers killed, {interrupted} of them at work: each handled once, no other group saw one",
        )
