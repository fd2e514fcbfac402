"""Members of a group with ``order="key"`` that are killed, stopped, and come and go; and the checker of what they handled. Run as a program it is such a member.

Handlers write a line to one file when they begin (``B``, then ``L`` if the lease was over), are through (``E``), or fail (``F``): the key, the number of the event, and the process. The lines of a file to which all append are in the order of what happened.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import Event

ROOT = Path(__file__).parents[2]
SESSION = 6.0
"""The shortest lease of a member on Kafka."""


def member(config: Mapping[str, Any], options: Mapping[str, Any], path: str) -> None:
    """Handle events until the standard input ends."""
    chance = random.Random(os.getpid())
    log = os.open(path, os.O_WRONLY | os.O_APPEND)
    me = os.getpid()

    def handle(event: Event[Any]) -> None:
        key, number = event.data
        os.write(log, b"B %d %d %d\n" % (key, number, me))
        # the process may have been stopped before it could write that
        order = event._fetcher._order
        if event._token.marks.void or (order is not None and order.queue.until < time.monotonic()):
            os.write(log, b"L %d %d %d\n" % (key, number, me))
        if chance.random() < 0.1:
            time.sleep(chance.uniform(0, 0.02))
        if chance.random() < 0.01:
            event.retry(delay=chance.uniform(0, 0.1))
            os.write(log, b"F %d %d %d\n" % (key, number, me))
            return
        os.write(log, b"E %d %d %d\n" % (key, number, me))

    with CloudRuntimesClient(app_id="suite", config=config) as client:
        with client.pubsub.subscribe("bus", "t", handle, order="key", **options) as sub:
            os.write(1, b"ready\n")
            if sub._fetcher._order is not None:
                lease = options.get("ack_wait", SESSION)
                threading.Thread(target=_watch, args=(sub, lease, log), daemon=True).start()
            sys.stdin.read()


def _watch(sub: Any, lease: float, log: int) -> None:
    """Note (``S``) that this process was too slow to renew its lease while it had events."""
    renewed = time.monotonic()
    holds = False
    while True:
        until = sub._fetcher._order.queue.until
        if holds and until - lease > renewed + lease:
            os.write(log, b"S %d\n" % os.getpid())
        renewed = until - lease if lease < until < float("inf") else time.monotonic()
        holds = sub._fetcher.stats().in_flight > 0
        time.sleep(0.01)


class Checked(NamedTuple):
    """Findings of a log.

    Attributes:
        faults: of the order.
        last: the last number that was handled of each key.
        again: how many events were handled more than once.
        late: how many began in a process the moment it went on behind its lease.
    """

    faults: list[str]
    last: dict[int, int]
    again: int
    late: int


def check(lines: Iterable[str]) -> Checked:
    """Check that one event of a key at a time was handled: the next one, or one of before, after which those came again that follow it.

    A process that was killed, stopped, or too slow to renew its lease (``S``) may leave a handler behind: what others handle in the meantime counts.
    """
    faults: list[str] = []
    running: dict[int, tuple[int, int]] = {}
    last: dict[int, int] = {}
    slow: set[int] = set()
    top: Counter[int] = Counter()
    again = late = 0
    for kind, *numbers in _without_late(lines):
        if kind == "S":
            slow.add(numbers[0])
            continue
        key, number, process = numbers
        if kind == "L":
            late += 1
        elif kind == "B":
            holder = running.get(key)
            if holder is not None and holder[1] not in slow:
                faults.append(f"key {key}: {number} began in {process} while {holder[1]} handled {holder[0]}")
            if number > last.get(key, -1) + 1:
                faults.append(f"key {key}: {number} began after {last.get(key, -1)}")
            again += number < top[key]
            running[key] = number, process
        elif running.get(key) == (number, process):
            del running[key]
            if kind == "E":
                last[key] = number
                top[key] = max(top[key], number + 1)
    return Checked(faults, last, again, late)


def _without_late(lines: Iterable[str]) -> list[Any]:
    """Return the entries of a log without the beginnings of handlers whose process was behind its lease."""
    entries: list[Any] = []
    late: set[Any] = set()
    for line in reversed(list(lines)):
        kind, *rest = line.split()
        numbers = tuple(map(int, rest))
        if kind == "B" and numbers in late:
            late.remove(numbers)
            continue
        if kind == "L":
            late.add(numbers)
        entries.append((kind, *numbers))
    return entries[::-1]


class Members:
    """Processes of one group, and what happens to them."""

    def __init__(self, config: Mapping[str, Any], options: Mapping[str, Any], path: Path) -> None:
        self._arguments = [json.dumps(config), json.dumps(options), str(path)]
        path.touch()
        self._log = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._running: list[subprocess.Popen[bytes]] = []
        self._asleep: list[tuple[threading.Timer, subprocess.Popen[bytes]]] = []

    def join(self) -> None:
        """Start a member, and wait until it has joined."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.key_order", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        self._running.append(process)

    def kill(self) -> None:
        """SIGKILL the oldest member."""
        process = self._running.pop(0)
        process.kill()
        process.communicate()
        os.write(self._log, b"S %d\n" % process.pid)

    def stop(self, seconds: float) -> None:
        """SIGSTOP the oldest member for so long. What it has locked is locked for others, too."""
        process = self._running.pop(0)
        process.send_signal(signal.SIGSTOP)
        os.write(self._log, b"S %d\n" % process.pid)
        waker = threading.Timer(seconds, process.send_signal, [signal.SIGCONT])
        waker.start()
        self._asleep.append((waker, process))

    def wake(self) -> None:
        """Have those be members again that were stopped long enough."""
        for entry in list(self._asleep):
            if not entry[0].is_alive():
                self._asleep.remove(entry)
                self._running.append(entry[1])

    def leave(self) -> None:
        """Have the oldest member leave."""
        process = self._running.pop(0)
        process.communicate(timeout=60)
        assert process.returncode == 0

    @property
    def count(self) -> int:
        """How many are there, and not stopped."""
        return len(self._running)

    def close(self) -> None:
        """Kill all."""
        for waker, process in self._asleep:
            waker.cancel()
            self._running.append(process)
        for process in self._running:
            process.kill()
            process.communicate()
        os.close(self._log)


if __name__ == "__main__":
    member(json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3])
