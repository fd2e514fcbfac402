"""Rows of the table of APIs: an API of Dapr, with cases that are sent over both protocols."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.protocols.dapr.messages import messages


@dataclass(frozen=True)
class Http:
    """A request; a ``body`` that is not bytes goes as JSON."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Case of an API.

    Attributes:
        what: description in the words of the documentation.
        answers: expected over HTTP (the status and the ``errorCode``), a comma, and over gRPC (the code and the
            ``reason`` of its ``ErrorInfo``).
        http: request to send; ``None``: not over this protocol.
        rpc: the fields of the request of the API's method (nested messages as dicts, lists of dicts);
            ``None`` likewise.
        over: sidecar: ``"declared"`` (stores named ``store`` of every kind, and the bindings ``files`` and ``sql``),
            ``"other"`` (one declared schedule store, so that no other kind is configured) or a name that
            `running.SIDECARS` has.
        before: done with the sidecar's client beforehand.
    """

    what: str
    answers: str
    http: Http | None = None
    rpc: Mapping[str, Any] | None = None
    over: str = field(default="declared", kw_only=True)
    before: Callable[[CloudRuntimesClient], object] | None = field(default=None, kw_only=True)

    @property
    def answer(self) -> tuple[int, str | None]:
        """The status and the ``errorCode`` over HTTP."""
        status, _, error = self.answers.partition(", ")[0].partition(" ")
        return int(status), error or None

    @property
    def reply(self) -> tuple[str, str | None]:
        """The code and the reason over gRPC."""
        code, _, reason = self.answers.partition(", ")[2].partition(" ")
        return code, reason or None


@dataclass(frozen=True, kw_only=True)
class Api:
    """API of Dapr.

    Attributes:
        block: the heading under which it stands.
        name: unique.
        http: method and path as in Dapr's reference; ``""``: none.
        rpc: name of the method; ``""``: none.
        request, reply: names of its messages; by default those that are called like it, or `Empty`.
        streams: whether the reply is a stream; its first message is taken.
        served: whether it does something; else it is refused, as Dapr does where nothing of the kind is configured.
        cases: requests and expected answers.
        note: one line for the documentation.
    """

    block: str
    name: str
    http: str = ""
    rpc: str = ""
    request: str = ""
    reply: str = ""
    streams: bool = False
    served: bool = True
    cases: tuple[Case, ...] = ()
    note: str = ""

    def message(self, part: str) -> str:
        """Return the name of a message, of which ``part`` is ``"Request"`` or ``"Response"``."""
        name = re.sub(r"(Alpha|Beta)\d$", "", self.rpc) + part
        given = self.request if part == "Request" else self.reply
        return given or next((each for each in (name, f"{name}Alpha1") if hasattr(messages(), each)), "Empty")
