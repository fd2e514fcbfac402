"""The SPI of ``client.admin``: what a driver tells of the things that its service holds, and how it mends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from . import lock, pubsub, rpc, schedule
from .executor import Blocking, in_thread
from .operation import Operation
from .pubsub import Delivery

__all__ = [
    "EVERYWHERE",
    "FEATURES",
    "LOOKING",
    "MENDING",
    "GroupInfo",
    "MemberInfo",
    "Position",
    "PubSubAdmin",
    "Target",
    "TopicInfo",
]

FEATURES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "topics": ("pubsub", pubsub.TOPICS),
        "groups": ("pubsub", pubsub.GROUPS),
        "peek": ("pubsub", pubsub.PEEK),
        "dead_letters": ("pubsub", pubsub.PEEK),
        "redrive": ("pubsub", pubsub.REDRIVE),
        "discard": ("pubsub", pubsub.DISCARD),
        "purge": ("pubsub", pubsub.PURGE),
        "seek": ("pubsub", pubsub.SEEK),
        "pause": ("pubsub", pubsub.PAUSE),
        "resume": ("pubsub", pubsub.PAUSE),
        "delete_group": ("pubsub", pubsub.DELETE_GROUP),
        "delete_topic": ("pubsub", pubsub.DELETE_TOPIC),
        "locks": ("lock", lock.LOCKS),
        "break_lock": ("lock", lock.BREAK_LOCK),
        "services": ("rpc", rpc.SERVICES),
        "jobs": ("schedule", schedule.JOBS),
        "pause_job": ("schedule", schedule.PAUSE),
        "resume_job": ("schedule", schedule.PAUSE),
        "retry_run": ("schedule", schedule.RETRY_RUN),
    }
)
"""Method of ``client.admin`` → the service whose driver does it, and the feature that the driver declares."""
EVERYWHERE: Final = frozenset({"overview", "stores"})
"""Methods of ``client.admin`` that need no driver."""
LOOKING: Final = frozenset({pubsub.TOPICS, pubsub.GROUPS, pubsub.PEEK})
"""Features of a pub/sub driver that shows all there is."""
MENDING: Final = frozenset(
    {
        pubsub.REDRIVE,
        pubsub.DISCARD,
        pubsub.PURGE,
        pubsub.SEEK,
        pubsub.PAUSE,
        pubsub.DELETE_GROUP,
        pubsub.DELETE_TOPIC,
    }
)
"""Features beside them of a driver that mends all that can be mended."""
Target: TypeAlias = Literal["group", "topic"]
"""Where dead letters go: to the group that failed alone, or to all groups of the topic that it got them from."""
Position: TypeAlias = Any
"""Where to read a topic from: ``"earliest"``, ``"latest"``, an aware time, or the ``token`` of an event, behind which it goes on."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic, as far as its component tells; ``None``: it does not.

    Attributes:
        name: of the topic.
        events: how many are kept. A broker counts messages: with ``layout = "frame"`` one has many events.
        bytes: that they take.
        first, last: when the oldest and the newest of them were published.
        groups: how many groups there are.
    """

    name: str
    events: int | None = None
    bytes: int | None = None
    first: datetime | None = None
    last: datetime | None = None
    groups: int | None = None


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """A member of a group.

    Attributes:
        id: of the member, as the component calls it.
        host, pid: where it runs; ``None``: not known.
        since: when it joined; ``None``: not known.
        in_flight: events that it holds; ``None``: not known.
    """

    id: str
    host: str | None = None
    pid: int | None = None
    since: datetime | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group of a topic, as far as its component tells; ``None``: it does not.

    Attributes:
        topic, name: of the topic and the group.
        lag: how many events it has not settled, as `cloud_runtimes.pubsub.PubSubService.lag` says.
        oldest: when the oldest of these was published.
        in_flight: how many of these its members hold.
        members: those that the component knows. A database knows members that hold events, or have a part of a group with an order.
        paused: whether somebody has paused it, so that it gets nothing.
        order: ``"key"``: it has the events of a key in order; ``""``: it has no order.
        dead_letter_topic: where its events go that failed too often.
    """

    topic: str
    name: str
    lag: int | None = None
    oldest: datetime | None = None
    in_flight: int | None = None
    members: tuple[MemberInfo, ...] | None = None
    paused: bool | None = None
    order: str | None = None
    dead_letter_topic: str | None = None


class PubSubAdmin(Blocking):
    """Shows and mends what a pub/sub name holds; `PubSubDriver.admin` returns it. It needs the methods alone whose features the driver declares.

    `topics`, `groups` and `peek` leave everything as it is: groups, cursors, delivery counts, and whatever else the broker keeps.
    """

    def topics(self, op: Operation, prefix: str, limit: int, /) -> Sequence[TopicInfo]:
        """Return the topics whose names begin so, in order (`TOPICS`)."""
        raise NotImplementedError

    topics_async = in_thread(topics)

    def names(self, op: Operation, limit: int, /) -> Sequence[str]:
        """Return the names of topics, in order (`TOPICS`). A driver that asks for more to tell of topics overrides this."""
        return [each.name for each in self.topics(op, "", limit)]

    names_async = in_thread(names)

    def groups(self, op: Operation, topic: str, /) -> Sequence[GroupInfo]:
        """Return the groups of a topic, in the order of their names; none where there is no such topic (`GROUPS`)."""
        raise NotImplementedError

    groups_async = in_thread(groups)

    def backlogs(self, op: Operation, limit: int, /) -> Sequence[GroupInfo]:
        """Return the groups of up to ``limit`` topics, without their members, in any order (`GROUPS`). Where the broker tells of all at once, a driver asks for that."""
        topics = [each.name for each in self.topics(op, "", limit) if each.groups != 0]
        return [group for topic in topics for group in self.groups(op, topic)]

    backlogs_async = in_thread(backlogs)

    def peek(
        self, op: Operation, topic: str, group: str | None, start: Position, limit: int, /
    ) -> Sequence[Delivery] | None:
        """Return events of a topic (`PEEK`). Another call reads on from the last one's ``token``; none are left where it returns none.

        Args:
            op: the operation.
            topic: of which topic.
            group: those that it has not settled, with their deliveries so far; ``None``: all.
            start: where to begin. ``"latest"`` are the last ``limit`` of them. With a group it is ``"earliest"`` or a token.
            limit: of events; there may be fewer, where they are large.

        Returns:
            ``None``: there is no such group.
        """
        raise NotImplementedError

    peek_async = in_thread(peek)

    def remove(self, op: Operation, topic: str, letters: Sequence[Delivery], to: Target | None, /) -> int:
        """Remove events of a dead-letter topic, for all of its groups, and deliver them again as the events that they were, in one commit.

        Two that do so at once never deliver one twice: what is not there any more is passed over. Nothing happens a second time where a call is repeated.

        Args:
            op: the operation.
            topic: of which topic.
            letters: as `peek` returned them. For a target they have the extensions ``dltopic`` and ``dlgroup``.
            to: where they go (`REDRIVE`). A group that gets them gets them alone, with a fresh delivery count, and no later group sees them. ``None``: nowhere (`DISCARD`).

        Returns:
            How many were there.

        Raises:
            NotFoundError: the group does not exist any more. Nothing was removed.
        """
        raise NotImplementedError

    remove_async = in_thread(remove)

    def purge(self, op: Operation, topic: str, before: datetime | None, dry_run: bool, /) -> int:
        """Remove the events of a topic for all of its groups (`PURGE`).

        Args:
            op: the operation.
            topic: of which topic.
            before: those published earlier; ``None``: all that there are.
            dry_run: only count.

        Returns:
            How many there were.
        """
        raise NotImplementedError

    purge_async = in_thread(purge)

    def seek(self, op: Operation, topic: str, group: str, to: Position, /) -> bool:
        """Move a group, with all that it holds or tries again (`SEEK`).

        Args:
            op: the operation.
            topic, group: which.
            to: ``"earliest"``, ``"latest"`` or an aware time: where a new group with this ``start`` would begin.

        Returns:
            Whether there is such a group.

        Raises:
            ConflictError: it has members that must stop first.
        """
        raise NotImplementedError

    seek_async = in_thread(seek)

    def pause(self, op: Operation, topic: str, group: str, paused: bool, /) -> bool:
        """Have the members of a group get nothing, or let them go on (`PAUSE`). It holds until it is changed, whoever comes or goes.

        Returns:
            Whether there is such a group.
        """
        raise NotImplementedError

    pause_async = in_thread(pause)

    def delete_group(self, op: Operation, topic: str, group: str, dry_run: bool, /) -> int | None:
        """Delete a group with all that it holds or tries again (`DELETE_GROUP`).

        Args:
            op: the operation.
            topic, group: which.
            dry_run: only count.

        Returns:
            How many events it had not settled; ``None``: there is no such group.

        Raises:
            ConflictError: it has members, which must stop first.
        """
        raise NotImplementedError

    delete_group_async = in_thread(delete_group)

    def delete_topic(self, op: Operation, topic: str, dry_run: bool, /) -> int | None:
        """Delete a topic with its events and its groups (`DELETE_TOPIC`).

        Args:
            op: the operation.
            topic: which.
            dry_run: only count.

        Returns:
            How many events it kept; ``None``: there is no such topic.

        Raises:
            ConflictError: a group of it has members, which must stop first.
        """
        raise NotImplementedError

    delete_topic_async = in_thread(delete_topic)
