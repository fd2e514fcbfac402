"""Where records go that no endpoint gets: rotating OTLP files, by default, or memory; or the console.

Each process writes files of its own, ``<signal>-<time>-<pid>-<number>.otlp``, of batches behind their length (four bytes, big-endian), which is what the OpenTelemetry Collector's file exporter writes as ``format: proto``. The oldest files go when all together are larger than the limit.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import ClassVar, Final

from .._core.os_files import BINARY
from ..spi.telemetry import Exporter
from .json_records import records

_SEGMENTS: Final = 8


class FileExporter(Exporter):
    """Appends batches to files in a folder, which is made when the first comes. All files have at most `max_bytes`, but one batch is kept."""

    features: ClassVar[frozenset[str]] = frozenset({"file"})

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._open: dict[str, tuple[int, int]] = {}
        self._number = 0

    def export(self, signal: str, body: bytes, timeout: float) -> int:
        """Append a batch; see `Exporter.export`."""
        data = len(body).to_bytes(4, "big") + body
        fd, size = self._open.get(signal, (-1, 0))
        if fd >= 0 and (size + len(data) > self._max_bytes // _SEGMENTS or os.fstat(fd).st_nlink == 0):
            del self._open[signal]
            os.close(fd)
            fd = -1
        if fd < 0:
            fd, size = self._create(signal, len(data)), 0
            self._open[signal] = fd, size
        written = 0
        try:
            while written < len(data):
                written += os.write(fd, data[written:])
        except BaseException:
            os.ftruncate(fd, size)  # no half batch before the next one
            raise
        self._open[signal] = fd, size + written
        return 0

    def _create(self, signal: str, size: int) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._prune(size)
        while True:
            self._number += 1
            name = f"{signal}-{time.time_ns() // 1_000_000:013d}-{os.getpid()}-{self._number}.otlp"
            try:
                return os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
            except FileExistsError:
                continue

    def _prune(self, coming: int) -> None:
        """Remove the oldest files until a segment more has room."""
        segments = []
        for entry in os.scandir(self._folder):
            if entry.name.endswith(".otlp"):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue  # another process was faster
                segments.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _, size, _ in segments) + max(coming, self._max_bytes // _SEGMENTS)
        for _, size, path in sorted(segments):
            if total <= self._max_bytes:
                break
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            total -= size

    def close(self) -> None:
        """Close the files."""
        opened, self._open = self._open, {}
        for fd, _ in opened.values():
            os.close(fd)

    def forked(self) -> None:
        """Write files of its own."""
        self.close()


class MemoryExporter(Exporter):
    """Keeps the newest batches in memory, signal and body, for a home that is ``:memory:``; at least one, at most `max_bytes`."""

    features: ClassVar[frozenset[str]] = frozenset({"memory"})

    def __init__(self, max_bytes: int) -> None:
        self.batches: list[tuple[str, bytes]] = []
        self._max_bytes = max_bytes
        self._bytes = 0

    def export(self, signal: str, body: bytes, timeout: float) -> int:
        """Keep a batch."""
        self.batches.append((signal, body))
        self._bytes += len(body)
        while self._bytes > self._max_bytes and len(self.batches) > 1:
            self._bytes -= len(self.batches.pop(0)[1])
        return 0

    def forked(self) -> None:
        """Begin anew."""
        self.batches = []
        self._bytes = 0


class ConsoleExporter(Exporter):
    """Prints batches, for development."""

    features: ClassVar[frozenset[str]] = frozenset({"console"})

    def export(self, signal: str, body: bytes, timeout: float) -> int:
        """Print a batch; see `Exporter.export`."""
        sys.stdout.write(json.dumps(records(signal, body), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return 0


def read_batches(path: str | os.PathLike[str]) -> list[bytes]:
    """Return the batches of a file; one that was cut off at the end by a crash is left out."""
    data = Path(path).read_bytes()
    at = 0
    batches = []
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + size > len(data):
            break
        batches.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return batches
