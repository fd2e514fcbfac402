"""``subscribe``: events → lines on stdout; acknowledged once their lines have left the process."""

from __future__ import annotations

import base64
import sys
from datetime import datetime
from time import monotonic
from typing import Any, Final, cast

from ..codec import json
from ..codec.payload import decode_payload
from ..errors import PayloadError
from ..pubsub import Event, Subscription
from ..pubsub.service import Start
from ._errors import UsageError
from ._session import Invocation, connect
from ._streams import note, stopping, write
from ._tables import Table

__all__ = ["subscribe"]

_LOOK: Final = 0.2
"""Seconds between looks at signals and the idle time."""
_SILENT: Final = 1.0
"""Seconds without a first event after which it says that it waits."""
_UNSETTLED: Final = 100_000
"""How many events ``--no-ack`` shows before the first of them must come again."""


def subscribe(
    invocation: Invocation,
    pubsub: str,
    topic: str,
    *,
    group: str | None,
    start: str | None,
    count: int | None,
    idle: float | None,
    batch: int,
    ack: bool,
    data_only: bool,
) -> int:
    """Write events until ``count``, ``idle`` seconds or a signal; return the exit code."""
    in_flight = max(256, 2 * batch) if ack else (count or _UNSETTLED)
    left = count
    wanted = _read_start(start)
    with connect(invocation) as client, stopping(interrupt=False) as stop:
        with client.pubsub.subscribe(
            pubsub, topic, group=group, start=wanted, max_in_flight=in_flight, type=bytes
        ) as events:
            last, waits = monotonic(), True
            table = Table(("time", "key", "data")) if sys.stdout.isatty() and not data_only else None
            while not stop.signal and left != 0:
                taken = _take(
                    events, batch if left is None else min(batch, left), _LOOK if idle is None else min(_LOOK, idle)
                )
                if not taken:
                    if waits and monotonic() - last >= _SILENT:
                        waits = False
                        note(f"waiting for events of {pubsub}/{topic}; Ctrl-C ends")
                    if idle is not None and monotonic() - last >= idle:
                        break
                    continue
                if table is None:
                    write(b"".join(_line(event, data_only) for event in taken))
                else:
                    table.add([_cells(event) for event in taken])
                if ack:
                    for event in taken:
                        event.ack()
                if left is not None:
                    left -= len(taken)
                last, waits = monotonic(), False
        return stop.code if stop.signal else 0


def _read_start(text: str | None) -> Start | None:
    if text in (None, "earliest", "latest"):
        return cast("Start | None", text)
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        start = None
    if start is None or start.tzinfo is None:
        raise UsageError(f"--start {text!r}: give earliest, latest, or a time with its zone as 2026-11-28T09:00:00Z")
    return start


def _take(events: Subscription[Event[bytes]], limit: int, wait: float) -> list[Event[bytes]]:
    """Return what is there, at most ``limit``; waits for the first. One by one, since what is taken must be shown."""
    taken: list[Event[bytes]] = []
    while len(taken) < limit and (event := events.receive(timeout=0 if taken else wait)) is not None:
        taken.append(event)
    return taken


def _line(event: Event[bytes], data_only: bool) -> bytes:
    data = _data(event) if data_only else event.to_json()
    # in JSON a line end is white space: within strings it is escaped
    return data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def _cells(event: Event[bytes]) -> list[str]:
    return [event.time.strftime("%Y-%m-%d %H:%M:%SZ"), event.key or "", _data(event).decode("utf-8", "replace")]


def _data(event: Event[bytes]) -> bytes:
    """Return the data as JSON: JSON as it was sent, text as a string, bytes as base64 in a string."""
    kind = (event.content_type or "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return event.data
    try:
        value: Any = decode_payload(event.data, event.content_type)
    except PayloadError:  # it is not what it says it is: shown as it came, not withheld
        value = event.data
    return json.encode(base64.b64encode(value).decode() if isinstance(value, bytes) else value)
