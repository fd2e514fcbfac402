"""Processes around a spool of telemetry, each to be killed at any moment.

``python -m tests.telemetry.spooling collect PORT`` is the collector, the others record. Each says a line when it is
ready, and what it has counted when its stdin ends.
"""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.telemetry.telemetry_load import client, resident, say


def collect(port: str, delay: str = "0") -> None:
    """Count the spans that arrive by the number that each has, and look whether batches overlap or come out of order."""
    seen: dict[str, bytearray] = {}
    counts = {"received": 0, "twice": 0, "overlaps": 0, "disorder": 0, "late": 0}
    under_way = 0
    last: dict[str, int] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal under_way
            with lock:
                under_way += 1
                counts["overlaps"] += under_way > 1
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(float(delay))
            with lock:
                under_way -= 1
                for scope in (scope for each in request.resource_spans for scope in each.scope_spans):
                    for span in scope.spans:
                        self.note(span)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def note(self, span: Any) -> None:
            number = span.attributes[0].value.int_value
            bits = seen.setdefault(span.name, bytearray())
            if len(bits) <= number:
                bits.extend(bytes(number + 65536 - len(bits)))
            counts["received"] += 1
            counts["twice"] += bits[number]
            counts["disorder"] += number < last.get(span.name, 0)
            counts["late"] += time.time_ns() - span.start_time_unix_nano > 1_000_000_000
            bits[number], last[span.name] = 1, number

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(ready=True)
    for _ in sys.stdin:
        with lock:
            say(**counts, distinct={name: sum(bits) for name, bits in seen.items()})


def emit(url: str, home: str, name: str, rate: str, seconds: str, max_bytes: str) -> None:
    """Record spans at a rate; say how memory grew, and wait for the end of stdin."""
    instance = client(url, home, spool={"max_bytes": int(max_bytes)}, trace_delay=0.2)
    tracer = instance.telemetry.tracer("load")
    count, begun, before, grown = int(rate) * int(seconds), time.monotonic(), 0, 0
    warm = min(count // 2, 20 * int(rate))
    for number in range(count):
        tracer.start_span(name, attributes={"n": number}).end()
        if number % 100 == 0:
            time.sleep(max(0.0, begun + number / int(rate) - time.monotonic()))
        if number == warm:
            before = resident()
        if number > warm and number % int(rate) == 0:
            grown = max(grown, resident() - before)
    flushed = instance.telemetry.flush(60)
    stats = instance.telemetry.stats().spans
    say(recorded=stats.recorded, exported=stats.exported, dropped=dict(stats.dropped), grown=grown, flushed=flushed)
    sys.stdin.read()
    say(replayed=resident() - before)


def store(url: str, home: str, name: str, first: str) -> None:
    """Record spans for ever, a hundred and a flush at a time, and say how many are on the disk."""
    instance = client(url, home, spool=True, trace_delay=0.02)
    tracer = instance.telemetry.tracer("load")
    number = int(first)
    say(ready=True)
    while True:
        for _ in range(100):
            tracer.start_span(name, attributes={"n": number}).end()
            number += 1
        if instance.telemetry.flush(60):
            say(durable=number)
        time.sleep(0.01)


if __name__ == "__main__":
    {"collect": collect, "emit": emit, "store": store}[sys.argv[1]](*sys.argv[2:])
