"""OTLP over HTTP (protobuf), on the standard library's client: one kept connection per endpoint.

What may be sent again is what OTLP says: 429, 502, 503, 504 and connection errors; any other status is final.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final
from urllib.parse import SplitResult, urlsplit

from .._core import zstd
from .._version import __version__
from ..errors import InvalidArgumentError
from ..spi.telemetry import Exporter, RejectedError, RetryError
from ._wire import rejected

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_MAX_RESPONSE: Final = 4 << 20


class HttpExporter(Exporter):
    """Sends batches to an OTLP/HTTP endpoint."""

    features: ClassVar[frozenset[str]] = frozenset({"otlp_http"})

    def __init__(
        self,
        urls: Mapping[str, str],
        headers: Mapping[str, str],
        *,
        compression: str = "none",
        certificate: str | None = None,
    ) -> None:
        self._urls = {signal: _url(signal, url) for signal, url in urls.items()}
        self._headers = {
            "Content-Type": "application/x-protobuf",
            "User-Agent": f"cloud-runtimes-python/{__version__}",
            **({} if compression == "none" else {"Content-Encoding": compression}),
            **headers,
        }
        self._compression = compression
        self._zstd = zstd.load('telemetry: compression = "zstd"') if compression == "zstd" else None
        self._certificate = certificate
        self._connections: dict[tuple[str, str], http.client.HTTPConnection] = {}
        self._aborted = False

    def _connection(self, url: Any, timeout: float) -> http.client.HTTPConnection:
        key = (url.scheme, url.netloc)
        connection = self._connections.get(key)
        if connection is None:
            if url.scheme == "https":
                from .._core.tls import client_context

                context = client_context(self._certificate)
                connection = http.client.HTTPSConnection(url.hostname, url.port, context=context)
            else:
                connection = http.client.HTTPConnection(url.hostname, url.port)
            self._connections[key] = connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection

    def export(self, signal: str, body: bytes, timeout: float) -> int:
        """Send a batch and read the answer; see `Exporter.export`."""
        if self._aborted:
            raise RetryError("aborted")
        url = self._urls[signal]
        if self._zstd is not None:
            body = zstd.compress(self._zstd, body)
        elif self._compression == "gzip":
            import zlib

            squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
            body = squeeze.compress(body) + squeeze.flush()
        connection = self._connection(url, timeout)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        whole = False
        try:
            connection.request("POST", path, body, self._headers)
            response = connection.getresponse()
            content = response.read(_MAX_RESPONSE)
            whole = response.isclosed()
        except (OSError, http.client.HTTPException) as error:
            raise RetryError(f"{url.hostname}: {type(error).__name__}: {error}") from error
        finally:
            if not whole:  # an answer too long, an error, an interrupt: nothing more can be read there
                connection.close()
        if response.status == 200:
            return rejected(content)
        reason = f"{url.hostname} answered {response.status}"
        if response.status in _RETRYABLE:
            raise RetryError(reason, _retry_after(response.headers.get("Retry-After")))
        raise RejectedError(reason)

    def abort(self) -> None:
        """Break the connections, so that an export under way ends."""
        self._aborted = True
        for connection in list(self._connections.values()):
            sock = connection.sock
            if sock is not None:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # closed meanwhile

    def close(self) -> None:
        """Close the connections."""
        for connection in list(self._connections.values()):
            connection.close()
        self._connections = {}

    def forked(self) -> None:
        """Leave the parent's connections to it: closing TLS would send on them."""
        for connection in self._connections.values():
            sock = connection.sock
            if sock is not None:
                connection.sock = None
                socket.close(sock.detach())
        self._connections = {}


def _retry_after(value: str | None) -> float | None:
    """Read seconds or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), 3600.0)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), 3600.0)
    except ValueError:
        return None


def _url(signal: str, text: str) -> SplitResult:
    """Read an endpoint; what is wrong is told without it, since it may hold a password."""
    with suppress(ValueError):
        url = urlsplit(text)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url
    raise InvalidArgumentError(f"telemetry: the endpoint of {signal} must be a URL such as http://localhost:4318")
