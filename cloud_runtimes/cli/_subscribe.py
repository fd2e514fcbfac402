"""``subscribe``: events → lines on stdout; acknowledged once their lines have left the process."""

from __future__ import annotations

import sys
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from ..errors import PayloadError
from ._errors import UsageError
from ._session import connect
from ._streams import note, stopping, write
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


def subscribe(
    context: typer.Context,
    pubsub: Annotated[str, typer.Argument(help="Name of the pub/sub component.", show_default=False)],
    topic: Annotated[str, typer.Argument(help="Topic.", show_default=False)],
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
) -> int:
    """Write events until interrupted: a table on a terminal, else a line of CloudEvents JSON each. An event is acknowledged once it is written."""
    in_flight = (count or _UNSETTLED) if no_ack else max(256, 2 * batch)
    remaining = count
    wanted = _read_start(start)
    with connect(context.obj) as client, stopping(interrupt=False) as stop:
        with client.pubsub.subscribe(
            pubsub, topic, group=group, start=wanted, max_in_flight=in_flight, type=bytes
        ) as events:
            last, waits = monotonic(), True
            table = Table(("time", "key", "data")) if sys.stdout.isatty() and not data_only else None
            while not stop.signal and remaining != 0:
                taken = _take(
                    events,
                    batch if remaining is None else min(batch, remaining),
                    _LOOK if idle is None else min(_LOOK, idle),
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
                if not no_ack:
                    for event in taken:
                        event.ack()
                if remaining is not None:
                    remaining -= len(taken)
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
    import base64

    from ..codec import json
    from ..codec.payload import decode_payload
    from ._values import is_json

    if is_json(event.content_type):
        return event.data
    try:
        value: Any = decode_payload(event.data, event.content_type)
    except PayloadError:  # it is not what it says it is: shown as it came, not withheld
        value = event.data
    return json.encode(base64.b64encode(value).decode() if isinstance(value, bytes) else value)
