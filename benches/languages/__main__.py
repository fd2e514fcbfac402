"""Spans of ours beside those of OpenTelemetry's SDKs for Python, Go and Rust.

``python -m benches.languages [ROUNDS]``: every measurement in a process of its own, in turning order. The span is that of `bench_telemetry`: started as the current one, given five attributes, ended. Spans come in bursts of 1,024, each flushed, so that no batch processor drops any at its defaults; every program says how many were exported.

Times are nanoseconds of processor time for a span: of the thread that records, and of the whole process, flushes included. An SDK has an exporter that drops what it gets (``recorded``), or encodes it to OTLP protobuf with the SDK's own code first (``encoded``). Ours encodes at the end of a span and writes to a file.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.bench_telemetry import _api_spans, _spans, say

BURST, BURSTS, WARM_UP = 1024, 100, 2
"""As in go/main.go and rust/src/main.rs."""
HERE = Path(__file__).parent
BUILD = HERE.parent.parent / "build" / "languages"


def _timed(call: Callable[[], None], flush: Callable[[], object]) -> dict[str, Any]:
    caller = process = 0
    for number in range(WARM_UP + BURSTS):
        if number == WARM_UP:
            caller, process = 0, time.process_time_ns()
        began = time.thread_time_ns()
        for _ in range(BURST):
            call()
        caller += time.thread_time_ns() - began
        assert flush()
    process = time.process_time_ns() - process
    return {"caller": caller // (BURST * BURSTS), "process": process // (BURST * BURSTS)}


def ours(mode: str) -> dict[str, Any]:
    """Measure ours with the exporter ``file``."""
    from cloud_runtimes import CloudRuntimesClient, __version__, native_status

    assert native_status().native, native_status().reason
    with tempfile.TemporaryDirectory() as home:
        config = {"capa": {"home": home}, "telemetry": {"exporter": "file"}}
        with CloudRuntimesClient(app_id="bench", config=config) as client:
            telemetry = client.telemetry
            result = _timed(_spans(telemetry.tracer("bench")), lambda: telemetry.flush(120))
            return result | {"exported": telemetry.stats().spans.exported, "version": __version__}


def opentelemetry(mode: str) -> dict[str, Any]:
    """Measure OpenTelemetry's SDK for Python."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.version import __version__

    exported = 0

    class Dropping(SpanExporter):
        def export(self, spans: Any) -> Any:
            nonlocal exported
            exported += len(spans)
            if mode == "encoded":
                encode_spans(spans).SerializeToString()
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Dropping()))
    result = _timed(_api_spans(provider.get_tracer("bench")), provider.force_flush)
    return result | {"exported": exported, "version": __version__}


def _built(language: str, program: str, *build: str) -> list[str] | None:
    """Build a program; say why where that fails."""
    if shutil.which(build[0]) is None:
        say(f"left out: {build[0]} is not installed")
        return None
    process = subprocess.run(build, cwd=HERE / language, stderr=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        say(f"left out: {' '.join(build)} failed\n{process.stderr.strip()}")
        return None
    return [str(BUILD / program)]


def _commands() -> dict[str, list[str]]:
    """Return the command of each contender that could be built or imported."""
    python = [sys.executable, "-W", "ignore", "-m", "benches.languages"]
    commands: dict[str, list[str] | None] = {"ours": [*python, "ours"]}
    if all(importlib.util.find_spec(name) for name in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter")):
        commands["OpenTelemetry, Python"] = [*python, "opentelemetry"]
    else:
        say("left out: OpenTelemetry's SDK for Python is not installed")
    commands["OpenTelemetry, Go"] = _built("go", "go", "go", "build", "-o", str(BUILD / "go"))
    commands["OpenTelemetry, Rust"] = _built(
        "rust", "rust/release/spans", "cargo", "build", "--release", "--quiet", "--target-dir", str(BUILD / "rust")
    )
    return {who: command for who, command in commands.items() if command}


def _measure(command: list[str], mode: str) -> dict[str, Any]:
    done = subprocess.run([*command, mode], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["exported"] == BURST * (WARM_UP + BURSTS), (command, result)
    return result


def main(rounds: int) -> None:
    """Measure all, interleaved."""
    commands = _commands()
    runs = [(who, mode) for who in commands for mode in ("recorded", "encoded") if (who, mode) != ("ours", "recorded")]
    results: dict[tuple[str, str], list[dict[str, Any]]] = {run: [] for run in runs}
    for number in range(rounds):
        turn = number % len(runs)
        for who, mode in runs[turn:] + runs[:turn]:
            results[who, mode].append(_measure(commands[who], mode))
    say(f"CPython {sys.version.split()[0]}")
    for tool in (["go", "version"], ["rustc", "--version"]):
        if shutil.which(tool[0]):
            say(subprocess.check_output(tool, text=True).strip())
    say(f"ns of processor time for a span, medians of {rounds} rounds; a ratio is that of the last column\n")
    say("| SDK | version | thread that records | process, recorded | process, recorded and encoded | ratio |")
    say("|---|---|--:|--:|--:|--:|")
    mine = [each["process"] for each in results["ours", "encoded"]]
    for who in commands:
        whole = results[who, "encoded"]
        caller = statistics.median(each["caller"] for each in whole)
        recorded = [each["process"] for each in results.get((who, "recorded"), [])]
        encoded = [each["process"] for each in whole]
        ratio = statistics.median(other / our for our, other in zip(mine, encoded, strict=True))
        cells = [f"{caller:,.0f}", f"{statistics.median(recorded):,.0f}" if recorded else "–"]
        cells += [f"{statistics.median(encoded):,.0f}", f"{ratio:.1f}"]
        say(f"| {who} | {whole[0]['version']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        say(json.dumps({"ours": ours, "opentelemetry": opentelemetry}[sys.argv[1]](sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
