"""Callers without a client library: plain HTTP and plain gRPC, with all that was answered."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc

from cloud_runtimes.protocols.dapr.messages import messages

SERVICE = "/dapr.proto.runtime.v1.Dapr/"
TIMEOUT = 30.0


@dataclass(frozen=True)
class Answer:
    """Response to a request, over either protocol.

    Attributes:
        status: over HTTP.
        code: over gRPC, the name of the status.
        headers: over HTTP, names in lower case; over gRPC the initial metadata.
        body: over HTTP.
        message: over gRPC the reply; ``None``: refused.
        text: of the refusal.
        reason: of the refusal's ``ErrorInfo``; ``None``: it has none.
        details: over gRPC, the refusal's details by the names of their types.
    """

    status: int = 0
    code: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""
    message: Any = None
    text: str = ""
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> str | None:
        """``errorCode`` of a refusal over HTTP."""
        if self.status < 400 or not self.body.startswith(b"{"):
            return None
        code: str | None = self.json.get("errorCode")
        return code


def send(address: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send one HTTP request; a ``body`` that is not bytes goes as JSON."""
    given = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        given.setdefault("content-type", "application/json")
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=TIMEOUT)
    try:
        connection.request(method, path, body, given)
        response = connection.getresponse()
        data = response.read()
        reply_headers = {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()
    return Answer(status=response.status, headers=reply_headers, body=data)


def call(
    address: str, method: str, request: Any, reply: str = "Empty", metadata: Mapping[str, str] | None = None
) -> Answer:
    """Make one unary call; ``reply`` is the name of its message."""
    with grpc.insecure_channel(address) as channel:
        rpc: Any = channel.unary_unary(
            SERVICE + method, lambda message: message.SerializeToString(), getattr(messages(), reply).FromString
        )
        try:
            message, done = rpc.with_call(request, timeout=TIMEOUT, metadata=tuple((metadata or {}).items()))
        except grpc.RpcError as error:
            return refusal(error)
        return Answer(code="OK", message=message, headers=dict(done.initial_metadata() or ()))


def stream(channel: grpc.Channel, method: str, request: Any, reply: str) -> Iterator[Any]:
    """Begin a call that is answered by a stream."""
    rpc: Any = channel.unary_stream(
        SERVICE + method, lambda message: message.SerializeToString(), getattr(messages(), reply).FromString
    )
    answers: Iterator[Any] = rpc(request, timeout=TIMEOUT)
    return answers


def refusal(error: Any) -> Answer:
    """Return what a refused call says, its details decoded."""
    details: dict[str, Any] = {}
    headers = dict(error.trailing_metadata() or ())
    packed = headers.get("grpc-status-details-bin")
    if packed is not None:
        status = messages().Status.FromString(packed)
        assert status.message == error.details()
        for detail in status.details:
            name = detail.TypeName().rpartition(".")[2]
            details[name] = getattr(messages(), name).FromString(detail.value)
    info = details.get("ErrorInfo")
    return Answer(
        code=error.code().name,
        headers=headers,
        text=error.details(),
        reason=None if info is None else info.reason,
        details=details,
    )
