"""An OTLP/gRPC receiver for tests: grpcio's own server with generic handlers; bodies are read by opentelemetry-proto. What it answers can be scripted.

As a program (``python -m tests.telemetry.grpc_receiver FOLDER DELAY``) it writes its port to ``FOLDER/port`` and each request to a file of its own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from tests.telemetry.emitting import Received

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


def retry_info(seconds: float, nanos: int = 0) -> bytes:
    """A ``google.rpc.Status`` with two details, of which the second is a ``RetryInfo``; written by protobuf's own classes where there are any."""

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128
        return bytes((number << 3 | 2, len(content))) + content

    delay = Duration(seconds=int(seconds), nanos=nanos or round(seconds % 1 * 1e9)).SerializeToString()
    other = AnyMessage(type_url="type.googleapis.com/google.rpc.DebugInfo", value=b"\x12\x01x")
    info = AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=field(1, delay))
    return b"\x08\x0e" + field(2, b"busy") + field(3, other.SerializeToString()) + field(3, info.SerializeToString())


class Refusal(Exception):
    """An answer that is a status.

    Args:
        code: its name.
        details: encoded ``google.rpc.Status``, for ``grpc-status-details-bin``.
    """

    def __init__(self, code: str, details: bytes | None = None) -> None:
        super().__init__(code)
        self.code = getattr(grpc.StatusCode, code)
        self.details = details


class GrpcReceiver(Received):
    """``with GrpcReceiver() as receiver``: listens on a port of the loopback.

    Args:
        answer: gives the response of the n-th request (from 0), or raises `Refusal`.
        credentials: of TLS; ``None``: in the clear.
    """

    def __init__(
        self, answer: Callable[[int], bytes] = lambda number: b"", credentials: Any = None, port: int = 0
    ) -> None:
        outer = self
        self.answer = answer
        self.delay = 0.0
        self.requests: list[tuple[str, dict[str, Any], bytes]] = []
        self.arrived = threading.Event()
        lock = threading.Lock()

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: Any) -> Any:
                if details.method not in (TRACES, LOGS, METRICS):
                    return None

                def export(request: bytes, context: Any) -> bytes:
                    with lock:
                        number = len(outer.requests)
                        metadata = dict(context.invocation_metadata())
                        outer.requests.append((details.method, metadata, request))
                    outer.arrived.set()
                    time.sleep(outer.delay)
                    try:
                        return outer.answer(number)
                    except Refusal as refusal:
                        if refusal.details is not None:
                            context.set_trailing_metadata((("grpc-status-details-bin", refusal.details),))
                        context.abort(refusal.code, "as scripted")
                        raise AssertionError from None

                return grpc.unary_unary_rpc_method_handler(export)

        # 4 MiB is what servers take by default
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=(Handler(),), options=[("grpc.so_reuseport", 0)])
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self.url = f"{'http' if credentials is None else 'https'}://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(0).wait()


def main(folder: Path, delay: float) -> None:
    def answer(number: int) -> bytes:
        part = folder / f"{number}.part"
        part.write_bytes(receiver.requests[number][2])
        part.rename(folder / f"{number}.request")
        return b""

    with GrpcReceiver(answer) as receiver:
        receiver.delay = delay
        (folder / "port.part").write_text(str(receiver.port))
        (folder / "port.part").rename(folder / "port")
        sys.stdin.read()  # until the test ends


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
