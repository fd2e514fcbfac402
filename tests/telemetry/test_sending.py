"""The pipeline before endpoints that fail, over HTTP and gRPC: what is sent again, what is dropped, counters exact, flush and close in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from cloud_runtimes.telemetry import _pipeline
from cloud_runtimes.telemetry._http import HttpExporter
from tests.support import Make, Rounds
from tests.support.waiting import until
from tests.telemetry.emitting import exact, exact_at_any_time, record
from tests.telemetry.grpc_receiver import GrpcReceiver, Refusal, retry_info
from tests.telemetry.otlp_receiver import Receiver


class No(NamedTuple):
    """A refusal, and the seconds that the endpoint asks to wait before another try."""

    code: Any
    wait: float | None = None


Said = Callable[[int], No | bytes | None]
"""What the n-th request (from 0) is answered; ``None``: nothing."""


class Http:
    """OTLP over HTTP."""

    again = (429, 502, 503, 504)
    never = (400, 401, 404, 413, 500, 501, 301)
    busy, pause, broken = 503, 1.0, None
    settings: ClassVar[dict[str, str]] = {}

    @staticmethod
    def receiver(said: Said) -> Any:
        def answer(number: int) -> Any:
            reply = said(number)
            if isinstance(reply, No):
                return reply.code, {} if reply.wait is None else {"Retry-After": f"{reply.wait:g}"}, b""
            return reply if reply is None else (200, {}, reply)

        return Receiver(answer)


class Grpc:
    """OTLP over gRPC."""

    again = ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "DATA_LOSS")
    never = ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "INTERNAL", "UNKNOWN")
    busy, pause, broken = "UNAVAILABLE", 1.2, No("INVALID_ARGUMENT")
    settings: ClassVar[dict[str, str]] = {"protocol": "grpc", "home": ":memory:"}

    @staticmethod
    def receiver(said: Said) -> Any:
        def answer(number: int) -> bytes:
            reply = said(number)
            if isinstance(reply, No):
                raise Refusal(reply.code, None if reply.wait is None else retry_info(reply.wait))
            assert reply is not None
            return reply

        return GrpcReceiver(answer)


Way = type[Http] | type[Grpc]
both_ways = pytest.mark.parametrize("way", [Http, Grpc])


@contextmanager
def endpoint(client: Make, way: Way, said: Said, **settings: Any) -> Iterator[tuple[Any, Any]]:
    """Run a receiver, and give it with the telemetry of a client that sends to it."""
    with way.receiver(said) as receiver:
        yield receiver, client(endpoint=receiver.url, **way.settings, **settings).telemetry


@pytest.mark.promise("F3")
@pytest.mark.parametrize(("way", "code"), [(way, code) for way in (Http, Grpc) for code in way.again])
def test_what_is_sent_again(client: Make, way: Way, code: Any) -> None:
    with endpoint(client, way, lambda n: No(code, 0) if n < 2 else b"") as (receiver, telemetry):
        record(telemetry, 3)
        assert telemetry.flush(30)
        assert [body for _, _, body in receiver.requests] == [receiver.requests[0][2]] * 3
        assert way is Grpc or receiver.connections == 1
        assert telemetry.stats().spans.exported == 3


@pytest.mark.promise("F3")
@pytest.mark.parametrize(("way", "code"), [(way, code) for way in (Http, Grpc) for code in way.never])
def test_what_is_refused_for_good(client: Make, way: Way, code: Any) -> None:
    refusal = No(code, 0 if way is Grpc else None)
    with endpoint(client, way, lambda n: refusal if n == 0 else b"") as (receiver, telemetry):
        record(telemetry, 3)
        assert not telemetry.flush(30)
        record(telemetry, 2)
        assert telemetry.flush(30)
        stats = telemetry.stats().spans
        assert (stats.exported, dict(stats.dropped), len(receiver.requests)) == (2, {"rejected": 3}, 2)


def test_a_broken_connection_is_made_anew(client: Make) -> None:
    with endpoint(client, Http, lambda n: None if n == 0 else b"") as (receiver, telemetry):
        record(telemetry, 1)
        assert telemetry.flush(20)
        assert receiver.connections == 2


@pytest.mark.promise("F3")
@both_ways
def test_partial_success_is_counted(client: Make, way: Way) -> None:
    answer = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="no"))
    with endpoint(client, way, lambda n: answer.SerializeToString()) as (receiver, telemetry):
        record(telemetry, 5)
        assert not telemetry.flush(30)
        stats = telemetry.stats().spans
        assert (stats.exported, dict(stats.dropped), len(receiver.requests)) == (3, {"rejected": 2}, 1)


@pytest.mark.promise("F3")
@both_ways
def test_the_pause_that_is_asked_for_is_kept(client: Make, way: Way) -> None:
    with endpoint(client, way, lambda n: No(way.busy, way.pause) if n == 0 else b"") as (_, telemetry):
        record(telemetry, 1)
        began = time.monotonic()
        assert telemetry.flush(30)
        assert time.monotonic() - began >= way.pause


@both_ways
def test_given_up_after_retry_timeout(client: Make, way: Way) -> None:
    with endpoint(client, way, lambda n: No(way.busy, 3600)) as (_, telemetry):
        record(telemetry, 4)
        assert not telemetry.flush(30)
        assert dict(telemetry.stats().spans.dropped) == {"unreachable": 4}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compression_and_headers(client: Make, compression: str) -> None:
    with Receiver() as receiver:
        telemetry = client(
            endpoint=receiver.url + "/", compression=compression, headers="x-key=a%20b, other=1"
        ).telemetry
        record(telemetry, 100, same="value" * 20)  # ids cannot be compressed, and are most of a small span
        assert telemetry.flush(10)
        ((path, headers, body),) = receiver.requests
        assert (path, headers["Content-Encoding"], headers["x-key"], headers["other"]) == (
            "/v1/traces",
            compression,
            "a b",
            "1",
        )
        assert int(headers["Content-Length"]) < len(body) / 2
        assert len(receiver.spans()) == 100


def refused() -> tuple[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}", None


def black_hole() -> tuple[str, Any]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    return f"http://127.0.0.1:{listener.getsockname()[1]}", listener


@pytest.mark.promise("F2")
@both_ways
@pytest.mark.parametrize("nowhere", [refused, black_hole])
def test_flush_and_close_keep_their_word(client: Make, way: Way, nowhere: Callable[[], tuple[str, Any]]) -> None:
    url, listener = nowhere()
    instance = client(endpoint=url, **way.settings)
    telemetry = instance.telemetry
    record(telemetry, 10)
    began = time.monotonic()
    assert telemetry.flush(0.5) is False
    flushed = time.monotonic()
    instance.close(timeout=0.3)
    closed = time.monotonic()
    # promised are 0.2 s over; a machine with other things to do gets a few seconds, and not the 10 s of an attempt
    assert 0.5 <= flushed - began < 5
    assert closed - flushed < 5
    until(lambda: not telemetry.stats().spans.buffered)
    stats = telemetry.stats().spans
    assert (stats.recorded, stats.exported, sum(stats.dropped.values()), stats.buffered) == (10, 0, 10, 0)
    if listener:
        listener.close()


@pytest.mark.promise("F2")
def test_closing_gives_up_where_nothing_is_accepted(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pipeline, "_PATIENCE", 0.3)
    url, listener = black_hole()
    instance = client(endpoint=url)
    telemetry = instance.telemetry
    record(telemetry, 10)
    began = time.monotonic()
    instance.close()  # which has the client's 30 s
    assert time.monotonic() - began < 8
    until(lambda: not telemetry.stats().spans.buffered)
    stats = telemetry.stats().spans
    assert exact(stats)
    assert (stats.exported, sum(stats.dropped.values())) == (0, 10)
    listener.close()


def test_closing_waits_for_a_slow_endpoint(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pipeline, "_PATIENCE", 2.5)
    monkeypatch.setattr(_pipeline, "CHUNK_BYTES", 2_000)
    monkeypatch.setattr(HttpExporter, "batch_bytes", 2_500)

    def slow(number: int) -> bytes:
        time.sleep(0.15)
        return b""

    with Http.receiver(slow) as receiver:
        instance = client(endpoint=receiver.url)
        telemetry = instance.telemetry
        record(telemetry, 300, text="x" * 100)
        instance.close()
        assert len(receiver.requests) > 20  # together they take longer than it waits for one
        assert telemetry.stats().spans.exported == 300


def test_a_full_buffer_drops_and_counts(client: Make) -> None:
    url, listener = black_hole()
    telemetry = client(endpoint=url, buffer_bytes=100_000, trace_delay=0.01).telemetry
    record(telemetry, 5_000, text="x" * 100)
    stats = telemetry.stats().spans
    assert exact(stats)
    assert stats.dropped["buffer_full"] > 4_000
    assert stats.buffered_bytes <= 100_000
    listener.close()


@pytest.mark.promise("F1")
@both_ways
def test_counters_are_exact_at_any_time(client: Make, way: Way, rounds: Rounds) -> None:
    answers = {1: No(way.busy, 0), 2: No(way.never[0]), 3: way.broken}
    with endpoint(client, way, lambda n: answers.get(n % 7, b""), trace_delay=0.001, buffer_bytes=50_000) as opened:
        exact_at_any_time(opened[1], rounds(2_000, 100_000))


def test_nothing_is_lost_or_twice_at_speed(client: Make, rounds: Rounds) -> None:
    count = rounds(20_000, 1_000_000)
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url, buffer_bytes=1 << 30).telemetry
        record(telemetry, count, number=1)
        assert telemetry.flush(120)
        received = {span.span_id for span in receiver.spans()}
        assert len(received) == len(receiver.spans()) == count == telemetry.stats().spans.exported
