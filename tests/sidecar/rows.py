"""What a row of the table of APIs is: one API of Dapr, with cases that are sent over both protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloud_runtimes import CloudRuntimesClient


@dataclass(frozen=True)
class Http:
    """A request; a ``body`` that is not bytes goes as JSON."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rpc:
    """A call of the API's method: the fields of its request (nested messages as dicts, lists of dicts)."""

    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that can happen.

    Attributes:
        what: in the words of the documentation.
        http, rpc: what to send; ``None``: not over this protocol.
        status, error: expected over HTTP; ``error`` is the ``errorCode``.
        code, reason: expected over gRPC; ``reason`` is that of the ``ErrorInfo``.
        over: which sidecar: ``"declared"`` (stores named ``store`` of every kind, and the bindings ``files`` and ``sql``), ``"other"`` (one declared schedule store, so that no other kind is configured) or a name that `running.SIDECARS` has.
        before: done with the sidecar's client beforehand.
    """

    what: str
    http: Http | None = None
    status: int = 0
    error: str | None = None
    rpc: Rpc | None = None
    code: str = "OK"
    reason: str | None = None
    over: str = "declared"
    before: Callable[[CloudRuntimesClient], object] | None = None


@dataclass(frozen=True, kw_only=True)
class Api:
    """One API.

    Attributes:
        block: the heading under which it stands.
        name: unique.
        http: method and path as in Dapr's reference; ``""``: none.
        rpc: name of the method; ``""``: none.
        request, reply: names of its messages; a request ``""`` is sent empty, for methods that are refused unread.
        streams: whether the reply is a stream; its first message is taken.
        served: whether it does something; else it is refused, as Dapr does where nothing of the kind is configured.
        cases: what can happen.
        note: one line for the documentation.
    """

    block: str
    name: str
    http: str = ""
    rpc: str = ""
    request: str = ""
    reply: str = "Empty"
    streams: bool = False
    served: bool = True
    cases: tuple[Case, ...] = ()
    note: str = ""
