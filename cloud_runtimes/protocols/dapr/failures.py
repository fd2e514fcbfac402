"""How Dapr says no.

One failure has two vocabularies: over HTTP a status and an ``errorCode``, over gRPC a status code and, in ``grpc-status-details-bin``, a ``google.rpc.ErrorInfo`` with a reason. A rich failure has the details in both (dapr/dapr ``pkg/api/errors``); a plain one has a body of ``errorCode`` and ``message`` alone (``pkg/messages``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...codec import json

GRPC_TO_HTTP: Final[Mapping[str, int]] = {
    "OK": 200,
    "CANCELLED": 408,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}
"""As Dapr maps the status of an application's gRPC answer to a caller over HTTP."""

HTTP_TO_GRPC: Final[Mapping[int, str]] = {
    400: "INTERNAL",  # so it is
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "CANCELLED",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    500: "UNKNOWN",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""As Dapr maps the status of an application's HTTP answer to a caller over gRPC."""


def grpc_code_of_http(status: int) -> str:
    return "OK" if 200 <= status < 300 else HTTP_TO_GRPC.get(status, "UNKNOWN")


def http_status_of_grpc(code: str) -> int:
    return GRPC_TO_HTTP.get(code, 500)


class DaprError(Exception):
    """A refusal in Dapr's words.

    Over HTTP it has a status and an ``errorCode``. Without a reason it is plain, without details; with ``grpc_only`` it has them over gRPC alone. ``resource`` is (type, name) or (type, name, description); violations are (field, description), links (description, URL).
    """

    def __init__(
        self,
        status: int,
        grpc_code: str,
        error_code: str,
        message: str,
        *,
        reason: str | None = None,
        grpc_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        resource: tuple[str, ...] | None = None,
        violations: tuple[tuple[str, str], ...] = (),
        links: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.grpc_code = grpc_code
        self.error_code = error_code
        self.message = message
        self.reason = reason
        self.grpc_only = grpc_only
        self.metadata = dict(metadata or {})
        self.resource = resource
        self.violations = violations
        self.links = links

    @classmethod
    def basic(cls, status: int, grpc_code: str, error_code: str, message: str) -> DaprError:
        """Return a failure that is plain over HTTP, and over gRPC has its code as the reason (``pkg/api/errors``: ``Basic``)."""
        return cls(status, grpc_code, error_code, message, reason=error_code, grpc_only=True)

    def body(self) -> bytes:
        document: dict[str, Any] = {"errorCode": self.error_code, "message": self.message}
        if self.reason is not None and not self.grpc_only:
            document["details"] = self._details()
        return json.encode(document)

    def _details(self) -> list[dict[str, Any]]:
        details: list[dict[str, Any]] = [
            {"domain": "dapr.io", "metadata": self.metadata or None, "reason": self.reason, **_type("ErrorInfo")}
        ]
        if self.resource is not None:
            kind, name, *text = self.resource
            names = {"resource_name": name, "resource_type": kind, "owner": ""}
            details.append({**names, "description": text[0] if text else "", **_type("ResourceInfo")})
        if self.violations:
            violations = [{"field": field, "description": text} for field, text in self.violations]
            details.append({"field_violations": violations, **_type("BadRequest")})
        if self.links:
            links = [{"description": text, "url": url} for text, url in self.links]
            details.append({"links": links, **_type("Help")})
        return details


def _type(name: str) -> dict[str, str]:
    return {"@type": f"type.googleapis.com/google.rpc.{name}"}
