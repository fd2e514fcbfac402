"""An OTLP/HTTP receiver for tests: real HTTP on a real socket; bodies are read by opentelemetry-proto. What it answers can be scripted."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from typing import Any

from cloud_runtimes._core import zstd
from tests.support.listening import Answer as Sent
from tests.support.listening import HttpServer
from tests.telemetry.emitting import Received

Answer = tuple[int, dict[str, str], bytes]


class Receiver(Received, HttpServer):
    """``with Receiver() as receiver``: listens on a free port of the loopback.

    Args:
        answer: gives status, headers and body for the n-th request (from 0); `None` closes without an answer.
        port: to listen on, instead of a free one.
    """

    def __init__(self, answer: Callable[[int], Answer | None] = lambda number: (200, {}, b""), port: int = 0) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.delay = 0.0
        self._lock = threading.Lock()
        HttpServer.__init__(self, port, start=False)

    def answered(self, method: str, path: str, headers: Any, body: bytes) -> Sent | None:
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        elif headers.get("Content-Encoding") == "zstd":
            body = zstd.unpack(zstd.load("the receiver"), body, 1 << 30)
        with self._lock:
            number = len(self.requests)
            self.requests.append((path, dict(headers.items()), body))
        time.sleep(self.delay)
        if (answer := self.answer(number)) is None:
            return None
        status, more, content = answer
        return status, content, more.items()
