"""Programs of the load tests, each run in a process of its own.

``python telemetry_load.py sink [CERTIFICATE]`` counts what it receives; the others record.

A sink prints its URL, and its counts when its stdin ends. The others print one line of JSON.
"""

from __future__ import annotations

import json
import resource
import socket
import ssl
import sys
import threading
import time
from array import array
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from tests.support.waiting import running

ATTRIBUTES = {
    "http.request.method": "GET",
    "http.route": "/cart/{id}",
    "http.status": 200,
    "peer": "db",
    "cached": True,
}


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# -- the other side -----------------------------------------------------------


def sink(certificate: str = "") -> None:
    """An endpoint that reads every batch with opentelemetry-proto, and counts."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    ids = bytearray()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                spans = [s for r in ExportTraceServiceRequest.FromString(body).resource_spans for s in r.scope_spans]
                with lock:
                    for scope in spans:
                        ids.extend(b"".join([span.span_id for span in scope.spans]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(url=f"{'https://localhost' if certificate else 'http://127.0.0.1'}:{server.server_port}")
    sys.stdin.read()
    with lock:
        span_ids = [bytes(ids[at : at + 8]) for at in range(0, len(ids), 8)]
    say(spans=len(span_ids), distinct=len(set(span_ids)))


def bad(kind: str) -> None:
    """An endpoint that does not do what it should, in ever so many ways."""
    if kind == "black hole":
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        say(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        sys.stdin.read()
        return

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if kind == "slow":
                time.sleep(10)
            self.send_response({"503": 503, "400": 400}.get(kind, 200))
            if kind == "503":
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # callers break off

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(url=f"http://127.0.0.1:{server.server_port}")
    sys.stdin.read()


# -- ours ---------------------------------------------------------------------


def client(url: str, home: str, **settings: Any) -> CloudRuntimesClient:
    table = {"endpoint": url, "flush_on_sigterm": False, **settings}
    return CloudRuntimesClient(app_id="load", config={"capa": {"home": home}, "telemetry": table})


def paced(rate: float, seconds: float, record: Callable[[], object]) -> array[int]:
    """Record at an even rate, spinning in between; returns what each call took in nanoseconds."""
    taken = times(rate, seconds)
    record_paced(taken, rate, record)
    return taken


def times(rate: float, seconds: float) -> array[int]:
    """Return room for the times of calls, so that measuring takes no memory while it goes on."""
    return array("q", bytes(8 * int(rate * seconds)))


def record_paced(taken: array[int], rate: float, record: Callable[[], object]) -> None:
    clock = time.perf_counter_ns
    begin = clock()
    step = 1e9 / rate
    for number in range(len(taken)):
        due = begin + number * step
        while clock() < due:
            pass
        before = clock()
        record()
        taken[number] = clock() - before


def delivered(url: str, home: str, rate: str, seconds: str, certificate: str = "") -> None:
    """Spans at a rate to a sink, from a main thread that never rests."""
    with client(url, home, **({"certificate": certificate} if certificate else {})) as instance:
        tracer = instance.telemetry.tracer("load")

        def record() -> None:
            with tracer.span("GET /cart/{id}", attributes=ATTRIBUTES):
                pass

        record()
        assert instance.telemetry.flush(30)
        begin = time.perf_counter()
        taken = paced(float(rate), float(seconds), record)
        took = time.perf_counter() - begin
        flushed = instance.telemetry.flush(60)
        stats = instance.telemetry.stats().spans
    say(
        recorded=stats.recorded,
        exported=stats.exported,
        dropped=sum(stats.dropped.values()),
        flushed=flushed,
        rate=len(taken) / took,
    )


def refused(url: str, home: str, rate: str, seconds: str) -> None:
    """Spans and log records at a rate to an endpoint that fails; how callers, memory and counters fare."""
    limit = 4 << 20
    instance = client(url, home, buffer_bytes=limit, trace_delay=0.05, log_delay=0.05)
    tracer, logger = instance.telemetry.tracer("load"), instance.telemetry.logger("load")

    def record() -> None:
        tracer.start_span("GET /cart/{id}", attributes=ATTRIBUTES).end()

    def log() -> None:
        logger.info("user logged in", user="bob", n=12, ok=True)

    paced(1000, 0.2, record)
    paced(1000, 0.2, log)
    instance.telemetry.flush(0.1)
    half = float(seconds) / 2
    spans, logs = times(float(rate), half), times(float(rate), half)
    before = resident()
    record_paced(spans, float(rate), record)
    record_paced(logs, float(rate), log)
    grown = resident() - before
    begin = time.monotonic()
    flushed = instance.telemetry.flush(0.5)
    waited = time.monotonic() - begin
    stats = instance.telemetry.stats()
    exact = all(
        each.recorded == each.exported + sum(each.dropped.values()) + each.buffered
        for each in (stats.spans, stats.logs)
    )
    instance.close(timeout=0.5)
    taken = sorted(spans), sorted(logs)
    say(
        p50=[each[len(each) // 2] for each in taken],
        p99=[each[len(each) * 99 // 100] for each in taken],
        grown=grown,
        limit=2 * limit,
        flushed=flushed,
        waited=waited,
        exact=exact,
        recorded=stats.spans.recorded + stats.logs.recorded,
        dropped={**stats.spans.dropped, **stats.logs.dropped},
    )


def spinning(url: str, home: str, rate: str, seconds: str) -> None:
    """Measure how much a Python loop slows down while another thread records spans at a given rate."""

    def turns(length: float) -> float:
        end = time.perf_counter() + length
        number = 0
        while time.perf_counter() < end:
            number += 1
        return number / length

    with client(url, home) as instance:
        tracer = instance.telemetry.tracer("load")
        over = threading.Event()
        recorded = 0

        def work() -> None:
            nonlocal recorded
            begin = time.monotonic()
            while not over.is_set():
                due = int((time.monotonic() - begin) * float(rate)) - recorded
                for _ in range(due):
                    with tracer.span("GET /cart/{id}", attributes=ATTRIBUTES):
                        pass
                recorded += due
                time.sleep(0.005)

        shares, reached = [], []
        for _ in range(5):
            alone = turns(float(seconds) / 10)
            over.clear()
            recorded = 0
            with running(work):
                beside = turns(float(seconds) / 10)
                reached.append(recorded / (float(seconds) / 10))
                over.set()
            shares.append(beside / alone)
        instance.telemetry.flush(30)
    say(share=sorted(shares)[2], rate=sorted(reached)[2])


def buffered(kind: str, count: str) -> None:
    """Bytes that a record holds while it waits."""
    from cloud_runtimes._native import telemetry as kernel

    number = int(count)
    buffer = kernel.Buffer(buffer_bytes=1 << 31, chunk_bytes=1 << 20, ready=lambda: None)
    if kind == "span":
        tracer = kernel.Tracer(kernel.Traces(buffer, kernel.Limits(), kernel.Sampler()), 0)
        call: Any = lambda: tracer.start_span("GET /cart/{id}", attributes=ATTRIBUTES).end()  # noqa: E731
    else:
        logger = kernel.Logger(buffer, kernel.Limits(), 0)
        call = lambda: logger.info("user logged in", user="bob", n=12, ok=True)  # noqa: E731
    for _ in range(10_000):
        call()
    before = resident()
    for _ in range(number):
        call()
    grown = resident() - before
    assert buffer.stats()[3] == number + 10_000
    say(bytes=grown / number)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
