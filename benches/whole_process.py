"""Processor time of a whole process for a span: ours, recorded, encoded and delivered to a process that counts, beside OpenTelemetry's SDK, recording alone and end to end.

``python -m benches.whole_process [ROUNDS]``: every measurement in a process of its own, in turning order; a ratio is the median of those of each round. The time is that of all threads, from the first span to the last answer; what a process takes to start is no part of it. End to end, the SDK is measured with the settings that serve it best: a queue that holds everything, since it drops otherwise, and a batch of 512 (its default) or of 8,192.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benches.bench_telemetry import _api_spans, _spans, say

COUNT = 100_000
WARM_UP = 2_000


def sink() -> None:
    """Count the spans of what is posted; print the URL, and at the end of stdin how many there were."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    lock = threading.Lock()
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal count
            body = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                count += sum(len(s.spans) for r in body.resource_spans for s in r.scope_spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(f"http://127.0.0.1:{server.server_port}")
    sys.stdin.read()
    say(str(count))


def _timed(call: Callable[[], None], flush: Callable[[], object]) -> None:
    """Print nanoseconds of processor time for a span."""
    for _ in range(WARM_UP):
        call()
    flush()
    used = _processor_time()
    for _ in range(COUNT):
        call()
    flush()
    say(json.dumps((_processor_time() - used) / COUNT * 1e9))


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ours(url: str) -> None:
    """Spans of ours to the sink; defaults."""
    from cloud_runtimes import CloudRuntimesClient

    with tempfile.TemporaryDirectory() as home:
        config = {"capa": {"home": home}, "telemetry": {"endpoint": url}}
        with CloudRuntimesClient(app_id="bench", config=config) as client:
            telemetry = client.telemetry
            _timed(_spans(telemetry.tracer("bench")), lambda: telemetry.flush(120))
            stats = telemetry.stats().spans
            assert stats.recorded == stats.exported == COUNT + WARM_UP, stats


def recording(url: str) -> None:
    """Spans of the SDK to an exporter that does nothing."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nothing(SpanExporter):
        def export(self, spans: Any) -> Any:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nothing()))
    _timed(_api_spans(provider.get_tracer("bench")), provider.force_flush)


def end_to_end(url: str, batch: int = 512) -> None:
    """Spans of the SDK to the sink."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", timeout=120)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=2 * COUNT, max_export_batch_size=batch, export_timeout_millis=120_000
        )
    )
    _timed(_api_spans(provider.get_tracer("bench")), lambda: provider.force_flush(120_000))


def end_to_end_wide(url: str) -> None:
    """The same with batches of 8,192."""
    end_to_end(url, 8192)


def _measure(who: Callable[[str], None]) -> float:
    command = [sys.executable, "-W", "ignore", "-m", "benches.whole_process"]
    with subprocess.Popen([*command, "sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        url = other.stdout.readline().strip()
        done = subprocess.run([*command, who.__name__, url], capture_output=True, text=True, check=True)
        counted = int(other.communicate()[0])
    assert counted == (0 if who is recording else COUNT + WARM_UP), (who.__name__, counted)
    return float(done.stdout)


def main() -> None:
    """Measure all, interleaved."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    names = [ours, recording, end_to_end, end_to_end_wide]
    samples: dict[str, list[float]] = {each.__name__: [] for each in names}
    say(f"Python {sys.version.split()[0]}; processor time of the whole process for a span; {rounds} rounds")
    for number in range(rounds):
        turn = number % len(names)
        for each in names[turn:] + names[:turn]:
            samples[each.__name__].append(_measure(each))
    for each in names:
        times = samples[each.__name__]
        ratio = statistics.median(other / mine for other, mine in zip(times, samples["ours"], strict=True))
        say(f"  {each.__name__:20} {statistics.median(times):10,.0f} ns  {ratio:6.1f}×")


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].isdigit():
        globals()[sys.argv[1]](*sys.argv[2:])
    else:
        main()
