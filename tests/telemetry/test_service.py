"""Public API of telemetry: tracers, loggers, the handler of `logging`, flush and stats, default destinations."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.telemetry._file import read_batches
from tests.support import Make
from tests.telemetry.otlp_receiver import Receiver


def stored(home: Path, signal: str) -> list[Any]:
    message: Any = {"traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest}[signal]
    return [message.FromString(b) for f in sorted((home / "telemetry").glob(f"{signal}-*")) for b in read_batches(f)]


def test_without_an_endpoint_records_go_to_files(client: Make, tmp_path: Path) -> None:
    instance = client()
    with instance.telemetry.tracer("lib", "1.2").span("work", attributes={"k": 1}):
        instance.telemetry.logger("app").info("hello", n=2)
    assert instance.telemetry.flush(10)
    (spans,) = stored(tmp_path / "home", "traces")
    (logs,) = stored(tmp_path / "home", "logs")
    scope = spans.resource_spans[0].scope_spans[0]
    assert (scope.scope.name, scope.scope.version, scope.spans[0].name) == ("lib", "1.2", "work")
    attributes = {each.key: each.value.string_value for each in spans.resource_spans[0].resource.attributes}
    assert (attributes["service.name"], attributes["telemetry.sdk.name"]) == ("shop", "cloud_runtimes")
    record = logs.resource_logs[0].scope_logs[0].log_records[0]
    assert (record.body.string_value, record.span_id) == ("hello", scope.spans[0].span_id)
    stats = instance.telemetry.stats()
    assert (stats.spans.recorded, stats.spans.exported, stats.spans.buffered, dict(stats.spans.dropped)) == (
        1,
        1,
        0,
        {},
    )


def test_in_memory_nothing_is_written(client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    instance = client(home=":memory:")
    instance.telemetry.tracer("t").start_span("s").end()
    assert instance.telemetry.flush(10)
    assert list(tmp_path.iterdir()) == []
    instance.close()


def test_records_of_one_scope_stand_together(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        one, other, same = telemetry.tracer("one"), telemetry.tracer("other", "2"), telemetry.tracer("one")
        for tracer in (one, other, same) * 5:
            with tracer.span("s"):
                pass
        assert telemetry.flush(10)
        ((path, headers, body),) = receiver.requests
        assert (path, headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
        (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
        assert [(each.scope.name, len(each.spans)) for each in resource.scope_spans] == [("one", 10), ("other", 5)]


def test_records_leave_by_themselves(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url, trace_delay=0.01, log_delay="10ms").telemetry
        telemetry.tracer("t").start_span("s").end()
        telemetry.logger("t").warning("w")
        over = threading.Event()
        for _ in range(1000):
            if receiver.spans() and receiver.logs():
                break
            over.wait(0.01)
        assert (len(receiver.spans()), len(receiver.logs())) == (1, 1)


def test_flush_in_async_code(client: Make) -> None:
    async def work() -> bool:
        instance = client()
        async with instance.telemetry.tracer("t").span("s"):
            await asyncio.sleep(0)
        return await instance.telemetry.flush_async(10)

    assert asyncio.run(work())


def test_flush_is_false_after_a_drop_and_true_again(client: Make) -> None:
    telemetry = client(buffer_bytes=1000).telemetry
    tracer = telemetry.tracer("t")
    tracer.start_span("s", attributes={"large": "x" * 2000}).end()
    assert not telemetry.flush(10)
    tracer.start_span("s").end()
    assert telemetry.flush(10)
    assert dict(telemetry.stats().spans.dropped) == {"too_large": 1}


def test_close_sends_and_refuses(client: Make) -> None:
    with Receiver() as receiver:
        before = set(threading.enumerate())
        instance = client(endpoint=receiver.url)
        telemetry = instance.telemetry
        tracer = telemetry.tracer("t")
        tracer.start_span("s").end()
        instance.close()
        tracer.start_span("late").end()
        assert [span.name for span in receiver.spans()] == ["s"]
        assert dict(telemetry.stats().spans.dropped) == {"closed": 1}
        assert "cloud-runtimes-telemetry" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_the_handler_of_logging(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        logger = logging.Logger("app.part")
        logger.addHandler(telemetry.logging_handler(logging.INFO))
        logger.debug("below")
        with telemetry.tracer("t").span("s") as span:
            logger.warning("%d left", 3, extra={"user": "u"})
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("failed")
        assert telemetry.flush(10)
        warning, failed = receiver.logs()
        attributes = {each.key: each.value for each in warning.attributes}
        assert (warning.body.string_value, warning.severity_number) == ("3 left", 13)
        assert warning.severity_text == "WARNING"
        assert warning.span_id.hex() == span.context.span_id
        assert attributes["user"].string_value == "u"
        assert attributes["code.function.name"].string_value == "test_the_handler_of_logging"
        assert {"exception.type", "exception.stacktrace"} <= {each.key for each in failed.attributes}


def test_filters_and_levels_of_the_handler(client: Make) -> None:
    def only_even(record: logging.LogRecord) -> bool | logging.LogRecord:
        record.msg = f"{record.msg}!"
        return isinstance(record.args, tuple) and record.args[0] % 2 == 0

    def another(record: logging.LogRecord) -> bool | logging.LogRecord:
        if sys.version_info < (3, 12):
            record.args = (record.args[0] + 10,) if isinstance(record.args, tuple) else None
            return True
        copy = logging.makeLogRecord(vars(record))
        copy.args = (record.args[0] + 10,) if isinstance(record.args, tuple) else None
        return copy

    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        handler = telemetry.logging_handler()
        handler.addFilter(only_even)
        handler.addFilter(another)
        logger = logging.Logger("l", 1)
        logger.addHandler(handler)
        levels = [1, 9, 10, 15, 20, 25, 30, 40, 49, 50, 99]
        for number, level in enumerate(levels):
            logger.log(level, "%d", 2 * number)
            logger.log(level, "%d", 2 * number + 1)
        assert telemetry.flush(10)
        records = receiver.logs()
        assert [each.body.string_value for each in records] == [f"{2 * number + 10}!" for number in range(len(levels))]
        assert [each.severity_number for each in records] == [1, 1, 5, 5, 9, 9, 13, 17, 17, 21, 21]


def test_the_console(client: Make, capsys: pytest.CaptureFixture[str]) -> None:
    instance = client(exporter="console")
    values = {"s": "é", "i": -5, "f": 0.5, "b": True, "l": [1, {"k": b"\x00"}], "nan": float("nan")}
    with instance.telemetry.tracer("t").span("s", attributes=values) as span:
        span.add_event("e")
        span.add_link(span)
        span.set_status("error", "m")
    instance.telemetry.logger("t").info("hello")
    assert instance.telemetry.flush(10)
    traces, logs = map(json.loads, capsys.readouterr().out.splitlines())
    exported = traces["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (exported["traceId"], exported["status"]) == (span.context.trace_id, {"message": "m", "code": 2})
    assert {each["key"]: each["value"] for each in exported["attributes"]} == {
        "s": {"stringValue": "é"},
        "i": {"intValue": "-5"},
        "f": {"doubleValue": 0.5},
        "b": {"boolValue": True},
        "l": {
            "arrayValue": {
                "values": [
                    {"intValue": "1"},
                    {"kvlistValue": {"values": [{"key": "k", "value": {"bytesValue": "AA=="}}]}},
                ]
            }
        },
        "nan": {"doubleValue": "NaN"},
    }
    record = logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert record["body"] == {"stringValue": "hello"}


def test_none_records_nothing(client: Make, tmp_path: Path) -> None:
    telemetry = client(exporter="none").telemetry
    with telemetry.tracer("t").span("s") as span:
        assert not span.is_recording
        telemetry.logger("t").critical("no")
    assert telemetry.flush(10)
    assert telemetry.stats().spans.recorded == telemetry.stats().logs.recorded == 0
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["", 5, None])
def test_a_scope_has_a_name(client: Make, name: Any) -> None:
    telemetry = client().telemetry
    with pytest.raises(InvalidArgumentError, match="scope"):
        telemetry.tracer(name)
    with pytest.raises(InvalidArgumentError, match="scope"):
        telemetry.meter(name)
    with pytest.raises(InvalidArgumentError, match="scope"):
        telemetry.logger(name)
    with pytest.raises(InvalidArgumentError, match="timeout"):
        telemetry.flush(0)


def test_supports(client: Make) -> None:
    instance = client()
    assert instance.supports("telemetry")
    assert instance.supports("telemetry.file")
    assert not instance.supports("telemetry.otlp_http")


def test_a_closed_client_is_let_go(client: Make) -> None:
    instance = CloudRuntimesClient(config={"capa": {"home": ":memory:"}, "telemetry": {"flush_on_sigterm": False}})
    instance.telemetry.tracer("t").start_span("s").end()
    instance.close()
    gone = weakref.ref(instance)
    del instance
    gc.collect()
    assert gone() is None
