"""Very many durable events through one producer and one consumer that are killed: each is handled once, and memory stays flat."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.sqlite.volume import Seen, expected
from tests.support import Figure, Rounds

pytestmark = pytest.mark.process
PROGRAM = Path(__file__).parent / "volume.py"


class Worker:
    """A process of the program, which is begun again when it is killed."""

    def __init__(self, work: str, configuration: str, count: int) -> None:
        self._command = [sys.executable, str(PROGRAM), work, configuration, str(count)]
        self.kills = -1
        self.peak = 0
        self.begin()

    def begin(self) -> None:
        self.kills += 1
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)

    def look(self) -> None:
        """Note its memory, in KiB."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return
        sizes = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
        self.peak = max(self.peak, *sizes) if sizes else self.peak

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._read()
        self.begin()

    def _read(self) -> str:
        pipe: IO[str] | None = self._process.stdout
        assert pipe is not None
        with pipe:
            text = pipe.read()
        self._process.wait()
        return text

    def end(self) -> str:
        """Wait for its end, and return what it said."""
        return self._read()


def test_events_of_processes_that_are_killed(home: Path, rounds: Rounds, figure: Figure) -> None:
    count = rounds(100_000, 1_000_000_000)
    pause = rounds(2, 60)
    configuration = '{"pubsub": {"bus": {"component": "sqlite", "retention": "30s"}}}'
    chance = random.Random(count)
    began = time.monotonic()
    workers = [Worker(work, configuration, count) for work in ("produce", "consume")]
    strike_at = began + pause * chance.uniform(0.5, 1.5)
    while any(each.is_running for each in workers):
        time.sleep(0.1)
        for each in workers:
            each.look()
        if time.monotonic() >= strike_at:
            victim = chance.choice(workers)
            if victim.is_running:
                victim.kill()
            strike_at = time.monotonic() + pause * chance.uniform(0.5, 1.5)
    took = time.monotonic() - began
    assert [each.end() for each in workers] == ["done\n", "done\n"]
    with CloudRuntimesClient(app_id="check") as client:
        seen = client.state.get("seen", "seen", type=Seen)
    assert seen == Seen(count, expected(count), count)
    producer, consumer = workers
    figure(
        f"{count:,} typed events through a durable log and a handler, producer and consumer killed",
        f"{took / 60:.1f} min, {count / took:,.0f} a second; {producer.kills} and {consumer.kills} kills, 0 lost, 0 twice: "
        f"digest {seen.digest:016x}; at most {producer.peak >> 10} and {consumer.peak >> 10} MiB",
    )
