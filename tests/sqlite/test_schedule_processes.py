"""Jobs between processes: many at once, runners that are killed or stopped, a wall clock that steps."""

from __future__ import annotations

import json
import signal
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.os_clocks import find_boot_id
from cloud_runtimes.schedule import RunRecord
from tests.support import Figure, Rounds
from tests.support.child import Start
from tests.support.waiting import until

pytestmark = pytest.mark.process


class Runner:
    """A process that runs jobs; a thread reads what it says."""

    def __init__(self, child: Any) -> None:
        self.child = child.ready()
        self.said: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for line in self.child.process.stdout:
            if line.endswith("\n"):  # one cut by the kill was not said
                self.said.append(json.loads(line))

    @property
    def runs(self) -> list[dict[str, Any]]:
        return [line for line in self.said if "run" in line and "ended" not in line]

    def tell(self, word: str) -> None:
        self.child.process.stdin.write(f"{word}\n")
        self.child.process.stdin.flush()

    def end(self) -> None:
        self.tell("end")
        self.join()

    def kill(self) -> None:
        self.child.process.kill()
        self.join()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.child.process.wait()


@pytest.fixture
def tick(client: CloudRuntimesClient) -> Callable[..., Any]:
    """Handlers as the children have them; this process runs none."""

    @client.schedule.job("hold")
    def hold() -> None: ...

    @client.schedule.job("tick")
    def tick() -> None: ...

    return tick


def test_a_thousand_jobs_in_two_processes(
    start: Start, client: CloudRuntimesClient, tick: Callable[..., Any], rounds: Rounds, figure: Figure
) -> None:
    """``@every 1s``, ``misfire="all"``: each occurrence exactly once, by one of the two."""
    jobs, repeats = rounds(200, 1000), rounds(3, 30)
    runners = [Runner(start("run_jobs")) for _ in range(2)]
    began = time.monotonic()
    for n in range(jobs):
        client.schedule.schedule_job(f"j.{n}", schedule="@every 1s", repeats=repeats, misfire="all", target=tick)
    until(lambda: not client.schedule.list_jobs(), 400)
    seconds = time.monotonic() - began
    for runner in runners:
        runner.end()
    lines = [line for runner in runners for line in runner.runs]
    assert Counter(line["run"] for line in lines).most_common(1)[0][1] == 1
    fires: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        fires[line["name"]].append(line["fire"])
    assert len(fires) == jobs
    for each in fires.values():
        assert len(each) == repeats
        assert all(round(after - before, 3) == 1.0 for before, after in pairwise(sorted(each)))
    shares = [len(runner.runs) / len(lines) for runner in runners]
    figure(
        f"{jobs} jobs at @every 1s, {repeats} times, two processes",
        f"{len(lines):,} occurrences, each once, in {seconds:.0f} s; shares {shares[0]:.0%} and {shares[1]:.0%}",
    )


@pytest.mark.promise("A6", figure="runners killed during")
def test_killed_runners_lose_nothing(
    start: Start, client: CloudRuntimesClient, tick: Callable[..., Any], rounds: Rounds, figure: Figure
) -> None:
    """kill −9 during runs: each fire time is run with one id, and for each kill at most once more."""
    jobs, repeats, kills = 40, rounds(8, 100), rounds(3, 40)
    runners = [Runner(start("run_jobs", 0.02)) for _ in range(2)]
    every = list(runners)
    for n in range(jobs):
        client.schedule.schedule_job(f"j.{n}", schedule="@every 400ms", repeats=repeats, misfire="all", target=tick)
    killed = 0
    while killed < kills:
        victim = runners.pop(0)
        before = len(victim.runs)
        until(lambda: len(victim.runs) > before + 3 or not client.schedule.list_jobs())  # noqa: B023
        victim.kill()
        killed += 1
        runners.append(Runner(start("run_jobs", 0.02)))
        every.append(runners[-1])
    until(lambda: not client.schedule.list_jobs(), 200)
    for runner in runners:
        runner.end()
    counts = Counter(line["run"] for runner in every for line in runner.runs)
    records = [each for n in range(jobs) for each in client.schedule.list_runs(f"j.{n}")]
    assert len(records) == jobs * repeats
    assert {each.status for each in records} == {"succeeded"}
    assert set(counts) >= {each.run_id for each in records}
    assert len(counts) == jobs * repeats
    for each in records:
        assert counts[each.run_id] <= each.attempt <= 1 + killed
    extra = sum(counts.values()) - len(counts)
    # a process has 64 workers at most
    assert extra <= killed * 64
    figure(
        f"runners killed during {jobs * repeats:,} runs",
        f"{killed} killed: none lost, {extra} run again with the same id, at most {max(counts.values()) - 1} more for one",
    )


def test_a_run_longer_than_its_lease_is_not_run_twice_but_a_stopped_holders_is(
    start: Start, client: CloudRuntimesClient, tick: Callable[..., Any]
) -> None:
    hold = client.schedule._frame.handlers["hold"].function
    for lease in (0.6, 3.0, 12.0):
        first = Runner(start("run_jobs", 0, lease))
        name = f"j{lease}"
        client.schedule.schedule_job(name, due_time=0, target=hold)
        until(lambda: first.runs)  # noqa: B023
        second = Runner(start("run_jobs", 0, lease))
        time.sleep(2.5 * lease)
        if not second.runs:  # renewed by its holder
            break
        # a busy machine may stand still for longer than that
        first.kill()
        second.tell("go on")
        until(lambda: not client.schedule.list_jobs())
        second.end()
    assert not second.runs
    first.child.process.send_signal(signal.SIGSTOP)
    until(lambda: second.runs)
    first.child.process.send_signal(signal.SIGCONT)
    first.tell("go on")
    until(lambda: any(line.get("ended") for line in first.said))
    time.sleep(0.3)
    (record,) = client.schedule.list_runs(name)
    assert (record.status, record.attempt) == ("running", 2)  # what the first one says counts no more
    second.tell("go on")
    until(lambda: client.schedule.list_runs(name)[0].status == "succeeded")
    assert [line["attempt"] for line in (*first.runs, *second.runs)] == [1, 2]
    assert first.runs[0]["run"] == second.runs[0]["run"] == record.run_id
    first.end()
    second.end()


def _occurrences(records: list[RunRecord]) -> int:
    return sum(each.count for each in records)


@pytest.mark.promise("D3", figure="a runner stopped for 120 s")
@pytest.mark.parametrize("misfire", ["once", "all"])
def test_a_laptops_sleep(
    start: Start,
    client: CloudRuntimesClient,
    tick: Callable[..., Any],
    rounds: Rounds,
    figure: Figure,
    misfire: Any,
) -> None:
    """SIGSTOP of the only runner: the policy applies exactly, and all that was missed is listed."""
    seconds = rounds(1, 120)
    runner = Runner(start("run_jobs"))
    client.schedule.schedule_job("j", schedule="@every 100ms", misfire=misfire, target=tick)
    until(lambda: len(runner.runs) > 2)
    runner.child.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    before = len(runner.runs)
    runner.child.process.send_signal(signal.SIGCONT)
    until(lambda: len(runner.runs) > (before + 10 * seconds if misfire == "all" else before + 5))
    client.schedule.delete_job("j")
    until(lambda: all(each.status in ("succeeded", "skipped") for each in client.schedule.list_runs("j")))
    runner.end()
    records = client.schedule.list_runs("j")
    for earlier, later in pairwise(records):  # without a gap
        assert round((later.fire_time - earlier.last_fire_time).total_seconds(), 3) == 0.1
    skipped = sum(each.count for each in records if each.status == "skipped")
    if misfire == "all":
        assert skipped == 0
    else:
        assert skipped >= 10 * seconds - 5
    figure(
        f"a runner stopped for {seconds} s, misfire={misfire}",
        f"{_occurrences(records):,} occurrences listed without a gap, {skipped} of them skipped",
    )


@pytest.mark.promise("D1")
@pytest.mark.skipif(find_boot_id().startswith("since"), reason="not on this Python: a name of the boot")
def test_wall_clock_steps(
    step: Callable[[float], None],
    start: Start,
    client: CloudRuntimesClient,
    tick: Callable[..., Any],
    figure: Figure,
) -> None:
    """By 1 h and 10 d, to and fro: with ``misfire="once"`` neither a pause nor a burst."""
    client.schedule.schedule_job("every", schedule="@every 500ms", target=tick)
    client.schedule.schedule_job("cron", schedule="* * * * * *", target=tick)
    runner = Runner(start("run_jobs"))
    until(lambda: len(runner.runs) > 2)
    counts: list[int] = []
    for seconds in (3600.0, -3600.0, 10 * 86400.0, 0.0):
        step(seconds)
        seen = len(runner.said)
        names = lambda: Counter(line["name"] for line in runner.said[seen:] if "run" in line)  # noqa: B023, E731
        stepped = time.time() + seconds
        # what was missed of a cron of each second is gone through at once, and takes a moment
        until(lambda: names()["every"] >= 2 and names()["cron"] >= 2, 60)  # noqa: B023
        fires = [line["fire"] for line in runner.said[-2:]]
        assert all(abs(fire - stepped) < 60 for fire in fires), f"at {seconds:+}"
        counts.append(sum(names().values()))
    runner.end()
    assert max(counts) < 200  # 10 d are 1.7 million occurrences
    figure(
        "wall clock by 1 h and 10 d, to and fro, under two jobs of each second", f"{max(counts)} runs until all goes on"
    )


@pytest.mark.timing
def test_a_job_from_another_process_wakes_the_runner(
    start: Start, client: CloudRuntimesClient, tick: Callable[..., Any], rounds: Rounds, figure: Figure
) -> None:
    runner = Runner(start("run_jobs"))
    latencies = []
    for n in range(rounds(20, 200)):
        time.sleep(0.02)
        asked = time.monotonic_ns()
        client.schedule.schedule_job("j", due_time=0, target=tick, overwrite=True)
        until(lambda n=n: len(runner.runs) > n)  # type: ignore[misc]
        latencies.append((runner.runs[-1]["at"] - asked) / 1e6)
    runner.end()
    figure(
        "a job due at once, from schedule_job to its handler in another process",
        f"median {statistics.median(latencies):.1f} ms, its commit (FULL) included",
    )
    assert statistics.median(latencies) < 100  # by looking alone it would be 125


def test_an_idle_runner_costs_little(
    start: Start, client: CloudRuntimesClient, tick: Callable[..., Any], rounds: Rounds, figure: Figure
) -> None:
    """Also one with jobs that are due and whose handler it has not, and with a run that waits behind another."""

    @client.schedule.job("elsewhere")
    def elsewhere() -> None: ...

    seconds = rounds(1, 20)
    client.schedule.schedule_job("theirs", due_time=0, target=elsewhere)
    client.schedule.schedule_job("later", schedule="@hourly", target=tick)
    client.schedule.schedule_job(
        "held", schedule="@hourly", due_time=0, target=client.schedule._frame.handlers["hold"].function
    )
    runner = Runner(start("run_jobs"))
    until(lambda: runner.runs)
    client.schedule.run_now("held")
    clock = Path(f"/proc/{runner.child.process.pid}/stat")
    ticks = lambda: sum(map(int, clock.read_text().rpartition(")")[2].split()[11:13]))  # noqa: E731
    before = ticks()
    time.sleep(seconds)
    share = (ticks() - before) / 100 / seconds
    runner.tell("go on")
    runner.end()
    figure("a process that waits for jobs", f"{share:.2%} of a core")
    assert share <= 0.05
