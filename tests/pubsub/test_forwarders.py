"""Processes that share a store: one of them forwards its events, another takes over, and none that lost its lease removes any."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import context_of
from tests.pubsub.test_relay_pairs import start
from tests.support import Figure, Rounds
from tests.support.pairs import pair
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


@pytest.mark.parametrize("engines", ["postgres redis", "sqlite redis", "redis nats"])
def test_one_forwards(engines: str, request: Any, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    arrivals = Arrivals()
    with ExitStack() as stack:
        config = stack.enter_context(pair(request, tmp_path, engines))
        consumer = stack.enter_context(CloudRuntimesClient(app_id="consumer", config=config))
        holder = stack.enter_context(holders(config))
        stack.enter_context(consumer.pubsub.subscribe("bus", "beats", arrivals.take))
        processes = {}
        for name in NAMES:
            processes[name] = start(config, "beat", name)
        stack.callback(lambda: [(process.kill(), process.communicate()) for process in processes.values()])
        begun = time.monotonic()
        forwarded_by = set()
        # who stops with SQLite's write lock holds up the whole home
        signals = [signal.SIGKILL] * 2 if engines.startswith("sqlite") else [signal.SIGKILL, signal.SIGSTOP]
        for how in signals * rounds(1, 5):
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
                processes[owner] = start(config, "beat", owner)
        longest, seconds = arrivals.longest, time.monotonic() - begun
        assert longest < rounds(4, 1) * TAKEN_OVER  # other tests beside it slow it down
        assert len(forwarded_by) > 1
        written = {}
        for process in processes.values():
            process.kill()
        time.sleep(0.5)
        for name in NAMES:
            written[name] = consumer.state.get("orders", f"beat-{name}")
        with CloudRuntimesClient(app_id="rest", config=config) as rest:
            context_of(rest).frame("pubsub").resume()
            until(lambda: all(len(some) == written[name] + 1 for name, some in arrivals.numbers.items()), seconds=30)
    for numbers in arrivals.numbers.values():
        assert numbers == list(range(len(numbers))), "in order, none is missing"
    figure(
        f"forwarders of {engines.split()[0]}: SIGKILL and SIGSTOP of the one that forwards, {seconds:.0f} s",
        f"taken over after at most {longest:.1f} s, none lost, in order",
    )
