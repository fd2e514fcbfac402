"""The console exporter: a line of OTLP's JSON for each batch, on standard output."""

from __future__ import annotations

import json
import sys
from typing import ClassVar

from ..spi.telemetry import Exporter
from .json_records import records

__all__ = ["ConsoleExporter"]


class ConsoleExporter(Exporter):
    """Prints batches, for development."""

    features: ClassVar[frozenset[str]] = frozenset({"console"})

    def export(self, signal: str, body: bytes, timeout: float) -> int:
        """Print a batch; see `Exporter.export`."""
        sys.stdout.write(json.dumps(records(signal, body), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return 0
