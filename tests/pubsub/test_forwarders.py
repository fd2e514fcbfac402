"""Processes that share a store: one of them forwards its events, another takes over, and none that lost its lease removes any."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import context_of
from tests.pubsub.test_relay_pairs import start
from tests.support import Figure, Rounds
from tests.support.pairs import pair
from tests.support.postgres import PostgresServer
from tests.support.redis import serve
from tests.support.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.long]

NAMES = "abc"
TAKEN_OVER = 5.0


class Arrivals:
    """Events at the broker: the numbers of each key, first occurrences alone, and the longest time without any."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[int]] = {name: [] for name in NAMES}
        self.longest = 0.0
        self._last = time.monotonic()
        self._seen: set[str] = set()

    def take(self, event: Any) -> None:
        """Note an event."""
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now
        if event.id not in self._seen:
            self._seen.add(event.id)
            self.numbers[event.data["key"]].append(event.data["number"])


@contextmanager
def holders(config: dict[str, Any]) -> Iterator[Any]:
    """Give what returns the process that forwards; ``None``: none does at the moment."""
    with CloudRuntimesClient(app_id="look", config=config) as client:
        relays: Any = getattr(context_of(client).frame("pubsub"), "relays")  # noqa: B009

        def holder() -> int | None:
            for relay in relays.known():
                if (lease := relays.stores(relay)[0].lease()) is not None:
                    return int(lease[0].split("-")[-2])
            return None

        yield holder


@contextmanager
def machines(count: int) -> Iterator[list[tuple[str, ...]]]:
    """Give so many networks that reach this machine as ``10.213.0.1``: what begins a command in each. Root makes them."""

    def ip(*words: object) -> None:
        subprocess.run(["ip", *map(str, words)], check=True)

    with ExitStack() as stack:
        names = [f"cr-{os.getpid()}-{number}" for number in range(count)]
        ip("link", "add", "cr-machines", "type", "bridge")
        stack.callback(ip, "link", "delete", "cr-machines")
        ip("address", "add", "10.213.0.1/24", "dev", "cr-machines")
        ip("link", "set", "cr-machines", "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("link", "add", f"cr-{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"cr-{number}", "master", "cr-machines", "up")
            ip("-n", name, "address", "add", f"10.213.0.{number + 2}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield [("ip", "netns", "exec", name) for name in names]


@pytest.mark.parametrize("engines", ["postgres redis", "sqlite redis", "redis nats"])
def test_one_forwards(engines: str, request: Any, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    with pair(request, tmp_path, engines) as config:
        # who stops with SQLite's write lock holds up the whole home
        signals = [signal.SIGKILL] * 2 if engines.startswith("sqlite") else [signal.SIGKILL, signal.SIGSTOP]
        told = _one_forwards(config, lambda name: start(config, "beat", name), signals * rounds(1, 5), rounds(4, 1))
    figure(f"forwarders of {engines.split()[0]}: SIGKILL and SIGSTOP of the one that forwards", told)


@pytest.mark.soak
def test_one_of_three_machines_forwards(tmp_path: Path, figure: Figure) -> None:
    with ExitStack() as stack:
        prefixes = stack.enter_context(machines(len(NAMES)))
        store = stack.enter_context(PostgresServer(listen_addresses="*"))
        with open(store.data / "pg_hba.conf", "a", encoding="ascii") as access:
            access.write("host all all 10.213.0.0/24 trust\n")
        store.configure()
        broker = stack.enter_context(serve("redis", bind="0.0.0.0", protected_mode="no"))
        config: dict[str, Any] = {
            "state": {"orders": {"component": "postgres", "url": store.url.replace("127.0.0.1", "10.213.0.1")}},
            "pubsub": {"bus": {"component": "redis", "url": broker.url.replace("127.0.0.1", "10.213.0.1")}},
        }

        def begin(name: str) -> subprocess.Popen[bytes]:
            home = {"capa": {"home": str(tmp_path / name)}}
            return start(config | home, "beat", name, prefix=prefixes[NAMES.index(name)])

        here = config | {"capa": {"home": str(tmp_path / "here")}}
        told = _one_forwards(here, begin, [signal.SIGKILL, signal.SIGSTOP] * 5, 1)
    figure("forwarders of postgres on three machines: SIGKILL and SIGSTOP of the one that forwards", told)


def _one_forwards(
    config: dict[str, Any],
    begin: Callable[[str], subprocess.Popen[bytes]],
    signals: Sequence[signal.Signals],
    patience: float,
) -> str:
    """Stop whichever process forwards, again and again; return what was seen. ``patience``: times as long as it may take on a full machine."""
    arrivals = Arrivals()
    with ExitStack() as stack:
        consumer = stack.enter_context(CloudRuntimesClient(app_id="consumer", config=config))
        holder = stack.enter_context(holders(config))
        stack.enter_context(consumer.pubsub.subscribe("bus", "beats", arrivals.take))
        processes = {name: begin(name) for name in NAMES}
        stack.callback(lambda: [(process.kill(), process.communicate()) for process in processes.values()])
        begun = time.monotonic()
        forwarded_by = set()
        for how in signals:
            owner = until(lambda: next((name for name in NAMES if processes[name].pid == holder()), None))
            pid = processes[owner].pid
            forwarded_by.add(pid)
            os.kill(pid, how)
            until(lambda before=pid: holder() not in (None, before))
            time.sleep(1.0)
            if how == signal.SIGSTOP:
                os.kill(pid, signal.SIGCONT)  # it goes on where it was, without its lease
                time.sleep(1.5)
            else:
                processes[owner].communicate()
                processes[owner] = begin(owner)
        longest, seconds = arrivals.longest, time.monotonic() - begun
        assert longest < patience * TAKEN_OVER
        assert len(forwarded_by) > 1
        written = {}
        for process in processes.values():
            process.kill()
        time.sleep(0.5)
        for name in NAMES:
            written[name] = consumer.state.get("orders", f"beat-{name}")
        with CloudRuntimesClient(app_id="rest", config=config) as rest:
            context_of(rest).frame("pubsub").relays.resume()
            until(lambda: all(len(some) == written[name] + 1 for name, some in arrivals.numbers.items()), seconds=30)
    for numbers in arrivals.numbers.values():
        assert numbers == list(range(len(numbers))), "in order, none is missing"
    return f"{len(signals)} times in {seconds:.0f} s, taken over after at most {longest:.1f} s, none lost, in order"
