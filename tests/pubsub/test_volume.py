"""Very many durable events through one producer and one consumer that are killed: each is handled once, and memory stays flat."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.pubsub.volume import Seen, expected
from tests.pubsub.volume_log import Log, Sample
from tests.support import Figure, Rounds
from tests.support.pairs import pair

pytestmark = pytest.mark.process
PROGRAM = Path(__file__).parent / "volume.py"
DOCS = Path(__file__).parents[2] / "docs"


class Worker:
    """A process of the program, which is begun again when it is killed."""

    def __init__(self, work: str, configuration: str, count: int) -> None:
        self._command = [sys.executable, str(PROGRAM), work, configuration, str(count)]
        self.kills = -1
        self.memory = self.peak = 0
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
        self.memory = sizes[0] if sizes else 0
        self.peak = max(self.peak, self.memory)

    @property
    def is_running(self) -> bool:
        code = self._process.poll()
        assert not code, f"{self._command[2]} gave up"  # at once: what waits for its events would go on for hours
        return code is None

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


@pytest.fixture(
    params=["sqlite", *(pytest.param(each, marks=pytest.mark.soak) for each in ("redis", "kafka", "postgres"))]
)
def bus(request: pytest.FixtureRequest, home: Path) -> Iterator[dict[str, Any]]:
    """Give a configuration with events on an engine, and what is handled on the embedded one."""
    if request.param == "sqlite":
        yield {"capa": {"home": str(home)}, "pubsub": {"bus": {"component": "sqlite", "retention": "30s"}}}
        return
    with pair(request, home, f"sqlite {request.param}") as config:
        config["capa"]["inbox_retention"] = "1m"
        bus = config["pubsub"]["bus"]
        if request.param == "kafka":
            _make_topic(bus)
        else:
            bus["retention"] = "30s"
        yield config


def _make_topic(bus: dict[str, Any]) -> None:
    """Make the topic, of which a broker keeps some minutes: its log lies in memory."""
    from confluent_kafka.admin import AdminClient, NewTopic

    keeps = {"retention.ms": "120000", "segment.bytes": "67108864"}
    topic = NewTopic(f"{bus['prefix']}readings", 1, config=keeps)
    admin = AdminClient({"bootstrap.servers": bus["servers"]})  # what it makes ends with it
    (made,) = admin.create_topics([topic]).values()
    made.result(30)


def test_events_of_processes_that_are_killed(
    bus: dict[str, Any], rounds: Rounds, figure: Figure, request: pytest.FixtureRequest
) -> None:
    engine = request.node.callspec.params["bus"]
    embedded = engine == "sqlite"
    count = rounds(600_000, 1_000_000_000 if embedded else 100_000_000)
    pause = rounds(7, 600 if embedded else 300) / 10
    most = rounds(4, 1000)  # a full machine may need longer to begin a process than until the next kill
    configuration = json.dumps(bus)
    chance = random.Random(count)
    log = Log()
    with CloudRuntimesClient(app_id="check", config=bus) as client:

        def seen() -> Seen:
            return client.state.get("seen", "seen", type=Seen) or Seen()

        began = time.monotonic()
        producer, consumer = workers = [
            Worker(work, configuration, count) for work in ("produce" if embedded else "produce-again", "consume")
        ]
        strike_at, look_at = pause * chance.uniform(0.5, 1.5), 0.0
        while any(each.is_running for each in workers):
            time.sleep(0.1)
            now = time.monotonic() - began
            for each in workers:
                each.look()
            if now >= look_at:
                log.samples.append(Sample(now, seen().count, producer.memory >> 10, consumer.memory >> 10))
                look_at = now + pause / 6
            if now >= strike_at and len(log.kills) < most:
                victim = producer if producer.is_running and len(log.kills) % 2 == 0 else consumer
                victim.kill()
                log.kills.append((now, "producer" if victim is producer else "consumer"))
                strike_at = now + pause * chance.uniform(0.5, 1.5)
        took = time.monotonic() - began
        assert [each.end() for each in workers] == ["done\n", "done\n"]
        end = seen()
    assert end == Seen(count, expected(count), count)
    log_of = "a durable log" if embedded else engine
    what = f"{count:,} typed events through {log_of} and a handler, producer and consumer killed"
    value = (
        f"{took / 60:.1f} min, {count / took:,.0f} a second; {producer.kills} and {consumer.kills} kills, 0 lost, 0 twice: "
        f"digest {end.digest:016x}; at most {producer.peak >> 10} and {consumer.peak >> 10} MiB"
    )
    figure(what, value)
    page, picture = log.page("A billion events in one hour", f"{what}: {value}.", "soak/billion.svg"), log.picture()
    assert page.count("\n| ") > 2
    assert "polyline" in picture
    if embedded and request.config.getoption("--soak"):
        (DOCS / "soak").mkdir(exist_ok=True)
        (DOCS / "billion.md").write_text(page, encoding="utf-8")
        (DOCS / "soak" / "billion.svg").write_text(picture, encoding="utf-8")
