"""W3C Trace Context and Baggage: headers ↔ contexts, strictly by the text of the recommendations; what RPC and pub/sub share with telemetry, so it loads nothing of it.

What is not valid is ignored, as the standards want it: a wrong ``traceparent`` starts a new trace, a wrong ``tracestate`` or ``baggage`` is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, unquote

from .._native import events
from .._native import telemetry as kernel
from ..errors import InvalidArgumentError

# level 2, section 3.3.2.2: all keys of level 1, and more
_KEY: Final = r"[a-z0-9][a-z0-9_\-*/@]{0,255}"
_MEMBER: Final = re.compile(rf"({_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MAX_MEMBERS: Final = 32
# Baggage, section 3.2: a token of HTTP, then octets of a cookie
_BAGGAGE_KEY: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAGGAGE_VALUE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_MAX_BAGGAGE: Final = 8192
_MAX_ENTRIES: Final = 64


def _headers(headers: Any, name: str) -> list[str]:
    """Return all values of a header, whatever the case of its name; of a mapping, or of pairs."""
    pairs: Iterable[Any] = headers.items() if isinstance(headers, Mapping) else headers
    result = []
    for key, value in pairs:
        if isinstance(key, bytes):
            key = key.decode("latin-1")
        if isinstance(key, str) and key.lower() == name:
            values = value if isinstance(value, (list, tuple)) else [value]
            result += [each.decode("latin-1") if isinstance(each, bytes) else str(each) for each in values]
    return result


def extract(headers: Any) -> Any:
    """Return the remote `SpanContext` of headers, or `None`."""
    values = _headers(headers, "traceparent")
    if len(values) != 1:
        return None
    return kernel.remote_context(values[0].strip(" \t"), _state(_headers(headers, "tracestate")))


def _state(values: list[str]) -> str:
    members: dict[str, str] = {}
    for member in ",".join(values).split(","):
        member = member.strip(" \t")
        if not member:
            continue
        match = _MEMBER.fullmatch(member)
        if match is None:
            return ""
        members.setdefault(match[1], member)  # the first of a key is the newest
    if len(members) > _MAX_MEMBERS:
        return ""
    return ",".join(members.values())


def inject(headers: MutableMapping[str, str]) -> None:
    """Write ``traceparent``, ``tracestate`` and ``baggage`` of this context; what there is nothing of is not touched."""
    current = kernel.current_span()
    if current is not None:
        context = current if isinstance(current, kernel.SpanContext) else current.context
        headers["traceparent"] = context.traceparent
        state = context.trace_state
        if state and state.isascii() and state.isprintable():  # made by hand it may be anything
            headers["tracestate"] = state
    if entries := current_baggage():
        members: list[str] = []
        for key, value in list(entries.items())[:_MAX_ENTRIES]:
            member = f"{key}={quote(value, safe='!#$&()*+-./:<=>?@[]^_`{|}~')}"
            if len(",".join([*members, member])) > _MAX_BAGGAGE:
                break
            members.append(member)
        headers["baggage"] = ",".join(members)


def current_baggage() -> Mapping[str, str]:
    """Return the baggage of this context."""
    return kernel.baggage.get() or {}


@contextmanager
def use_baggage(entries: Mapping[str, str]) -> Iterator[None]:
    """Have these entries, and those there are, as baggage inside ``with``."""
    for key, value in entries.items():
        if not isinstance(key, str) or not _BAGGAGE_KEY.fullmatch(key) or not isinstance(value, str):
            raise InvalidArgumentError(f"baggage: {key!r} must be a token of HTTP, and its value text")
    token = kernel.baggage.set({**current_baggage(), **entries})
    try:
        yield
    finally:
        kernel.baggage.reset(token)


def extract_baggage(headers: Any) -> dict[str, str]:
    """Return the entries of ``baggage``; their properties and what is not valid are left out."""
    entries: dict[str, str] = {}
    text = ",".join(_headers(headers, "baggage"))
    if len(text) > _MAX_BAGGAGE:
        return entries
    for member in text.split(","):
        key, equals, value = member.partition(";")[0].partition("=")
        key, value = key.strip(" \t"), value.strip(" \t")
        if equals and len(entries) < _MAX_ENTRIES and _BAGGAGE_KEY.fullmatch(key) and _BAGGAGE_VALUE.fullmatch(value):
            entries[key] = unquote(value, errors="replace")
    return entries


class Entered:
    """Sets a remote context and baggage, until `leave`."""

    __slots__ = ("_baggage", "_current")

    def __init__(self, context: Any, entries: Mapping[str, str]) -> None:
        self._current = kernel.current.set(context)
        self._baggage = kernel.baggage.set(entries) if entries or kernel.baggage.get() else None

    def leave(self, error: BaseException | None = None) -> None:
        """Give back what was the context before."""
        if self._baggage is not None:
            give_back(kernel.baggage, self._baggage)
        give_back(kernel.current, self._current)


def enter(headers: Any) -> Entered:
    """Enter the context of ``traceparent``, ``tracestate`` and ``baggage``; ignores invalid ones."""
    return Entered(extract(headers), extract_baggage(headers))


def enter_event(event: Any) -> Entered:
    """Enter the context that an event carries."""
    extensions = event.extensions
    if "tracestate" in extensions or "baggage" in extensions:
        return enter(event_headers(event))
    text = event.traceparent
    return Entered(None if text is None else kernel.remote_context(text), {})


def give_back(variable: Any, token: Any) -> None:
    """Reset a context variable; in another context than that of the token, where a coroutine that nobody finished is closed, there is nothing to reset."""
    try:
        variable.reset(token)
    except ValueError:
        pass


def forget() -> None:
    """Have no context from here on: a task begins with that of whoever started it, which is no parent of what comes to it later."""
    if kernel.current.get() is not None:
        kernel.current.set(None)
    if kernel.baggage.get():
        kernel.baggage.set(None)


def headers_of(carrier: Any) -> Any:
    """Return a carrier's headers: of an event those that it carries, else the carrier itself."""
    return event_headers(carrier) if isinstance(carrier, events.ReceivedEvent) else carrier


def event_headers(event: Any) -> dict[str, str]:
    """Return what an event carries (CloudEvents, "Distributed Tracing" extension; baggage stands beside it), as headers."""
    headers = {}
    if (traceparent := event.traceparent) is not None:
        headers["traceparent"] = traceparent
    extensions = event.extensions
    for name in ("tracestate", "baggage"):
        if isinstance(value := extensions.get(name), str):
            headers[name] = value
    return headers
