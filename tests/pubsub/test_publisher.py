"""The batching publisher before a driver that fails as told: reports, retries, time-outs, a full buffer."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from cloud_runtimes.errors import (
    BulkError,
    CloudRuntimesError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    ResourceExhaustedError,
    UnavailableError,
)
from cloud_runtimes.pubsub import DeliveryReport
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.spi.pubsub import Failures, OutgoingBatch, PubSubDriver
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.suites._base import Call, Suite
from cloud_runtimes.testing.suites.pubsub import drain
from tests.support.arguments import one_each
from tests.support.harnesses.embedded import MemoryHarness
from tests.support.harnesses.rows import rows
from tests.support.waiting import Stopwatch, in_threads, until

SOON = 30.0


class Broken:
    """Stands before a driver and fails as told: a fake, named so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, driver: PubSubDriver) -> None:
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0
        inner = driver.publish

        def publish(*arguments: Any) -> Any:
            self.calls += 1
            assert self.gate.wait(SOON)
            if self.error is not None:
                raise self.error
            return inner(*arguments)

        monkeypatch.setattr(driver, "publish", publish)


class TestPublisher(Suite):
    service = "pubsub"
    harness = rows({MemoryHarness.name: MemoryHarness})

    @pytest.fixture
    def broken(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> Broken:
        """The driver, which can be made to fail."""
        return Broken(monkeypatch, call.driver())

    def test_unused_publisher_closes(self, call: Call, api: Api) -> None:
        with call.opened("publisher", "t") as publisher:
            api.call(publisher, "flush")
            assert publisher.stats() == (0, 0, 0, 0, 0, 0, 0)

    def test_reports(self, call: Call, api: Api) -> None:
        reports: list[DeliveryReport] = []
        threads: set[str] = set()

        def on_delivery(report: DeliveryReport) -> None:
            reports.append(report)
            threads.add(threading.current_thread().name)
            raise RuntimeError("logged, and nothing else")

        with call.opened("publisher", "t", batch_events=100, on_delivery=on_delivery) as publisher:
            for number in range(450):
                api.call(publisher, "send", number)
            api.call(publisher, "flush")
        assert threads == {"cloud-runtimes-publisher"}
        assert [report.first for report in reports] == [1] + [report.last + 1 for report in reports[:-1]]
        assert reports[-1].last == 450
        assert not any(report.failed for report in reports)
        assert all(report.last - report.first < 100 for report in reports)

    def test_on_delivery_may_not_flush(self, call: Call, api: Api) -> None:
        refused: list[str] = []

        def on_delivery(report: DeliveryReport) -> None:
            for method in (publisher.flush, publisher.close):
                try:
                    method()
                except RuntimeError as error:
                    refused.append(str(error))

        publisher = call.plain("publisher", "t", on_delivery=on_delivery)
        api.call(publisher, "send", 1)
        api.call(publisher, "close")
        assert len(refused) == 2
        with pytest.raises(InvalidArgumentError, match="on_delivery"):
            call.plain("publisher", "t", on_delivery="no function")  # type: ignore[arg-type]

        async def coroutine(report: DeliveryReport) -> None:
            raise AssertionError("never called")

        with pytest.raises(InvalidArgumentError, match="async"):
            call.plain("publisher", "t", on_delivery=coroutine)  # type: ignore[arg-type]

    def test_a_refusal_is_told_at_once(
        self, call: Call, api: Api, broken: Broken, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken.error = NotFoundError("there is no such topic: make it")
        publisher = call.plain("publisher", "t", linger=0.0)
        assert api.call(publisher, "send", 1) == 1
        until(lambda: publisher._sender.refusal)
        assert "1 events have failed: there is no such topic: make it" in caplog.text
        api.fails(NotFoundError, match="no such topic")(publisher, "send", 2)
        broken.error = None
        assert api.call(publisher, "send", 3) == 2
        api.fails(BulkError, match="1 events")(publisher, "close")
        stats = publisher.stats()
        assert (stats.accepted, stats.delivered, stats.failed) == (2, 1, 1)

    def test_failures(self, call: Call, api: Api, broken: Broken) -> None:
        broken.error = InvalidArgumentError("not this one")
        reports: list[DeliveryReport] = []
        publisher = call.plain("publisher", "t", on_delivery=reports.append)
        for number in range(3):
            api.call(publisher, "send", {"n": number})
        api.call(publisher, "flush")
        failed = [event for report in reports for event in report.failed]
        assert [event.sequence for event in failed] == [1, 2, 3]
        assert b'"data":{"n":1}' in failed[1].event
        assert failed[0].id.encode() in failed[0].event
        assert all(isinstance(event.error, InvalidArgumentError) for event in failed)
        broken.error = None
        api.call(publisher, "send", "fine")
        api.call(publisher, "close")
        stats = publisher.stats()
        assert (stats.accepted, stats.delivered, stats.failed, stats.buffered) == (4, 1, 3, 0)
        assert [event.data for event in drain(api, call, 1)] == ["fine"]

    def test_failures_without_reports(self, call: Call, api: Api, broken: Broken) -> None:
        broken.error = InvalidArgumentError("never")
        publisher = call.plain("publisher", "t", batch_events=500)
        for number in range(1500):
            api.call(publisher, "send", number)
        error = api.fails(BulkError)(publisher, "flush")
        assert len(error.failed) == 1000
        assert "1,500" in str(error)
        api.call(publisher, "flush")  # told once
        api.call(publisher, "close")

    def test_retries_under_the_same_ids(self, call: Call, api: Api, broken: Broken) -> None:
        broken.error = UnavailableError("away")
        publisher = call.plain("publisher", "t")
        for number in range(5):
            api.call(publisher, "send", number)
        assert api.until(lambda: broken.calls >= 3)
        assert publisher.stats().buffered == 5
        broken.error = None
        api.call(publisher, "flush", SOON)
        api.call(publisher, "close")
        events = drain(api, call, 5)
        assert [event.data for event in events] == list(range(5))

    @pytest.mark.promise("B4")
    def test_delivery_timeout(self, call: Call, api: Api, broken: Broken) -> None:
        broken.error = UnavailableError("away")
        reports: list[DeliveryReport] = []
        publisher = call.plain("publisher", "t", delivery_timeout=0.3, on_delivery=reports.append)
        api.call(publisher, "send", "lost")
        started = time.monotonic()
        with Stopwatch() as watch:
            api.call(publisher, "flush")
            assert watch.seconds < 3
        assert time.monotonic() - started > 0.2
        assert [type(event.error) for event in reports[0].failed] == [UnavailableError]
        broken.error = None
        api.call(publisher, "send", "kept")  # the failed one holds nothing back
        api.call(publisher, "close")
        assert [event.data for event in drain(api, call, 1)] == ["kept"]

    def test_waiting_is_not_being_tried(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = call.driver()
        inner = driver.publish

        def slow(op: Operation, batch: OutgoingBatch) -> Failures:
            failed: dict[int, CloudRuntimesError] = {}
            for index, frame in enumerate(batch.frames):  # each of one event
                if (op.remaining() or 0.0) < 0.7 * scale:  # a few get through each time
                    failed[index] = DeadlineExceededError("slow")
                else:
                    time.sleep(0.04 * scale)
                    assert not inner(op, OutgoingBatch(batch.topic, [frame], 1))
            return failed

        monkeypatch.setattr(driver, "publish", slow)
        for scale in (1, 6):
            try:
                with call.plain("publisher", "t", delivery_timeout=1.5 * scale, batch_events=1) as publisher:
                    for number in range(40):
                        publisher.send(number)
                    publisher.flush()  # which takes longer than that
                    assert publisher.stats().delivered == 40
                return
            except BulkError:  # a busy machine may stand still for that long
                assert scale == 1

    def test_flush_times_out(self, call: Call, api: Api, broken: Broken) -> None:
        broken.gate.clear()
        publisher = call.plain("publisher", "t")
        api.call(publisher, "send", 1)
        api.fails(DeadlineExceededError, match="flush")(publisher, "flush", 0.1)
        broken.gate.set()
        api.call(publisher, "flush", SOON)
        api.call(publisher, "close")
        assert publisher.stats().delivered == 1

    def test_close_gives_up_in_time(self, call: Call, api: Api, broken: Broken) -> None:
        broken.error = UnavailableError("away")
        publisher = call.plain("publisher", "t")
        api.call(publisher, "send", 1)
        with Stopwatch() as watch:
            api.fails(BulkError)(publisher, "close", timeout=0.3)
            assert watch.seconds < 3
        assert publisher.stats().failed == 1
        assert publisher.stats().buffered == 0

    @pytest.mark.promise("B4")
    @pytest.mark.parametrize("on_full", ["block", "raise", "drop"])
    def test_full(self, call: Call, api: Api, broken: Broken, on_full: Any) -> None:
        broken.gate.clear()
        publisher = call.plain("publisher", "t", buffer_bytes=20_000, batch_bytes=5_000, on_full=on_full)
        sent = 0
        data = "x" * 1000
        if on_full == "drop":
            while api.call(publisher, "send", data):
                sent += 1
            assert api.call(publisher, "send", data) == 0
            assert publisher.stats().dropped == 2
        else:
            started = time.monotonic()
            with pytest.raises(ResourceExhaustedError, match="full"):
                while True:
                    api.call(publisher, "send", data, timeout=0.2 if on_full == "block" else 30)
                    sent += 1
            waited = time.monotonic() - started
            assert waited > 0.15 if on_full == "block" else waited < 10
        assert 10 <= sent <= 20
        assert publisher.stats().bytes <= 20_000
        broken.gate.set()
        if on_full == "block":
            api.call(publisher, "send", data)
            sent += 1
        api.call(publisher, "close")
        assert publisher.stats().delivered == sent

    def test_a_running_loop_is_not_blocked(self, call: Call, broken: Broken) -> None:
        import asyncio

        broken.gate.clear()
        publisher = call.plain("publisher", "t", buffer_bytes=20_000, batch_bytes=5_000)

        async def run() -> float:
            with Stopwatch() as watch, pytest.raises(ResourceExhaustedError, match="send_async"):
                while True:
                    publisher.send("x" * 1000)
            return watch.seconds

        assert asyncio.run(run()) < 1
        broken.gate.set()
        publisher.close()

    def test_what_cannot_be_sent(self, call: Call, api: Api) -> None:
        with call.opened("publisher", "t", buffer_bytes=10_000) as publisher:
            api.fails(PayloadError)(publisher, "send", {1j})
            api.fails(InvalidArgumentError, match="key")(publisher, "send", 1, key="")
            api.fails(InvalidArgumentError)(publisher, "send", 1, attributes={"Bad": 1})
            api.fails(ResourceExhaustedError, match="never")(publisher, "send", "x" * 10_001)
            assert publisher.stats().accepted == 0
        numbers = one_each(
            linger=(-1,), batch_events=(0,), batch_bytes=(1.5,), buffer_bytes=(True,), delivery_timeout=(0,)
        )
        for options in (*numbers, *one_each(on_full=("wait",), content_type=("no media type", []))):
            with pytest.raises(InvalidArgumentError, match=next(iter(options))):
                call.plain("publisher", "t", **options)
        for name in ("Bad", "datacontenttype"):
            with pytest.raises(InvalidArgumentError, match=name):
                call.plain("publisher", "t", attributes={name: "text/plain"})

    def test_many_threads(self, call: Call, api: Api) -> None:
        publisher = call.plain("publisher", "t", batch_events=50)

        def run(thread: int) -> None:
            for number in range(200):
                publisher.send([thread, number], key=str(thread))

        in_threads(*[threading.Thread(target=run, args=(number,)) for number in range(8)])
        publisher.close()
        sent = [event.data for event in drain(api, call, 1600)]
        for each in range(8):
            assert [number for thread, number in sent if thread == each] == list(range(200))
