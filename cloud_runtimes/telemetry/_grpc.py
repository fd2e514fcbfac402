"""OTLP over gRPC: one channel per endpoint, a generic unary call with bytes that are encoded already, no generated code.

What may be sent again is what OTLP says ("OTLP/gRPC Response", "Failures"); how long to wait before that is in a ``RetryInfo``, if the endpoint gives one.

**Fork.** grpcio is imported and a channel made by the first batch, in the thread that sends. In the moment of a fork neither is under way: a call gets half a second to end, then its connection is broken and the batch is sent again, so that an endpoint that is that slow may have it twice. A child has channels of its own; the parent's are left as they are.
"""

from __future__ import annotations

import logging  # noqa: F401  before our hook of fork, see there
import re
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

from .._core import extras, fork
from .._version import __version__
from ..errors import CloudRuntimesError, InvalidArgumentError
from ..spi.telemetry import Exporter, RejectedError, RetryError
from ._wire import rejected
from .json_records import records

if TYPE_CHECKING:
    import grpc

_METHODS: Final = {
    signal: f"/opentelemetry.proto.collector.{package}.v1.{service}/Export"
    for signal, package, service in (
        ("traces", "trace", "TraceService"),
        ("logs", "logs", "LogsService"),
        ("metrics", "metrics", "MetricsService"),
    )
}
_RETRYABLE: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})
_MAX_RESPONSE: Final = 4 << 20
_REST: Final = 0.5
_REST_AT_MOST: Final = 10.0
# gRPC over HTTP/2, "Custom-Metadata"; names that the transport sets itself begin with "grpc-"
_NAME: Final = re.compile(r"(?!grpc-)[0-9a-z_.-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
# channels of a parent: kept, since letting go of one would close it
_exporters: weakref.WeakSet[GrpcExporter] = weakref.WeakSet()


class GrpcExporter(Exporter):
    """Sends batches to an OTLP/gRPC endpoint."""

    features: ClassVar[frozenset[str]] = frozenset({"otlp_grpc"})
    batch_bytes: ClassVar[int] = 3 << 20
    """Servers take 4 MiB by default."""

    def __init__(
        self,
        urls: Mapping[str, str],
        headers: Mapping[str, str],
        *,
        compression: str = "none",
        certificate: str | None = None,
    ) -> None:
        if compression == "zstd":
            raise InvalidArgumentError(
                'telemetry: compression = "zstd" is of OTLP over HTTP, which gRPC has not: give "gzip" or "none"'
            )
        self._targets = {signal: _target(signal, url) for signal, url in urls.items()}
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        for name, value in self._metadata:
            if not _NAME.fullmatch(name) or name.endswith("-bin") or not _VALUE.fullmatch(value):
                raise InvalidArgumentError(
                    "the headers of telemetry cannot be metadata of gRPC: a name has letters, digits, '-', '_' and '.', "
                    "and ends otherwise than in -bin; a value is visible ASCII"
                )
        if not extras.installed("grpc"):
            raise extras.missing('telemetry: protocol = "grpc"', "otlp-grpc")
        self._gzip = compression == "gzip"
        self._certificate = certificate
        self._aborted = False
        self._begin()
        _exporters.add(self)

    def _begin(self) -> None:
        self._channels: dict[tuple[str, bool], grpc.Channel] = {}
        self._busy = threading.Lock()  # held while a call is under way, and by a fork
        self._resting = False
        self._holder = 0  # the thread that forks

    def _channel(self, target: str, secure: bool) -> grpc.Channel:
        channel = self._channels.get((target, secure))
        if channel is None:
            import grpc

            options = (
                ("grpc.primary_user_agent", f"cloud-runtimes-python/{__version__}"),
                ("grpc.max_receive_message_length", _MAX_RESPONSE),
                ("grpc.enable_retries", 0),  # the pipeline's
                ("grpc.initial_reconnect_backoff_ms", 250),
                ("grpc.min_reconnect_backoff_ms", 250),
                ("grpc.max_reconnect_backoff_ms", 5000),
                ("grpc.use_local_subchannel_pool", 1),
            )
            if secure:
                roots = None if self._certificate is None else Path(self._certificate).read_bytes()
                channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options)
            else:
                channel = grpc.insecure_channel(target, options)
            self._channels[target, secure] = channel
        return channel

    def export(self, signal: str, body: bytes, timeout: float) -> int:
        """Send a batch and read the answer; see `Exporter.export`."""
        target, secure = self._targets[signal]
        with self._busy:
            import grpc  # under this lock, so that a fork waits for it

            if self._aborted or self._resting:
                raise RetryError(f"{target}: broken off", 0.0)
            channel = self._channel(target, secure)
            call: Any = channel.unary_unary(_METHODS[signal])  # without serializers: bytes both ways
            try:
                answer: bytes = call(
                    body,
                    timeout=timeout,
                    metadata=self._metadata,
                    compression=grpc.Compression.Gzip if self._gzip else grpc.Compression.NoCompression,
                )
            except ValueError as error:
                if self._channels.get((target, secure)) is channel:
                    raise
                raise RetryError(f"{target}: broken off", 0.0) from error
            except grpc.RpcError as error:
                raise self._judged(target, error) from error
        return rejected(answer)

    def _judged(self, target: str, error: Any) -> RetryError | RejectedError:
        code = error.code().name
        reason = f"{target} answered {code}: {str(error.details() or '')[:200]}"
        after = _retry_after(error.trailing_metadata() or ())
        if self._resting:
            return RetryError(reason, 0.0)
        if code in _RETRYABLE or (code == "RESOURCE_EXHAUSTED" and after is not None):
            return RetryError(reason, after)
        return RejectedError(reason)

    def _break(self) -> None:
        """Close the channels, which ends a call under way; the next one opens others."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def abort(self) -> None:
        """End a call under way."""
        self._aborted = True
        self._break()

    def close(self) -> None:
        """Close the channels."""
        self._break()

    def rest(self) -> None:
        """Before a fork: let a call under way end, or end it, since in a child whose parent was inside of gRPC it does not work."""
        self._resting = True
        end = monotonic() + _REST_AT_MOST
        rests = self._busy.acquire(timeout=_REST)
        while not rests and monotonic() < end:
            self._break()
            rests = self._busy.acquire(timeout=0.05)
        if rests:
            self._holder = threading.get_ident()

    def go_on(self) -> None:
        """After a fork, in the parent."""
        self._resting = False
        if self._holder == threading.get_ident():
            self._holder = 0
            self._busy.release()

    def forked(self) -> None:
        """Leave the parent's channels to it."""
        fork.keep(self._channels)
        self._begin()


def _rest() -> None:
    for exporter in list(_exporters):
        exporter.rest()


def _go_on() -> None:
    for exporter in list(_exporters):
        exporter.go_on()


# Not by `_fork`: what is registered last comes first before a fork. `logging` holds its lock from its own hook on, and
# importing grpcio needs that lock, so this one has to be registered behind it.
fork.at_fork(before=_rest, after_in_parent=_go_on)


def _target(signal: str, url: str) -> tuple[str, bool]:
    """Return a URL's host and port, and whether it is to be TLS."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise InvalidArgumentError(
            f"telemetry: the endpoint of {signal} for gRPC must be a URL without a path, such as http://localhost:4317"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or 4317}", parts.scheme == "https"


def _retry_after(metadata: Any) -> float | None:
    """Return the seconds of a ``google.rpc.RetryInfo`` among the details of a status, at most an hour; `None` without one."""
    for key, value in metadata:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            with suppress(CloudRuntimesError):  # no protobuf
                for detail in records("status", value).get("details", ()):
                    if detail.get("typeUrl", "").endswith("/google.rpc.RetryInfo"):
                        info = records("retryInfo", bytes.fromhex(detail.get("value", "")))
                        delay = info.get("retryDelay", {})
                        seconds = int(delay.get("seconds", 0)) + int(delay.get("nanos", 0)) / 1e9
                        return min(max(0.0, seconds), 3600.0)
    return None
