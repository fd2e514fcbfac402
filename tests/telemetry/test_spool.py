"""Telemetry through a spool: what is exported is on the disk, arrives once the collector is back, and every loss is counted."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import context_of
from cloud_runtimes.errors import InvalidArgumentError, UnsupportedError
from cloud_runtimes.spi.relay import SpoolSettings
from cloud_runtimes.telemetry import SignalSpool, _spool
from cloud_runtimes.telemetry._http import HttpExporter
from tests.support import Figure, Make, Rounds
from tests.support.forked import in_child
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.telemetry.emitting import Received, exact, record
from tests.telemetry.grpc_receiver import GrpcReceiver
from tests.telemetry.otlp_receiver import Receiver

FAST = {"trace_delay": 0.02, "log_delay": 0.02}


def waits(telemetry: Any) -> int:
    return int(telemetry.spool().spans.records)


def arrived(away: Away, receiver: Receiver) -> Received:
    """Return the requests that the collector took."""
    received = Received()
    received.requests = [receiver.requests[number] for number in away.accepted]
    return received


def counted(spool: SignalSpool) -> int:
    """Return how many records were stored in all."""
    return spool.records + spool.forwarded + spool.rejected + spool.dropped


class Away:
    """A collector whose answer changes while it runs.

    Attributes:
        accepted: numbers of the requests that it took.
    """

    def __init__(self) -> None:
        self.status = 503
        self.content = b""
        self.accepted: list[int] = []

    def __call__(self, number: int) -> Any:
        status = self.status
        if status == 200:
            self.accepted.append(number)
        return status, {"Retry-After": "0"} if status == 503 else {}, self.content


@contextmanager
def spooled(client: Make, **settings: Any) -> Iterator[tuple[Away, Receiver, Any]]:
    """Give a collector that is away at first, and the telemetry of a client with a spool before it."""
    away = Away()
    with Receiver(away) as receiver:
        yield away, receiver, client(endpoint=receiver.url, **{"spool": True, **FAST, **settings}).telemetry


def test_all_signals_arrive_once_the_collector_is_back(client: Make) -> None:
    with spooled(client) as (away, receiver, telemetry):
        record(telemetry, 100)
        telemetry.logger("l").info("hello")
        telemetry.meter("m").counter("c").add(3)
        assert telemetry.flush(30)
        stats, waiting = telemetry.stats(), telemetry.spool()
        assert (stats.spans.exported, stats.logs.exported, stats.metrics.exported) == (100, 1, 1)
        assert (waiting.spans.records, waiting.logs.records, waiting.metrics.records) == (100, 1, 1)
        assert waiting.spans.oldest is not None
        until(lambda: len(receiver.requests) >= 3)
        away.status = 200
        until(lambda: telemetry.spool().metrics.forwarded and not waits(telemetry))
        until(lambda: telemetry.spool().logs.forwarded)
        received = arrived(away, receiver)
        assert len({span.span_id for span in received.spans()}) == len(received.spans()) == 100
        assert [each.body.string_value for each in received.logs()] == ["hello"]
        assert received.metrics()[-1].sum.data_points[0].as_int == 3
        assert telemetry.spool().spans == SignalSpool(0, 0, None, 100, 0, 0)


def test_the_async_twin(client: Make) -> None:
    with spooled(client) as (_, _, telemetry):
        record(telemetry, 5)
        assert asyncio.run(telemetry.flush_async(30))
        assert asyncio.run(telemetry.spool_async()).spans.records == 5


def test_nobody_waits_for_a_collector_that_is_away(client: Make) -> None:
    with Receiver() as receiver:
        receiver.delay = 8.0
        instance = client(endpoint=receiver.url, spool=True, **FAST)
        telemetry = instance.telemetry
        record(telemetry, 10)
        began = time.monotonic()
        assert telemetry.flush(30)
        assert time.monotonic() - began < 5
        until(lambda: receiver.requests)
        began = time.monotonic()
        instance.close()
        assert time.monotonic() - began < 6
        stats = telemetry.stats().spans
        assert (stats.exported, dict(stats.dropped)) == (10, {})


def test_over_grpc(client: Make) -> None:
    with GrpcReceiver() as receiver:
        telemetry = client(endpoint=receiver.url, protocol="grpc", spool=True).telemetry
        record(telemetry, 10)
        assert telemetry.flush(30)
        until(lambda: telemetry.spool().spans.forwarded == 10)
        assert len(receiver.spans()) == 10


def test_a_second_run_sends_what_the_first_left(client: Make) -> None:
    with Receiver() as receiver:
        url = receiver.url
    first = client(endpoint=url, spool=True)
    record(first.telemetry, 10)
    first.close()
    with Receiver(port=receiver.port) as receiver:
        second = client(endpoint=url, spool=True)
        assert second.telemetry is not None  # looking at it is enough
        until(lambda: len(receiver.spans()) == 10)
        until(lambda: second.telemetry.spool().spans.forwarded == 10)


def test_an_application_sends_what_earlier_ones_left(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    with Receiver() as receiver:
        url = receiver.url
    first = client(endpoint=url, spool=True)
    record(first.telemetry, 10)
    first.close()
    with Receiver(port=receiver.port) as receiver:
        context_of(client(endpoint=url)).frame("pubsub").relays.resume()
        assert "10 events wait in the spool of telemetry for a collector of traces, by spool = true in" in caplog.text
        context_of(client(endpoint=url, spool=True)).frame("pubsub").relays.resume()
        until(lambda: len(receiver.spans()) == 10)


def test_closing_sends_what_waits(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url, spool=True)
        for count in (500, 1000):
            record(instance.telemetry, 500)
            assert instance.telemetry.flush(30)
            until(lambda count=count: instance.telemetry.spool().spans.forwarded == count)
            time.sleep(0.5)
        record(instance.telemetry, 500)
        monkeypatch.setattr(_spool, "_FASTER", 0.001)
        monkeypatch.setattr(_spool, "_GAP", 30.0)
        began = time.monotonic()
        instance.close()
        assert time.monotonic() - began < 10  # at the end nobody is kept waiting
        assert len(receiver.spans()) == 1500


def test_a_rejected_batch_holds_up_nothing(client: Make) -> None:
    with spooled(client) as (away, _, telemetry):
        record(telemetry, 3)
        assert telemetry.flush(30)
        away.status = 400
        until(lambda: telemetry.spool().spans.rejected == 3)
        away.status, away.content = 200, b"\x0a\x02\x08\x02"  # partial success: two are rejected
        record(telemetry, 5)
        assert telemetry.flush(30)
        until(lambda: not waits(telemetry))
        assert telemetry.spool().spans == SignalSpool(0, 0, None, 3, 5, 0)
        assert telemetry.stats().spans.exported == 8


def test_a_batch_that_is_rejected_takes_no_other_along(client: Make) -> None:
    with spooled(client) as (_, receiver, telemetry):
        for name in ("good", "wrong", "good"):
            telemetry.tracer("t").start_span(name).end()
            assert telemetry.flush(30)

        def judge(number: int) -> Any:
            return 400 if b"wrong" in receiver.requests[number][2] else 200, {}, b""

        receiver.answer = judge
        until(lambda: not waits(telemetry))
        assert telemetry.spool().spans == SignalSpool(0, 0, None, 2, 1, 0)


@pytest.mark.promise("C1")
@pytest.mark.parametrize(
    ("on_full", "cause"), [("block", "unreachable"), ("raise", "export_error"), ("drop_oldest", None)]
)
def test_a_full_spool(client: Make, on_full: str, cause: str | None) -> None:
    spool = {"max_bytes": 1 << 20, "on_full": on_full}
    with spooled(client, spool=spool, retry_timeout=0.1) as (away, receiver, telemetry):
        tracer = telemetry.tracer("t")
        for _ in range(60):
            for _ in range(50):
                tracer.start_span("s", attributes={"noise": random.randbytes(500).hex()}).end()
            telemetry.flush(30)
        stats, spool_stats = telemetry.stats().spans, telemetry.spool().spans
        assert exact(stats)
        assert stats.recorded == 3000
        assert spool_stats.bytes <= 1 << 20
        assert counted(spool_stats) == stats.exported
        if cause is None:
            assert (stats.exported, spool_stats.dropped > 1000) == (3000, True)
        else:
            assert dict(stats.dropped) == {cause: 3000 - spool_stats.records}
            assert 0 < spool_stats.records < 2000
        away.status = 200
        until(lambda: not waits(telemetry))
        now = telemetry.spool().spans
        assert now.forwarded == len({span.span_id for span in arrived(away, receiver).spans()})
        assert counted(now) == stats.exported
        record(telemetry, 1)  # there is room again
        assert telemetry.flush(30)


def test_what_is_too_old_is_dropped_and_counted(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spool, "_EXPIRE", 0.1)
    with spooled(client, spool={"max_age": 0.5}) as (away, _, telemetry):
        record(telemetry, 7)
        assert telemetry.flush(30)
        until(lambda: telemetry.spool().spans.dropped == 7)
        telemetry._pipeline.spool._settings = SpoolSettings()
        away.status = 200
        record(telemetry, 2)
        assert telemetry.flush(30)
        until(lambda: telemetry.spool().spans == SignalSpool(0, 0, None, 2, 0, 7))


def test_what_arrives_is_not_counted_as_dropped(client: Make) -> None:
    """A batch that is given up while it is under way."""
    gate = threading.Event()

    def answer(number: int) -> Any:
        gate.wait(30)
        return 200, {}, b""

    with Receiver(answer) as receiver:
        telemetry: Any = client(endpoint=receiver.url, spool=True).telemetry
        record(telemetry, 7)
        assert telemetry.flush(30)
        until(lambda: receiver.requests)
        time.sleep(0.01)
        telemetry._pipeline.spool._logs["traces"].expire(_spool._operation(), 0.001)
        assert telemetry.spool().spans.dropped == 7
        gate.set()
        until(lambda: telemetry.spool().spans == SignalSpool(0, 0, None, 7, 0, 0))


def test_a_returned_collector_is_spared(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that came over two seconds take a fourth of that, at least."""
    monkeypatch.setattr(HttpExporter, "batch_bytes", 2_000)  # so that they are not sent together
    with spooled(client) as (away, receiver, telemetry):
        for _ in range(11):
            record(telemetry, 10)
            assert telemetry.flush(30)
            time.sleep(0.2)
        away.status = 200
        until(lambda: away.accepted)
        began = time.monotonic()
        until(lambda: not waits(telemetry))
        assert time.monotonic() - began >= 0.35
        assert len(arrived(away, receiver).spans()) == 110


def test_small_batches_are_sent_together(client: Make) -> None:
    with spooled(client) as (away, receiver, telemetry):
        for number in range(20):
            record(telemetry, 10, number=number)
            assert telemetry.flush(30)
        until(lambda: receiver.requests)
        away.status = 200
        until(lambda: not waits(telemetry))
        assert len(away.accepted) <= 3
        numbers = [span.attributes[0].value.int_value for span in arrived(away, receiver).spans()]
        assert numbers == [number for number in range(20) for _ in range(10)]


def test_a_home_that_was_removed(client: Make, tmp_path: Path) -> None:
    with spooled(client) as (away, _, telemetry):
        record(telemetry, 1)
        assert telemetry.flush(30)
        while (tmp_path / "home").exists():  # what writes there meanwhile ends one that removes it
            shutil.rmtree(tmp_path / "home", ignore_errors=True)
        away.status = 200
        record(telemetry, 2)
        assert telemetry.flush(30)
        until(lambda: telemetry.spool().spans.forwarded == 2)
        assert exact(telemetry.stats().spans)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_fork(client: Make) -> None:
    with spooled(client) as (away, receiver, telemetry):
        record(telemetry, 10)
        assert telemetry.flush(30)

        def child() -> int:
            record(telemetry, 20)
            assert telemetry.flush(30)
            return telemetry.stats().spans.exported

        assert in_child(child) == 20
        assert waits(telemetry) == 30
        away.status = 200
        until(lambda: not waits(telemetry))
        assert len({span.span_id for span in arrived(away, receiver).spans()}) == 30


def test_a_forked_child_that_only_closes_loses_nothing(client: Make) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url, spool=True)
        telemetry = instance.telemetry

        def child() -> None:
            record(telemetry, 20)
            instance.close()

        in_child(child)
        until(lambda: len(receiver.spans()) == 20)


def test_where_there_can_be_no_spool(tmp_path: Path) -> None:
    def telemetry(**config: Any) -> Any:
        table = {
            "endpoint": "http://localhost:1",
            "flush_on_sigterm": False,
            "spool": True,
            **config.pop("telemetry", {}),
        }
        return CloudRuntimesClient(config={"telemetry": table, **config}).telemetry

    home = {"capa": {"home": str(tmp_path)}}
    with pytest.raises(UnsupportedError, match="use the runtime capa"):
        telemetry(runtime="dapr", endpoint="http://localhost:1")
    with pytest.raises(InvalidArgumentError, match="give a folder as the home"):
        telemetry(capa={"home": ":memory:"})
    for wrong in (1, "yes", {"max_bytes": 5}, {"most": 1}):
        with pytest.raises(InvalidArgumentError, match="spool"):
            telemetry(telemetry={"spool": wrong}, **home)
    without = telemetry(telemetry={"exporter": "file"}, **home)
    with pytest.raises(UnsupportedError, match="spool = true"):
        without.spool()


# -- processes ----------------------------------------------------------------


class Process:
    """A process of ``spooling.py``."""

    def __init__(self, *words: Any) -> None:
        command = [sys.executable, "-m", "tests.telemetry.spooling", *map(str, words)]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )

    def line(self) -> Any:
        """Read what it says next."""
        assert self.popen.stdout is not None
        return json.loads(self.popen.stdout.readline() or "null")

    def ask(self) -> Any:
        """Have a collector say what it counted."""
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        return self.line()

    def kill(self) -> list[Any]:
        """SIGKILL it; return what it still said."""
        self.popen.kill()
        if self.popen.stdin is not None and self.popen.stdin.closed:
            self.popen.stdin = None
        out, _ = self.popen.communicate()
        return [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def start() -> Iterator[Any]:
    """Start processes; they are killed at the end."""
    processes: list[Process] = []

    def make(*words: Any) -> Process:
        processes.append(Process(*words))
        return processes[-1]

    yield make
    for each in processes:
        if each.popen.poll() is None:
            each.kill()


def until_received(collector: Process, count: int, seconds: float = 120.0) -> Any:
    """Wait until so many different spans have arrived; return what the collector counted."""
    end = time.monotonic() + seconds
    while sum((found := collector.ask())["distinct"].values()) < count:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


@pytest.mark.process
@pytest.mark.native_only
def test_a_collector_that_is_away(start: Any, tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    port, rate, seconds = free_port(), 10_000, rounds(4, 1800)
    emitter = start("emit", f"http://127.0.0.1:{port}", tmp_path, "s", rate, seconds, 64 << 30)
    stored = emitter.line()
    assert stored["recorded"] == stored["exported"] == rate * seconds
    size = sum(file.stat().st_size for file in tmp_path.glob("telemetry-spool.db*"))
    began = time.monotonic()
    collector = start("collect", port)
    assert collector.line() == {"ready": True}
    got = until_received(collector, rate * seconds, 60 + seconds)
    took = time.monotonic() - began
    emitter.popen.stdin.close()
    replayed = emitter.line()["replayed"]
    figure(
        f"the collector away for {seconds} s at {rate:,} spans a second, with a spool",
        f"{got['received']:,} received, {got['twice']} twice, {got['disorder']} out of order, dropped {stored['dropped'] or 0}; "
        f"{size / 2**20:,.0f} MiB on disk, replayed in {took:.0f} s; memory {stored['grown'] / 2**20:+.1f} MiB while it was "
        f"away, {replayed / 2**20:+.1f} MiB after",
    )
    assert (got["received"], got["twice"], got["disorder"], got["overlaps"]) == (rate * seconds, 0, 0, 0)
    assert stored["dropped"] == {}
    assert got["late"] > rate  # they have their own times
    assert max(stored["grown"], replayed) < 64 << 20


@pytest.mark.process
def test_killed_processes_lose_nothing_that_was_durable(
    start: Any, tmp_path: Path, rounds: Rounds, figure: Figure
) -> None:
    port, kills, chance = free_port(), rounds(6, 200), random.Random(7)
    url = f"http://127.0.0.1:{port}"
    collector = start("collect", port, 0.01)
    collector.line()
    durable = {"a": 0, "b": 0}
    processes: dict[str, Process] = {}
    for _ in range(kills):
        for name in durable:
            if name not in processes:
                processes[name] = start("store", url, tmp_path, name, durable[name])
                assert processes[name].line() == {"ready": True}
        time.sleep(chance.uniform(0.1, 0.5))
        name = chance.choice("ab")
        for said in processes.pop(name).kill():
            durable[name] = said["durable"]
    for name, process in processes.items():
        for said in process.kill():
            durable[name] = said["durable"]
    with CloudRuntimesClient(
        app_id="load", config={"capa": {"home": str(tmp_path)}, "telemetry": {"endpoint": url, "spool": True}}
    ) as client:
        until(lambda: not client.telemetry.spool().spans.records)
        spool = client.telemetry.spool().spans
    got = collector.ask()
    figure(
        "SIGKILL of processes with a spool of telemetry",
        f"{kills} kills, {sum(durable.values()):,} spans durable, all received, {got['twice']} twice",
    )
    assert all(got["distinct"][name] >= durable[name] for name in durable)
    assert got["received"] - got["twice"] == sum(got["distinct"].values())
    assert (spool.rejected, spool.dropped) == (0, 0)
    assert got["overlaps"] <= kills  # what a killed process had under way, its collector may still read


@pytest.mark.process
def test_one_process_sends_and_another_takes_over(start: Any, tmp_path: Path) -> None:
    port = free_port()
    collector = start("collect", port, 0.02)
    collector.line()
    url = f"http://127.0.0.1:{port}"
    first = start("store", url, tmp_path, "a", 0)
    assert first.line() == {"ready": True}
    until_received(collector, 100)
    second = start("store", url, tmp_path, "b", 0)
    assert second.line() == {"ready": True}
    began = collector.ask()["distinct"]
    until(lambda: collector.ask()["distinct"].get("b", 0) > 200)
    assert collector.ask()["overlaps"] == 0
    durable = [said["durable"] for said in first.kill()][-1]
    until(lambda: collector.ask()["distinct"]["a"] >= durable, seconds=20)
    before = collector.ask()["distinct"]["b"]
    until(lambda: collector.ask()["distinct"]["b"] > before + 500, seconds=20)
    assert began["a"] >= 100
