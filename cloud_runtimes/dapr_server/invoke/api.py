"""Service invocation in words of neither protocol (dapr/dapr ``pkg/messaging/direct_messaging.go``)."""

from __future__ import annotations

import re
import socket
from typing import Final
from urllib.parse import quote, unquote

from ..._http.limits import MAX_BODY
from ...errors import GRPC_CODES, CloudRuntimesError, InvalidArgumentError
from ...protocols.dapr.failures import DaprError
from ...spi.operation import Method, Operation
from ...spi.rpc import RpcCall, RpcDriver
from ..app.channel import AppAnswer, AppCall, NotReached
from ..app.http import HttpChannel
from ..context import Context
from .policies import AppPolicies, not_invoked

CALLER: Final = "dapr-caller-app-id"
NAMESPACE: Final = "dapr-caller-namespace"
CALLEE: Final = "dapr-callee-app-id"
PEER_NAMESPACE: Final = "cloud-runtimes-caller-namespace"
"""From one sidecar to another: the caller's namespace; absent: ``"default"``. Servers of ours keep `NAMESPACE` from their handlers."""
GRPC_STATUS: Final = "cloud-runtimes-grpc-status"
"""From one sidecar to another: the code of an application's answer over gRPC."""
DATA_TYPE: Final = "cloud-runtimes-data-type"
"""From one sidecar to another, in calls and answers: the type URL of an ``Any``, percent-encoded."""

_INVOKE: Final = Method("rpc", "invoke", repeatable=False)
_UNSAFE: Final = re.compile(r"[^!-~]")
_SLASH: Final = re.compile("/|%2[Ff]")
# daprd refuses these in a method (dapr/dapr `pkg/messaging/method/normalize.go`)
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f#?]")


def clean_path(path: str) -> str:
    """Return a path without empty and dot segments; what is percent-encoded stays so.

    ``%2F`` separates segments too: many servers decode a path before they resolve ``..``, and so would leave what was asked for.
    """
    kept: list[str] = []
    for segment in _SLASH.split(path):
        plain = unquote(segment)
        if plain == "..":
            if kept:
                kept.pop()
        elif plain not in ("", "."):
            kept.append(segment)
    return "/".join(kept)


def method_path(method: str) -> str:
    """Return the path of a method's name, in which ``%`` is a character like any other."""
    return clean_path(quote(method, safe="/:@!$&'()*+,;=~-._"))


def type_text(data_type: str) -> str:
    """Return a type URL as the value of `DATA_TYPE`."""
    return quote(data_type, safe="/:.-_~")


class InvokeApi:
    """Calls of applications by their ids."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._app_id = context.settings.app_id
        self._namespace = context.settings.namespace
        self.policies = AppPolicies(context.settings.resiliency)
        host = context.settings.host
        self._address = f"[{host}]" if ":" in host else host

    def is_own(self, target: str) -> bool:
        """Return whether the target is the application of this sidecar."""
        return self.app_id_of(target) == self._app_id

    def app_id_of(self, target: str) -> str:
        """Return a target without the namespace of this sidecar, ``<id>.<namespace>``; no others are known."""
        return target.removesuffix(f".{self._namespace}")

    def needs_verb(self, target: str) -> bool:
        """Return whether the target is known to speak HTTP."""
        return self.is_own(target) and self._context.settings.app_protocol != "grpc"

    async def invoke(self, target: str, call: AppCall, *, stream: bool = False) -> AppAnswer:
        """Call an application and return its answer, whatever its status.

        Args:
            target: an application's id.
            call: its headers are those of the caller, without those of the connection.
            stream: an answer without a length may come piece by piece, in its ``rest``; only the own application's does.

        Raises:
            DaprError: it was not reached, or its path has ``#``, ``?`` or a control character.
        """
        if _FORBIDDEN.search(unquote(call.path)):
            why = "a method has no '#', '?' or control character"
            raise not_invoked(target, f"rpc error: code = InvalidArgument desc = invalid method: {why}")
        names = {CALLER, CALLEE, NAMESPACE, "dapr-app-id", "dapr-api-token", "host"}
        call.headers = [(name, value) for name, value in call.headers if name not in names]
        call.headers += [(CALLER, self._app_id), (NAMESPACE, self._namespace), (CALLEE, self.app_id_of(target))]
        own = self.is_own(target)
        if not own:
            call.headers += [
                ("x-forwarded-for", self._address),
                ("x-forwarded-host", socket.gethostname()),
                ("forwarded", f"for={_quoted(self._address)};by={_quoted(self._address)};host={socket.gethostname()}"),
            ]
        attempts = self.policies.attempts(self.app_id_of(target), call.path)
        stream = stream and not attempts.repeats  # an answer that may have to be asked for again is whole
        while True:
            attempts.begin()
            try:
                if own:
                    answer = await self._own(target, call, stream, attempts.timeout)
                else:
                    answer = await self._other(target, call, attempts.timeout)
            except DaprError:
                if not await attempts.again(None):
                    raise
            else:
                if not await attempts.again(_code(answer)):
                    return answer

    async def _own(self, target: str, call: AppCall, stream: bool, timeout: float | None) -> AppAnswer:
        app = self._context.app
        if app is None:
            raise not_invoked(target, "the application has no port: give --app-port")
        try:
            if stream and isinstance(app, HttpChannel):
                return await app.invoke_streaming(call, timeout)
            return await app.invoke(call, timeout)
        except NotReached as error:
            raise not_invoked(target, error.message) from error

    async def _other(self, target: str, call: AppCall, timeout: float | None) -> AppAnswer:
        if _UNSAFE.search(call.path) or _UNSAFE.search(call.query):
            raise not_invoked(target, "the path cannot be sent")
        if len(call.body) > MAX_BODY:
            raise not_invoked(target, f"a body of more than {MAX_BODY:,} bytes")
        app_id = self.app_id_of(target)
        try:
            driver: RpcDriver = self._context.driver("rpc", app_id)
            op = Operation(_INVOKE, app_id, self._context.settings.timeout if timeout is None else timeout)
            verb = "POST" if call.verb == "NONE" else call.verb
            headers = _joined(call.headers)
            if self._namespace != "default":
                headers[PEER_NAMESPACE] = self._namespace
            if call.data_type:
                headers[DATA_TYPE] = type_text(call.data_type)
            rpc = RpcCall(unquote(call.path), call.path, verb, call.body, call.content_type, headers, call.query)
            reply = await driver.invoke_async(op, rpc)
        except CloudRuntimesError as error:
            raise not_invoked(target, error.message) from error
        headers = dict(reply.headers)
        data_type = unquote(headers.pop(DATA_TYPE, ""))
        headers.pop("date", None)
        code = headers.pop(GRPC_STATUS, None)
        name, _, text = (code or "").partition(" ")
        return AppAnswer(
            reply.status,
            list(headers.items()),
            reply.content_type,
            reply.data,
            failure=(name, text, b"") if name in GRPC_CODES and name != "OK" else None,
            data_type=data_type,
            is_grpc=code is not None,
        )


def _code(answer: AppAnswer) -> int:
    """Return the code of an application over gRPC, or the status of one over HTTP."""
    if not answer.is_grpc:
        return answer.status
    return GRPC_CODES["OK" if answer.failure is None else answer.failure[0]]


def _joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Return headers for a call of ours, which has each name once, and some for itself."""
    joined: dict[str, str] = {}
    for name, value in headers:
        if name.startswith("cloud-runtimes-") or name == "expect":
            continue
        if "\r" in value or "\n" in value:  # a server would have refused it
            raise InvalidArgumentError(f"the header {name!r} has a line end")
        joined[name] = f"{joined[name]}{'; ' if name == 'cookie' else ', '}{value}" if name in joined else value
    return joined


def _quoted(address: str) -> str:
    return f'"{address}"' if ":" in address else address
