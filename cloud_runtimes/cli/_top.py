"""``overview`` and ``top``: what is wrong anywhere, once or as a live screen."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ._output import Output, is_table
from ._session import connect
from ._streams import BOLD, GREEN, RED, stopping, styled, write
from ._tables import Table

if TYPE_CHECKING:
    from ..admin import Overview

_SCREEN, _PLAIN = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"
"""Sequences that open a screen of its own, without a cursor, and that go back."""
_HOME, _REST = "\x1b[H", "\x1b[J"
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_LOOK: Final = 0.2
_SPARES: Final = 20
"""Times that a look takes, for which the servers are left alone at least."""

Dead = Annotated[
    list[str] | None, typer.Option("--dead", metavar="TOPIC", help="A dead-letter topic to count; may be repeated.")
]
Limit = Annotated[int, typer.Option(metavar="N", min=1, help="Lines of each kind at most.")]


def overview(context: typer.Context, dead: Dead = None, limit: Limit = 100, output: Output = None) -> int:
    """Write what needs a look, the worst first: components that do not answer, groups that lag, dead letters, jobs that failed, locks that expired while others wait. Tables on a terminal, else one JSON object. Exit code 1: a component does not answer."""
    with connect(context.obj) as client:
        found = client.admin.overview(dead_letter_topics=dead or (), limit=limit)
    _write(found, "\n".join([*_lines(found), ""]), output)
    return int(any(each.error for each in found.components))


def top(
    context: typer.Context,
    dead: Dead = None,
    interval: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, help="Between two looks; longer where one takes longer than a twentieth of it."
        ),
    ] = 1.0,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="Looks; else until q or Ctrl-C.")] = None,
) -> int:
    """Show what `overview` writes on one screen, again and again, until q or Ctrl-C. In a pipe it writes one JSON line a round."""
    live = sys.stdout.isatty()
    with ExitStack() as resources:
        client = resources.enter_context(connect(context.obj))
        stop = resources.enter_context(stopping(interrupt=False))
        wait: Callable[[float], str] = _no_keys
        if live:
            if sys.stdin.isatty():
                from .._core.os_terminals import reading_keys

                wait = resources.enter_context(reading_keys())
            resources.callback(write, _PLAIN)
            write(_SCREEN)
        while not stop.signal:
            began = monotonic()
            found = client.admin.overview(dead_letter_topics=dead or (), limit=shutil.get_terminal_size().lines)
            _write(found, _screen(found))
            count = None if count is None else count - 1
            if count == 0:
                return 0
            due = max(began + interval, (now := monotonic()) + _SPARES * (now - began))
            while not stop.signal and (left := due - monotonic()) > 0:
                if wait(min(_LOOK, left)) in ("q", "Q"):
                    return 0
        return 0 if live else stop.code


def _no_keys(seconds: float) -> str:
    from time import sleep

    sleep(seconds)
    return ""


def _write(found: Overview, text: str, output: str | None = None) -> None:
    if is_table(output):
        write(text.encode("utf-8", "replace"))
    else:
        from ..codec import json

        write(json.encode(found) + b"\n")


def _screen(found: Overview) -> str:
    """Return all that fits on the screen, drawn over what is there."""
    size = shutil.get_terminal_size()
    lines = [f"{line}\x1b[K" for line in _lines(found)[: size.lines - 1]]
    return _HOME + "\n".join([*lines, _REST])


def _lines(found: Overview) -> list[str]:
    now = datetime.now(UTC)
    away = sum(each.error is not None for each in found.components)
    lag = sum(bool(each.group.lag) for each in found.groups)
    state = styled(f"{away} away", RED) if away else styled("ready", GREEN)
    head = f"{now.astimezone():%H:%M:%S}  {_count(len(found.components), 'component')} {state}"
    head += f"   {_count(len(found.groups), 'group')}, {lag} behind   {_count(len(found.dead_letters), 'dead-letter topic')}"
    head += f"   {_count(len(found.jobs), 'failed job')}   {_count(len(found.locks), 'stuck lock')}"
    lines = [head + (f"   {found.omitted} lines more" if found.omitted else "")]
    for title, columns, cells in _tables(found, now):
        if rows := list(cells):
            lines += ["", styled(title, BOLD), *Table(columns).render(rows)]
    return lines


def _tables(found: Overview, now: datetime) -> Iterator[tuple[str, Sequence[str], Iterator[list[str]]]]:
    """Yield the title, the columns and the cells of each table."""
    yield (
        "Components that do not answer",
        ("service", "name", "component", "error"),
        ([each.service or "home", each.name, each.component, each.error] for each in found.components if each.error),
    )
    yield (
        "Groups",
        ("component", "topic", "group", "lag", "oldest", "in flight", "members", ""),
        (
            [
                each.pubsub_name,
                (group := each.group).topic,
                group.name,
                _number(group.lag),
                _age(group.oldest, now),
                _number(group.in_flight),
                "" if group.members is None else str(len(group.members)),
                "paused" if group.paused else "",
            ]
            for each in found.groups
        ),
    )
    yield (
        "Dead letters",
        ("component", "topic", "events", "last"),
        (
            [each.pubsub_name, each.topic.name, _number(each.topic.events), _age(each.topic.last, now)]
            for each in found.dead_letters
        ),
    )
    yield (
        "Jobs that failed",
        ("application", "name", "failed", "last", "error"),
        (
            [each.app_id, each.name, str(each.failed), _age(each.last_run, now), each.last_error or ""]
            for each in found.jobs
        ),
    )
    yield (
        "Locks that expired while others wait",
        ("store", "lock", "waiting"),
        ([each.store_name, each.lock.resource_id, _number(each.lock.waiting)] for each in found.locks),
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,}"


def _age(time: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit."""
    if time is None:
        return ""
    seconds = max(0, int((now - time).total_seconds()))
    size, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    return f"{seconds // size} {unit}"
