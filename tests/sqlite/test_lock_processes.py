"""Locks between processes: holders and waiters that are killed, holders that are stopped, a wall clock that steps."""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.os_clocks import find_boot_id
from cloud_runtimes.lock import Lease
from tests.support import Figure, Rounds
from tests.support.child import Start

pytestmark = pytest.mark.process

_PROCESSES = 8


class _Contender:
    """Process that contends with others for the lock; a thread reads its output."""

    def __init__(self, child: Any) -> None:
        self.child = child.ready()
        self.said: list[dict[str, Any]] = []
        self.killed: float | None = None
        self._thread = threading.Thread(target=self._read)

    def go(self) -> None:
        self.child.go()
        self._thread.start()

    def _read(self) -> None:
        import json

        for line in self.child.process.stdout:
            if line.endswith("\n"):  # one cut by the kill was not said
                self.said.append(json.loads(line))

    def lingers(self) -> bool:
        return bool(self.said) and self.said[-1].get("linger", False)

    def kill(self) -> None:
        self.killed = time.monotonic()
        self.child.process.kill()

    def join(self) -> None:
        self._thread.join(90)
        assert not self._thread.is_alive()
        self.child.process.wait()


@pytest.mark.promise("A8", figure="eight processes on one lock")
@pytest.mark.timing
def test_contention_with_kills(start: Start, client: CloudRuntimesClient, rounds: Rounds, figure: Figure) -> None:
    seconds = rounds(4, 30)
    dice = random.Random(1)
    client.lock.unlock("locks", "r", "nobody")
    running = [_Contender(start("contend", seconds, number)) for number in range(_PROCESSES)]
    everybody = list(running)
    began = time.monotonic()
    for contender in running:
        contender.go()
    holders_killed = 0
    next_kill = time.monotonic() + 0.5
    while time.monotonic() < began + seconds:
        time.sleep(0.01)
        if time.monotonic() < next_kill or time.monotonic() > began + seconds - 1:
            continue
        lingering = [each for each in running if each.lingers()]
        holder = holders_killed * 2 <= len(everybody) - _PROCESSES  # and then another
        if holder and not lingering:
            continue
        victim = lingering[0] if holder else dice.choice([each for each in running if each not in lingering])
        victim.kill()
        holders_killed += holder
        running.remove(victim)
        end = max(1.0, began + seconds - time.monotonic())
        fresh = _Contender(start("contend", end, len(everybody)))
        fresh.go()
        running.append(fresh)
        everybody.append(fresh)
        next_kill = time.monotonic() + 1.0
    for contender in everybody:
        contender.join()

    holds: list[tuple[int, float, float, float | None]] = []  # token, asked, had, left (None: killed or lost in it)
    lost = 0
    for contender in everybody:
        for index, line in enumerate(contender.said):
            if "token" in line:
                after = contender.said[index + 1] if index + 1 < len(contender.said) else None
                end = after["left"] if after is not None and not after["lost"] else None
                lost += after is not None and after["lost"]
                holds.append((line["token"], line["asked"], line["had"], end))
    holds.sort()
    tokens = [hold[0] for hold in holds]
    assert len(set(tokens)) == len(tokens)
    overlaps = [
        (before, after)
        for before, after in pairwise(holds)
        if after[2] < (before[3] if before[3] is not None else before[2])
    ]
    assert not overlaps
    # how many others were served between a process's coming and its turn; its own death does not count
    had = sorted(hold[2] for hold in holds)
    passed = [bisect_left(had, mine) - bisect_right(had, asked) for _, asked, mine, _ in holds]
    waits = sorted(mine - asked for _, asked, mine, _ in holds)
    whole = [sum("token" in line for line in each.said) for each in everybody[:_PROCESSES] if each.killed is None]
    figure(
        f"eight processes on one lock for {seconds} s, some killed",
        f"{holders_killed} holders and {len(everybody) - _PROCESSES - holders_killed} others killed: {len(holds):,} holds, no overlap, {lost} lost in time, at most {max(passed)} served in between, "
        f"longest wait {waits[-1]:.2f} s, median {statistics.median(waits) * 1000:.0f} ms",
    )
    assert len(holds) > 20 * seconds / 6
    assert holders_killed >= 1
    assert max(passed) <= rounds(10, 3) * _PROCESSES  # beside a load whoever sleeps is woken later
    assert waits[-1] < 20
    assert min(whole, default=1) > 0
    assert client.lock.try_lock("locks", "r") is not None or client.lock.hold("locks", "r", wait=20).__enter__()


@pytest.mark.promise("A7", figure="a holder stopped for twice its expiry")
def test_a_stopped_holder_is_fenced(start: Start, client: CloudRuntimesClient, rounds: Rounds, figure: Figure) -> None:
    """SIGSTOP for twice its expiry, another takes the lock and writes, SIGCONT: it knows, and its write is refused."""
    expiry, count = 0.3, rounds(5, 100)
    holder = start("hold_and_write", expiry)
    knew = 0
    for number in range(count):
        token = holder.line()["token"]
        holder.process.send_signal(signal.SIGSTOP)
        time.sleep(2 * expiry)
        with client.lock.hold("locks", "r", wait=20) as lease:
            assert lease.token is not None
            assert lease.token > token
            client.state.save("store", "k", number, fence=lease.token)
        holder.process.send_signal(signal.SIGCONT)
        holder.go()
        line = holder.line()
        assert line["refused"] is True
        assert line["error"] == "LeaseLostError"
        knew += line["lost"]
        assert client.state.get("store", "k") == number
    assert knew == count
    figure(f"a holder stopped for twice its expiry, {count} rounds", "every fenced write refused, every loss known")


# without a name of the boot, it is the time of the boot by the wall clock
@pytest.mark.promise("D1")
@pytest.mark.skipif(find_boot_id().startswith("since"), reason="not on this Python: a name of the boot")
@pytest.mark.parametrize("kind", ["renewed", "not-renewed"])
def test_wall_clock_steps(step: Callable[[float], None], start: Start, figure: Figure, kind: str) -> None:
    holder, other = start("hold_under_steps", kind).ready(), start("try_under_steps").ready()
    for seconds in (0.0, 3600.0, -3600.0, 10 * 86400.0, -10 * 86400.0, 0.0):
        step(seconds)
        end = time.monotonic() + 1.2  # over several renewals
        while time.monotonic() < end:
            for child in (holder, other):
                child.go()
                line = child.line()
                assert abs(line["wall"] - time.time() - seconds) < 30  # the step is seen
                assert not line.get("lost"), f"lost early at {seconds:+}"
                assert not line.get("got"), f"held twice at {seconds:+}"
            time.sleep(0.05)
    assert holder.process.stdin is not None
    holder.process.stdin.close()
    assert holder.line() == {"released": True}
    other.go()
    assert other.line()["got"] is True
    figure(f"wall clock by 1 h and 10 d, to and fro, under a lock ({kind})", "no early loss, no double hold")


@pytest.mark.timing
def test_a_waiting_process_wakes(start: Start, client: CloudRuntimesClient, rounds: Rounds, figure: Figure) -> None:
    count = rounds(50, 500)
    client.lock.unlock("locks", "r", "nobody")
    waiter = start("wait_for_lock", count).ready()
    latencies = []
    engine = client.lock._frame.driver("locks")._engine
    for _ in range(count):
        lease: Lease | None = None
        while lease is None:
            lease = client.lock.try_lock("locks", "r")
        waiter.go()
        assert waiter.line() == {"waiting": True}
        while not engine.query(None, "SELECT 1 FROM lock_line"):
            time.sleep(0.0005)
        time.sleep(0.005)  # it has subscribed
        released = time.monotonic_ns()
        lease.release()
        latencies.append((waiter.line()["at"] - released) / 1e6)
    p99 = statistics.quantiles(latencies, n=100)[98]
    figure(
        "release to lock in hand in another process",
        f"median {statistics.median(latencies):.2f} ms, p99 {p99:.2f} ms, its commit (FULL) included",
    )
    assert statistics.median(latencies) <= 50


def test_an_idle_waiter_costs_little(start: Start, client: CloudRuntimesClient, rounds: Rounds, figure: Figure) -> None:
    with client.lock.hold("locks", "r"):
        line = start("idle_for_lock", rounds(3, 20)).line()
    share = line["cpu"] / line["seconds"]
    figure("a process that waits for a lock", f"{share:.2%} of a core")
    assert share <= 0.05


def test_a_killed_holder_is_waited_for_no_longer_than_its_lease(start: Start, client: CloudRuntimesClient) -> None:
    holder = start("hold_and_write", 1.0)
    holder.line()
    holder.kill()
    began = time.monotonic()
    with client.lock.hold("locks", "r", wait=30):
        assert time.monotonic() - began < 10
