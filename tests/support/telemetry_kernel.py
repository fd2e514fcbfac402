"""A buffer of the telemetry kernel, and what opentelemetry-proto reads of it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

__all__ = ["buffer", "drain", "logs", "spans", "tracer"]


def buffer(kernel: ModuleType, limit: int = 1 << 30, chunk: int = 4 << 20) -> Any:
    return kernel.Buffer(buffer_bytes=limit, chunk_bytes=chunk, ready=lambda: None)


def tracer(kernel: ModuleType, into: Any, limits: tuple[int, ...] = (), sampler: Any = None) -> Any:
    return kernel.Tracer(kernel.Traces(into, kernel.Limits(*limits), sampler or kernel.Sampler()), 3)


def drain(into: Any) -> bytes:
    into.seal()
    chunks = into.take(1 << 40)
    for chunk in chunks:
        into.settle(chunk.count, len(chunk.body), 0, 0)
    return b"".join(chunk.body for chunk in chunks)


def spans(body: bytes) -> list[Span]:
    return list(ScopeSpans.FromString(body).spans)


def logs(body: bytes) -> list[LogRecord]:
    return list(ScopeLogs.FromString(body).log_records)
