"""A viewer for tests, and requests to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cloud_runtimes.dashboard.server import Viewer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
START = 1_700_000_000_000_000_000
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


class Reply(NamedTuple):
    """Response of the viewer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def viewing(home: Path | str, **options: Any) -> Iterator[Viewer]:
    """Run a viewer on a free port."""
    with Viewer(str(home), port=0, **options) as viewer:
        yield viewer


def ask(
    viewer: Viewer, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str = ""
) -> Reply:
    """Send one request on a connection of its own."""
    url = urlsplit(viewer.address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def send(viewer: Viewer, signal: str, request: dict[str, Any]) -> Reply:
    """Send a request in JSON."""
    return ask(viewer, f"/v1/{signal}", json.dumps(request).encode(), JSON)


def attributes(**values: Any) -> list[dict[str, Any]]:
    """Return texts as attributes; ``__`` in a name is a dot."""
    return [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in values.items()]


def spans(*given: dict[str, Any], service: str = "shop") -> dict[str, Any]:
    """Return a request of spans, each with what it does not say."""
    whole = [
        {"traceId": TRACE, "spanId": f"{n + 1:016x}", "name": "work"}
        | {"startTimeUnixNano": str(START), "endTimeUnixNano": str(START + 1_000_000)}
        | span
        for n, span in enumerate(given)
    ]
    resource = {"attributes": attributes(service__name=service)}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "lib"}, "spans": whole}]}]}


def logs(*given: dict[str, Any], service: str = "shop") -> dict[str, Any]:
    """Return a request of log records."""
    resource = {"attributes": attributes(service__name=service)}
    records = [{"timeUnixNano": str(START + n), "severityNumber": 9} | record for n, record in enumerate(given)]
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}


def metrics(*given: dict[str, Any], service: str = "shop") -> dict[str, Any]:
    """Return a request of metrics."""
    resource = {"attributes": attributes(service__name=service)}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": list(given)}]}]}


def gauge(name: str, *values: float) -> dict[str, Any]:
    """Return a gauge with points a second apart."""
    points = [{"timeUnixNano": str(START + n * 10**9), "asDouble": value} for n, value in enumerate(values)]
    return {"name": name, "gauge": {"dataPoints": points}}


def text(value: str) -> dict[str, Any]:
    """Return the body of a log record."""
    return {"body": {"stringValue": value}}
