"""``spool status|flush|refused|drop``: events that wait in outboxes and spools for their brokers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..client import context_of
from ._output import Output, rows
from ._session import Invocation, connect
from ._streams import agree, complain, note, progress

if TYPE_CHECKING:
    from ..pubsub.relays import Relay, Relays

spool_app = typer.Typer(
    help="See and steer events that wait for a broker.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str | None, typer.Argument(help="Name of the pub/sub component; else all.", show_default=False)]
Refused = Annotated[bool, typer.Option("--refused", help="What the broker refused for good.")]
_LOOK: Final = 0.2
_LATE: Final = 5


@contextmanager
def _opened(invocation: Invocation, name: str | None) -> Iterator[tuple[Relays, list[Relay]]]:
    """Give the relays of a client, and those of a pub/sub component."""
    with connect(invocation) as client:
        frame: Any = context_of(client).frame("pubsub")
        relays: Relays = frame.relays
        yield relays, [relay for relay in relays.known() if name in (None, relay.pubsub_name)]


@spool_app.command("status", short_help="Show what waits.")
def status(context: typer.Context, name: Name = None, output: Output = None) -> int:
    """Show what waits in outboxes and spools, and what brokers refused for good."""
    from ..pubsub.relay_operations import statuses

    with _opened(context.obj, name) as (relays, _):
        shown = [
            {
                "pubsub": each.relay.pubsub_name,
                "component": each.relay.vendor,
                "in": each.relay.where,
                "events": each.waiting.events,
                "bytes": each.waiting.bytes,
                "oldest": _time(each.waiting.oldest_ms),
                "forwarded": each.waiting.forwarded,
                "dropped": each.waiting.dropped,
                "refused": each.refused.events + (each.waiting.rejected or 0),
                "configured": each.taken,
            }
            for each in statuses(relays)
            if name in (None, each.relay.pubsub_name)
        ]
    rows(shown, ("pubsub", "component", "in", "events", "bytes", "oldest", "refused", "configured"), output)
    if not shown:
        note("nothing waits")
    return 0


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


@spool_app.command("flush", short_help="Forward what waits, and wait for it.")
def flush(
    context: typer.Context,
    name: Name = None,
    refused: Refused = False,
    seconds: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="How long.")] = 60.0,
) -> int:
    """Forward what waits until nothing is left. Exit code 5 where that takes longer than --wait.

    With --refused it first sends again what brokers refused.
    """
    from ..pubsub.relay_operations import send_again

    with _opened(context.obj, name) as (relays, some):
        for relay in some:
            if refused and (count := send_again(relays, relay)):
                note(f"{count:,} refused events of {relay.pubsub_name} are sent again")
        relays.resume()
        some = [relay for relay in some if relays.takes(relay)]
        end = monotonic() + seconds
        with progress(None) as advance:
            left = begun = sum(relays.stores(relay)[0].backlog().events for relay in some)
            while left and monotonic() < end:
                sleep(_LOOK)
                left = sum(relays.stores(relay)[0].backlog().events for relay in some)
                advance(max(0, begun - left), 0)
    if left:
        complain(f"{left:,} events still wait after {seconds:g} s: is the broker there?")
        return _LATE
    return 0


@spool_app.command("refused", short_help="Show what brokers refused for good.")
def show_refused(context: typer.Context, name: Name = None, output: Output = None) -> int:
    """Show the events that brokers refused for good, with the reason. Send them again by: spool flush --refused."""
    from ..pubsub.relay_operations import refused_events

    with _opened(context.obj, name) as (relays, some):
        for relay in some:
            rows(
                (
                    {
                        "pubsub": relay.pubsub_name,
                        "topic": record.topic,
                        "id": record.id,
                        "key": record.key,
                        "time": record.time_text,
                        "error": record.extensions.get("dlerror"),
                    }
                    for record in refused_events(relays, relay)
                ),
                ("pubsub", "topic", "id", "key", "error"),
                output,
            )
    return 0


@spool_app.command("drop", short_help="Drop what waits.")
def drop(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the pub/sub component.", show_default=False)],
    refused: Refused = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> int:
    """Drop the events that wait for a broker, or with --refused those that it refused. They are lost."""
    from ..pubsub.relay_operations import drop as drop_all

    with _opened(context.obj, name) as (relays, some):
        stores = [relays.stores(relay)[int(refused)] for relay in some]
        count = sum(store.backlog().events for store in stores)
        note(f"{count:,} events {'that the broker refused' if refused else 'that wait'} for {name}")
        if dry_run or not count:
            return 0
        agree("Drop them for good?", yes)
        note(f"{sum(map(drop_all, stores)):,} events are dropped")
    return 0
