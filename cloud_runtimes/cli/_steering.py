"""``pause``, ``resume``, ``delete-group``, ``delete-topic`` and ``restore``: whole groups and topics."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING, Annotated, Final

import typer

from ..errors import PayloadError
from ..spi.operation import Method, Operation
from ._admin import DryRun, GroupName, PubSub, Topic, Yes
from ._errors import UsageError
from ._publish import opened
from ._session import connect
from ._streams import agree, note

if TYPE_CHECKING:
    from ..spi.pubsub import EventRecord

_RESTORE: Final = Method("pubsub", "restore", repeatable=True)
_TOGETHER: Final = 500
"""Events that are published at once."""


def pause(
    context: typer.Context, name: PubSub, topic: Topic, group: GroupName, yes: Yes = False, dry_run: DryRun = False
) -> int:
    """Have a group get nothing until `resume`, also after restarts. It counts what the group has not settled first, and asks on a terminal. Exit code 3: there is no such group."""
    with connect(context.obj) as client:
        note(f"{client.pubsub.lag(name, topic, group=group):,} events that {group} has not settled")
        if not dry_run:
            agree(f"Pause {group}?", yes)
            client.admin.pause(name, topic, group)
            note(f"{group} is paused: cloud-runtimes resume {name} {topic} {group} lets it go on")
    return 0


def resume(context: typer.Context, name: PubSub, topic: Topic, group: GroupName, dry_run: DryRun = False) -> int:
    """Let a group that was paused go on. Exit code 3: there is no such group."""
    with connect(context.obj) as client:
        count = client.pubsub.lag(name, topic, group=group)
        if not dry_run:
            client.admin.resume(name, topic, group)
        note(f"{count:,} events that {group} has not settled")
    return 0


def delete_group(
    context: typer.Context, name: PubSub, topic: Topic, group: GroupName, yes: Yes = False, dry_run: DryRun = False
) -> int:
    """Delete a group that has no members. It counts what the group has not settled first, and asks on a terminal. Exit code 3: there is no such group."""
    with connect(context.obj) as client:
        count = client.admin.delete_group(name, topic, group, dry_run=True)
        note(f"{count:,} events that {group} has not settled")
        if not dry_run:
            agree(f"Delete {group}?", yes)
            client.admin.delete_group(name, topic, group)
            note(f"{group} is deleted")
    return 0


def delete_topic(context: typer.Context, name: PubSub, topic: Topic, yes: Yes = False, dry_run: DryRun = False) -> int:
    """Delete a topic whose groups have no members, with its events and groups. It counts the events first, and asks on a terminal. Exit code 3: there is no such topic."""
    with connect(context.obj) as client:
        note(f"{client.admin.delete_topic(name, topic, dry_run=True):,} events of {topic}")
        if not dry_run:
            agree(f"Delete {topic} with its groups?", yes)
            client.admin.delete_topic(name, topic)
            note(f"{topic} is deleted")
    return 0


def restore(
    context: typer.Context,
    name: PubSub,
    topic: Topic,
    file: Annotated[str, typer.Argument(help="Where lines come from; - is stdin.")] = "-",
) -> int:
    """Publish events that `purge --undo`, `dead discard --undo`, `peek` or `subscribe` wrote, as they were: with their ids, times and attributes. Stops at a bad line."""
    from ..client import context_of
    from ..spi.pubsub import OutgoingBatch

    with opened(file) as (lines, label, _), connect(context.obj) as client:
        frame = context_of(client).frame("pubsub")
        driver = frame.driver(name)
        count = 0
        records = _records(lines, label, topic)
        try:
            while some := list(islice(records, _TOGETHER)):
                op = Operation(_RESTORE, name, frame.timeout)
                for error in frame.call(op, driver.publish, OutgoingBatch.of(topic, some)).values():
                    raise error
                count += len(some)
        finally:
            note(f"{count:,} events are restored")
    return 0


def _records(lines: IO[bytes], label: str, topic: str) -> Iterator[EventRecord]:
    from ..spi.events import read_structured

    for number, line in enumerate(lines, 1):
        try:
            yield read_structured(line, topic)
        except PayloadError as error:
            raise UsageError(f"{label}, line {number}: {error}") from error
