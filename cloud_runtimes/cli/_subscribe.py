"""``subscribe``: events → lines on stdout; acknowledged once their lines have left the process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from ..errors import PayloadError
from ._completing import stores
from ._completing import topics as complete_topics
from ._errors import UsageError
from ._output import Output, is_table
from ._session import connect
from ._streams import note, progress, stopping, write
from ._tables import Table

if TYPE_CHECKING:
    from ..pubsub import Event, Subscription
    from ..pubsub.service import Start

_LOOK: Final = 0.2
"""Seconds between looks at signals and the idle time."""
_SILENT: Final = 1.0
"""Seconds without a first event after which it says that it waits."""
_UNSETTLED: Final = 100_000
"""How many events ``--no-ack`` shows before the first of them must come again."""
_WHY: Final = {"dlgroup": "group", "dlreason": "reason", "dlerror": "error"}
"""Extensions of a dead letter → columns of a table."""


def subscribe(
    context: typer.Context,
    pubsub: Annotated[
        str,
        typer.Argument(help="Name of the pub/sub component.", show_default=False, autocompletion=stores("pubsub")),
    ],
    topic: Annotated[str, typer.Argument(help="Topic.", show_default=False, autocompletion=complete_topics)],
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Consumer group; else the app id.")] = None,
    start: Annotated[
        str | None, typer.Option(metavar="earliest|latest|TIME", help="Where a new group begins: TIME in ISO 8601.")
    ] = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N events.")] = None,
    idle: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Stop when nothing came for so long.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Events written and acknowledged at once.")] = 100,
    no_ack: Annotated[bool, typer.Option("--no-ack", help="Leave the events to be delivered again.")] = False,
    data_only: Annotated[bool, typer.Option("--data-only", help="Write the data, not the CloudEvent.")] = False,
    output: Output = None,
) -> int:
    """Write events until interrupted: a table on a terminal, else a line of CloudEvents JSON each. An event is acknowledged once it is written."""
    in_flight = (count or _UNSETTLED) if no_ack else max(256, 2 * batch)
    wanted = read_start(start)
    with connect(context.obj) as client, stopping(interrupt=False) as stop, progress(count, to=sys.stdout) as advance:
        with client.pubsub.subscribe(
            pubsub, topic, group=group, start=wanted, max_in_flight=in_flight, type=bytes
        ) as events:
            last, waits, written = monotonic(), True, 0
            lines = EventLines(output, data_only)
            while not stop.signal and written != count:
                taken = _take(
                    events,
                    batch if count is None else min(batch, count - written),
                    _LOOK if idle is None else min(_LOOK, idle),
                )
                if not taken:
                    if waits and monotonic() - last >= _SILENT:
                        waits = False
                        note(f"waiting for events of {pubsub}/{topic}; Ctrl-C ends")
                    if idle is not None and monotonic() - last >= idle:
                        break
                    continue
                lines.add(taken)
                if not no_ack:
                    for event in taken:
                        event.ack()
                written += len(taken)
                advance(written, written)
                last, waits = monotonic(), False
        return stop.code if stop.signal else 0


def read_start(text: str | None, option: str = "--start") -> Start | None:
    """Return where to begin.

    Raises:
        UsageError: it is no such text.
    """
    if text in (None, "earliest", "latest"):
        return cast("Start | None", text)
    return read_time(text, option, "earliest, latest, or ")


def read_time(text: str, option: str, others: str = "") -> datetime:
    """Return the time that an option has.

    Raises:
        UsageError: it is none, or has no zone.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise UsageError(f"{option} {text!r}: give {others}a time with its zone as 2026-11-28T09:00:00Z")
    return time


def _take(events: Subscription[Event[bytes]], limit: int, wait: float) -> list[Event[bytes]]:
    """Return what is there, at most ``limit``; waits for the first. One by one, since what is taken must be shown."""
    taken: list[Event[bytes]] = []
    while len(taken) < limit and (event := events.receive(timeout=0 if taken else wait)) is not None:
        taken.append(event)
    return taken


def line_of(event: Event[Any], data_only: bool) -> bytes:
    """Return an event as a line of CloudEvents JSON, or its data alone."""
    data = _data(event) if data_only else event.to_json()
    # in JSON a line end is white space: within strings it is escaped
    return data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


class EventLines:
    """Writes events: as lines of CloudEvents JSON or of their data, or as a table, which also says why each dead letter is one."""

    def __init__(self, output: str | None, data_only: bool) -> None:
        self._is_table = is_table(output) and not data_only
        self._data_only = data_only
        self._table: Table | None = None
        self._why: Mapping[str, str] = {}

    def add(self, events: Sequence[Event[Any]]) -> None:
        """Write events. The first ones tell whether the topic holds dead letters."""
        if not self._is_table:
            write(b"".join(line_of(event, self._data_only) for event in events))
        elif events:
            if self._table is None:
                self._why = _WHY if any("dlreason" in event.extensions for event in events) else {}
                self._table = Table(("time", "key", *self._why.values(), "data"))
            self._table.add([self._cells(event) for event in events])

    def _cells(self, event: Event[Any]) -> list[str]:
        why = (str(event.extensions.get(name, "")) for name in self._why)
        return [
            event.time.strftime("%Y-%m-%d %H:%M:%SZ"),
            event.key or "",
            *why,
            _data(event).decode("utf-8", "replace"),
        ]


def _data(event: Event[Any]) -> bytes:
    """Return the data as JSON: JSON as it was sent, text as a string, bytes as base64 in a string."""
    import base64

    from ..codec import json
    from ..codec.payload import decode_payload
    from ..pubsub.types import record_of
    from ._values import is_json

    payload = record_of(event).payload
    if is_json(event.content_type):
        return payload
    try:
        value: Any = decode_payload(payload, event.content_type)
    except PayloadError:  # it is not what it says it is: shown as it came, not withheld
        value = payload
    return json.encode(base64.b64encode(value).decode() if isinstance(value, bytes) else value)
