"""``topics``, ``groups``, ``peek``, ``purge``, ``seek`` and ``dead list|redrive|discard``: what pub/sub components hold, and what mends it. What concerns whole groups and topics is in `_steering`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ._completing import groups as complete_groups
from ._completing import stores
from ._completing import topics as complete_topics
from ._errors import UsageError
from ._output import Output, fields_of, is_table, rows
from ._session import connect
from ._streams import agree, note
from ._subscribe import EventLines, line_of, read_start, read_time

if TYPE_CHECKING:
    from ..client import CloudRuntimesClient

dead_app = typer.Typer(help="Look at dead letters, and send them back.", no_args_is_help=True, rich_markup_mode=None)

PubSub = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the pub/sub component.", show_default=False, autocompletion=stores("pubsub")
    ),
]
Topic = Annotated[str, typer.Argument(help="Topic.", show_default=False, autocompletion=complete_topics)]
GroupName = Annotated[str, typer.Argument(help="Group.", show_default=False, autocompletion=complete_groups)]
Group = Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this group.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Only those with this reason.")]
Error = Annotated[str | None, typer.Option(metavar="TYPE", help="Only those with this type of error.")]
Ids = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Only the event with this id; may be repeated.")
]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Events at most.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Undo = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="File that gets them before they are removed, for `cloud-runtimes restore`."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count.")]


def topics(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Name of the pub/sub component; default the only one.",
            show_default=False,
            autocompletion=stores("pubsub"),
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only topics whose names begin so.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Topics at most.")] = 1000,
    output: Output = None,
) -> int:
    """Write the topics of a component: a table on a terminal, else a JSON object a line. What the component cannot tell is empty."""
    with connect(context.obj) as client:
        found = client.admin.topics(name or _the_only_one(client), prefix=prefix, limit=limit)
        rows(map(fields_of, found), ("name", "events", "bytes", "groups", "first", "last"), output)
    return 0


def _the_only_one(client: CloudRuntimesClient) -> str:
    """Return the name of the one pub/sub component that there is."""
    names = sorted({store.name for store in client.admin.stores() if store.service == "pubsub"})
    if len(names) != 1:
        known = f"one of {', '.join(names)}" if names else "as in: cloud-runtimes topics bus"
        raise UsageError(f"say which pub/sub component, {known}")
    return names[0]


def groups(context: typer.Context, name: PubSub, topic: Topic, output: Output = None) -> int:
    """Write the groups of a topic, with how many events each has not settled and since when: a table on a terminal, else a JSON object a line."""
    with connect(context.obj) as client:
        found = [fields_of(group) for group in client.admin.groups(name, topic)]
        if is_table(output):
            for group in found:
                group["members"] = None if group["members"] is None else len(group["members"])
        rows(found, ("name", "lag", "oldest", "in_flight", "members", "order", "paused"), output)
    return 0


def peek(
    context: typer.Context,
    name: PubSub,
    topic: Topic,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Only what this group has not settled.")] = None,
    start: Annotated[
        str | None, typer.Option(metavar="earliest|latest|TIME", help="Where to begin: TIME in ISO 8601.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Events at most.")] = 20,
    data_only: Annotated[bool, typer.Option("--data-only", help="Write the data, not the CloudEvent.")] = False,
    output: Output = None,
) -> int:
    """Write events of a topic and leave them there: no group moves, no delivery is counted. A table on a terminal, else a line of CloudEvents JSON each. Exit code 3: there is no such group."""
    with connect(context.obj) as client:
        events = client.admin.peek(name, topic, group=group, start=read_start(start) or "earliest", limit=limit)
        EventLines(output, data_only).add(events)
    return 0


def purge(
    context: typer.Context,
    name: PubSub,
    topic: Topic,
    before: Annotated[str | None, typer.Option(metavar="TIME", help="Only older events: TIME in ISO 8601.")] = None,
    undo: Undo = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Remove the events of a topic for good, for all of its groups. It counts them first, and asks on a terminal."""
    time = None if before is None else read_time(before, "--before")
    with connect(context.obj) as client:
        count = client.admin.purge(name, topic, before=time, dry_run=True)
        note(f"{count:,} events of {topic}")
        if dry_run or not count:
            return 0
        agree("Remove them for good?", yes)
        note(f"{client.admin.purge(name, topic, before=time, undo=undo):,} are removed")
    return 0


def seek(
    context: typer.Context,
    name: PubSub,
    topic: Topic,
    group: GroupName,
    to: Annotated[
        str,
        typer.Option(metavar="earliest|latest|TIME", help="Where it goes on: TIME in ISO 8601.", show_default=False),
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Move a group to another place of its topic: it gets what was published since. It counts what the group has not settled first, and asks on a terminal. Exit code 3: there is no such group."""
    place = read_start(to, "--to") or "earliest"
    with connect(context.obj) as client:
        note(f"{client.pubsub.lag(name, topic, group=group):,} events that {group} has not settled")
        if dry_run:
            return 0
        agree(f"Move it to {to}?", yes)
        client.admin.seek(name, topic, group, place)
        note(f"{client.pubsub.lag(name, topic, group=group):,} events that {group} gets now")
    return 0


@dead_app.callback()
def _dead() -> None:
    """Look at dead letters, and send them back."""


@dead_app.command("list", short_help="Write dead letters by group, reason and error.")
def list_dead(context: typer.Context, name: PubSub, topic: Topic, output: Output = None) -> int:
    """Write the dead letters of a dead-letter topic, grouped by the group that failed, the reason and the type of the error; the largest first. A table on a terminal, else a JSON object a line, with the latest of each as a sample."""
    from ..codec import json

    with connect(context.obj) as client:
        found = client.admin.dead_letters(name, topic)
        samples = ({"sample": json.decode(line_of(each.sample, False))} for each in found)
        lines = [fields_of(each) | sample for each, sample in zip(found, samples, strict=True)]
        rows(lines, ("count", "group", "topic", "reason", "error", "first", "last"), output)
    if found and not any(each.reason for each in found):
        note(
            f"no event of {topic} is a dead letter: `cloud-runtimes groups {name} TOPIC` names the topic that has them"
        )
    return 0


@dead_app.command("redrive", short_help="Send dead letters back.")
def redrive(
    context: typer.Context,
    name: PubSub,
    topic: Topic,
    group: Group = None,
    reason: Reason = None,
    error: Error = None,
    ids: Ids = None,
    limit: Limit = None,
    to: Annotated[
        Literal["group", "topic"], typer.Option(help="To the group that failed alone, or to all groups of its topic.")
    ] = "group",
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Send the letters of a dead-letter topic back, and remove them from it. It counts them first, and asks on a terminal. Exit code 3: their group does not exist any more."""
    selected: dict[str, Any] = {"group": group, "reason": reason, "error": error, "ids": ids, "limit": limit, "to": to}
    with connect(context.obj) as client:
        found = client.admin.redrive(name, topic, **selected, dry_run=True)
        note(f"{found.count:,} dead letters of {topic}" + (f", {found.remaining:,} stay" if found.remaining else ""))
        if dry_run or not found.count:
            return 0
        agree(f"Send them back to {'the group' if to == 'group' else 'all groups'}?", yes)
        note(f"{client.admin.redrive(name, topic, **selected).count:,} are sent back")
    return 0


@dead_app.command("discard", short_help="Remove dead letters for good.")
def discard(
    context: typer.Context,
    name: PubSub,
    topic: Topic,
    group: Group = None,
    reason: Reason = None,
    error: Error = None,
    ids: Ids = None,
    limit: Limit = None,
    undo: Undo = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Remove letters of a dead-letter topic for good. It counts them first, and asks on a terminal."""
    selected: dict[str, Any] = {"group": group, "reason": reason, "error": error, "ids": ids, "limit": limit}
    with connect(context.obj) as client:
        count = client.admin.discard(name, topic, **selected, dry_run=True)
        note(f"{count:,} dead letters of {topic}")
        if dry_run or not count:
            return 0
        agree("Remove them for good?", yes)
        note(f"{client.admin.discard(name, topic, **selected, undo=undo):,} are removed")
    return 0
