"""Producers, consumers and a broker are killed, networks parted, members come and go: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError, DeadlineExceededError
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support.fault_proxy import FaultProxy, Way
from tests.support.waiting import Stopwatch

__all__ = ["KILLS", "Config", "at_home", "come_and_go", "dead", "kill_all", "outlast", "outlast_harm", "slow", "stall"]

Config: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Makes a configuration of settings."""
_NOTHING: Mapping[str, Any] = {}
KILLS = "SIGKILL of producers, consumers and servers, and partitions"
"""What `kill_all` does, for its figure."""
PRODUCER = """
import json, sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="suite", config=json.loads(sys.argv[1]))
number = int(sys.argv[2])
with client.pubsub.publisher("bus", "t", batch_events=50, delivery_timeout=60) as publisher:
    while True:
        for _ in range(100):
            publisher.send(number)
            number += 1
        publisher.flush()
        print(number, flush=True)
"""
CONSUMER = """
import json, sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="suite", config=json.loads(sys.argv[1]))
with client.pubsub.subscribe("bus", "t", batch=20, **json.loads(sys.argv[2])) as sub:
    for batch in sub:
        for event in batch:
            print(event.data)
        sys.stdout.flush()
        batch[0].retry(0)
        batch.ack()
"""


class _Server(Protocol):
    """A broker that runs."""

    url: str
    port: int

    def start(self) -> None:
        """Start it again."""

    def kill(self) -> None:
        """SIGKILL it."""


def _run(program: str, out: IO[bytes], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=out, stderr=subprocess.DEVNULL)


def _numbers(file: IO[bytes]) -> list[int]:
    """Return what was written whole."""
    file.seek(0)
    return [int(line) for line in file.read().rpartition(b"\n")[0].split()]


def at_home(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a home."""
    return {"capa": {"home": settings}}


def kill_all(
    server: _Server,
    turns: int,
    folder: Path,
    more: Mapping[str, Any] = _NOTHING,
    start: str | None = "earliest",
    ack_wait: float | None = 1,
    config: Config = at_home,
    proxy: FaultProxy | None = None,
    patience: float = 20,
) -> str:
    """Kill a producer, a consumer and their broker in each turn, and part them for a moment; assert that nothing acknowledged was lost, and return the figures.

    ``more``: further settings, of which ``config`` makes the configuration. ``start`` and ``ack_wait``: of the group, where the component has them. ``proxy``: before the broker, where it must know one. ``patience``: seconds after which an event that is absent is lost.
    """
    chance = random.Random(7)
    options = {"start": start, "ack_wait": ack_wait}
    acknowledged: set[int] = set()
    seen: Counter[int] = Counter()
    first = 0
    begun = time.monotonic()
    with FaultProxy(server.port) if proxy is None else nullcontext(proxy) as proxy:
        url = server.url.replace(str(server.port), str(proxy.port))
        for turn in range(turns):
            layout = ("event", "frame")[turn % 2]
            with open(folder / "sent", "w+b") as sent, open(folder / "got", "w+b") as got:
                home = json.dumps(config({**more, "url": url, "layout": layout}))
                producer = _run(PRODUCER, sent, home, str(first))
                consumer = _run(CONSUMER, got, home, json.dumps(options))
                end = time.monotonic() + 20
                while not all(os.fstat(each.fileno()).st_size for each in (sent, got)) and time.monotonic() < end:
                    time.sleep(0.01)
                for victim in chance.sample(["producer", "consumer", "server", "network"], 4):
                    time.sleep(chance.uniform(0.05, 0.3))
                    if victim == "server":
                        server.kill()
                        server.start()
                    elif victim == "network":
                        proxy.up = proxy.down = Way(lost=True)
                        time.sleep(chance.uniform(0.05, 0.3))
                        proxy.heal()
                        proxy.break_all(
                            chance.choice(["reset", "close"])
                        )  # else who lives would wait for a dead connection
                    else:
                        (producer if victim == "producer" else consumer).kill()
                producer.wait()
                consumer.wait()
                for end in _numbers(sent):
                    acknowledged.update(range(first, end))
                seen.update(_numbers(got))
                first += 1_000_000
    with CloudRuntimesClient(app_id="suite", config=config({**more, "url": server.url})) as client:
        with client.pubsub.subscribe("bus", "t", batch=100, **options) as sub:
            while (batch := sub.receive(2 if acknowledged <= seen.keys() else patience)) is not None:
                seen.update(event.data for event in batch)
                batch.ack()
    assert acknowledged, "the producers had no time"
    assert not acknowledged - seen.keys()
    twice = sum(seen.values()) - len(seen)
    return f"{turns} of each in {(time.monotonic() - begun) / 60:.1f} min: {len(acknowledged):,} events acknowledged, 0 absent; {len(seen):,} handled, {twice:,} of them again"


def come_and_go(
    settings: dict[str, Any],
    count: int,
    start: str | None = "earliest",
    config: Config = at_home,
    patience: float = 0.1,
    once: bool = True,
) -> str:
    """Have members join, retry, give back and leave; assert that every event was handled, and return the figures.

    ``patience``: seconds without an event after which a member leaves. ``once``: an event that was acknowledged may not come again.
    """
    options = config(settings)
    seen: Counter[int] = Counter()
    done = threading.Event()
    stays = [0] * 4

    def consume(seed: int) -> None:
        chance = random.Random(seed)
        with CloudRuntimesClient(app_id="suite", config=options) as client:
            while not done.is_set():
                stays[seed] += 1
                size = chance.choice([1, 20, 100])
                with client.pubsub.subscribe("bus", "t", start=start, batch=size) as sub:
                    for _ in range(chance.randrange(1, 30)):
                        batch = sub.receive(patience)
                        if batch is None:
                            break
                        for event in batch:
                            if chance.random() < 0.02:
                                event.retry(chance.choice([0, 0.05]))
                            elif chance.random() < 0.98:  # else it is given back
                                seen[event.data] += 1
                                event.ack()

    threads = [threading.Thread(target=consume, args=(seed,)) for seed in range(len(stays))]
    for thread in threads:
        thread.start()
    with CloudRuntimesClient(app_id="suite", config=options) as client:
        # a publisher may send again what a busy broker has stored in the end
        for first in range(0, count, 50):
            client.pubsub.publish_bulk("bus", "t", range(first, min(first + 50, count)))
    handled, end = 0, time.monotonic() + 60
    while len(seen) < count and (len(seen) > handled or time.monotonic() < end):
        if len(seen) > handled:  # members that join for seconds take long for many
            handled, end = len(seen), time.monotonic() + 60
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    absent = set(range(count)) - set(seen)
    assert not absent, f"{len(absent)} of {count}"
    twice = sum(seen.values()) - len(seen)
    assert not twice or not once
    return f"{count:,} events, {sum(stays):,} stays of members: 0 absent, {twice:,} handled again"


@contextmanager
def slow(server: _Server, proxy: FaultProxy) -> Iterator[None]:
    """Have answers come late."""
    proxy.down = Way(latency=0.5)
    yield
    proxy.heal()


@contextmanager
def dead(server: _Server, proxy: FaultProxy) -> Iterator[None]:
    """Have nobody listen."""
    server.kill()
    proxy.gone()
    yield
    server.start()
    proxy.back()


def outlast(
    client: CloudRuntimesClient,
    api: Api,
    harm: AbstractContextManager[object],
    kind: type[CloudRuntimesError],
    match: str,
    start: str | None = "earliest",
) -> None:
    """Publish while a broker is harmed: a call says so in time, a publisher waits, and once the harm is over all is there."""
    topic = f"harmed-{api.name}"
    api.call(client.pubsub, "publish", "bus", topic, 0)
    with api.opened(client.pubsub.publisher("bus", topic, linger=0.01, delivery_timeout=300)) as publisher:
        with harm:
            timeout = 0.3 if kind is DeadlineExceededError else 1.0
            with Stopwatch() as watch:
                error = _refused(api, kind, client, topic, timeout)
                assert watch.seconds < 2
            # a busy machine may need all of that time
            error = error if isinstance(error, kind) else _refused(api, kind, client, topic, 10 * timeout)
            assert isinstance(error, kind), error
            assert re.search(match, str(error))
            for number in range(1, 101):
                api.call(publisher, "send", number)
            api.fails(DeadlineExceededError)(publisher, "flush", 0.05)
        api.call(publisher, "flush", 300)
        assert publisher.stats().failed == 0
    seen = set()
    with api.opened(client.pubsub.subscribe("bus", topic, start=start)) as sub:
        while not seen.issuperset(range(101)):
            event = api.call(sub, "receive", 30)
            seen.add(event.data)
            event.ack()


def stall(client: CloudRuntimesClient, harm: AbstractContextManager[object]) -> None:
    """Publish while a broker stands still for longer than a first attempt: nothing comes twice."""
    with (
        client.pubsub.subscribe("bus", "stall", max_in_flight=2000) as sub,
        client.pubsub.publisher("bus", "stall", linger=0.01) as publisher,
    ):
        publisher.send(0)
        publisher.flush(30)
        with harm:
            for number in range(1, 1000):
                publisher.send(number)
            time.sleep(3)
        publisher.flush(60)
        received = []
        while (event := sub.receive(30 if len(received) < 1000 else 0.5)) is not None:
            received.append(event.data)
            event.ack()
    assert sorted(received) == list(range(1000))


def _refused(
    api: Api, kind: type[CloudRuntimesError], client: CloudRuntimesClient, topic: str, timeout: float
) -> CloudRuntimesError:
    """Return the error of a publication that cannot be made."""
    error: CloudRuntimesError = api.fails((kind, DeadlineExceededError))(
        client.pubsub, "publish", "bus", topic, -1, timeout=timeout
    )
    return error


def outlast_harm(
    server: _Server,
    client: Callable[[str], CloudRuntimesClient],
    harms: Mapping[str, tuple[Callable[[Any, FaultProxy], Any], type[CloudRuntimesError], str]],
    harm: str,
    rounds: int,
) -> None:
    """`outlast` one of some harms, with another API each round."""
    does, kind, match = harms[harm]
    apis = (SyncApi, AsyncApi)
    first = list(harms).index(harm) % 2
    with FaultProxy(server.port) as proxy:
        home = client(server.url.replace(str(server.port), str(proxy.port)))
        for number in range(rounds):
            with closing(apis[(first + number) % 2]()) as api:
                outlast(home, api, does(server, proxy), kind, match)
