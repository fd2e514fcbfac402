"""``client.admin`` on RabbitMQ with its management interface: topics and groups are listed, and can be purged and deleted as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from ...errors import UnsupportedError
from ...spi.admin import GroupInfo, MemberInfo, TopicInfo
from ...spi.operation import Operation
from .admin import RabbitmqAdmin
from .management import Counts
from .topology import QUEUES, quoted

if TYPE_CHECKING:
    from .management import Management
    from .pubsub import RabbitmqPubSub

_MEMBERS: Final = "members"
_Parts: TypeAlias = dict[str, Counts]
"""Counts of the queues of a group, by `Topology.part`."""
_NOTHING: Final[_Parts] = {}


class ManagedAdmin(RabbitmqAdmin):
    """See the module. What waits for a retry of its group waits with that of others, and is not counted."""

    def __init__(self, driver: RabbitmqPubSub, management: Management) -> None:
        super().__init__(driver)
        self._management = management

    # -- topics and groups ------------------------------------------------

    def topics(self, op: Operation, prefix: str, limit: int, /) -> Sequence[TopicInfo]:
        queues = self._queues(op, quoted(prefix))
        groups: dict[str, list[GroupInfo]] = {}
        for (topic, name), parts in _groups(queues).items():
            groups.setdefault(topic, []).append(self._info(topic, name, parts, None))
        found = []
        for name in self._names(op, prefix)[:limit]:
            of = groups.get(name, ())
            # an event of a queue is kept until its group has settled it
            events: int | None = max((each.lag for each in of if each.lag is not None), default=0)
            if self._topology.streams:
                events = queues.get((name, ""), _NOTHING).get("stream", Counts(None, None)).messages
            found.append(TopicInfo(name, events, groups=len(of)))
        return found

    def names(self, op: Operation, limit: int, /) -> Sequence[str]:
        return self._names(op, "")[:limit]

    def groups(self, op: Operation, topic: str, /) -> Sequence[GroupInfo]:
        consumers = self._management.run(op, self._management.consumers())
        found = self._found(op, topic)
        if consumers is None:
            return found
        members: dict[str, list[MemberInfo]] = {}
        for queue, connection, host in consumers:
            members.setdefault(queue, []).append(MemberInfo(connection, host))
        topology = self._topology
        queues = [
            topology.part(topic, each.name, _MEMBERS) if each.order else topology.queue(topic, each.name)
            for each in found
        ]
        return [replace(each, members=tuple(members.get(queue, ()))) for each, queue in zip(found, queues, strict=True)]

    def backlogs(self, op: Operation, limit: int, /) -> Sequence[GroupInfo]:
        return self._found(op, None)

    def _names(self, op: Operation, prefix: str) -> list[str]:
        topology = self._topology
        exchanges = self._management.run(op, self._management.exchanges(f"{topology.prefix}{prefix}"))
        return [topic for exchange in exchanges if (topic := topology.topic_of(exchange)) is not None]

    def _queues(self, op: Operation, begin: str) -> dict[tuple[str, str], _Parts]:
        """Return what queues hold, by topic and group, and by the part of the group that a queue is."""
        topology = self._topology
        found: dict[tuple[str, str], _Parts] = {}
        queues = self._management.queues(f"{topology.prefix}{begin}", streams=topology.streams)
        for name, counts in self._management.run(op, queues).items():
            if (of := topology.group_of(name)) is not None:
                topic, group, part = of
                found.setdefault((topic, group), {})[part] = counts
        return found

    def _found(self, op: Operation, only: str | None) -> list[GroupInfo]:
        """Return the groups of a topic, ``None``: of all."""
        begin = "" if only is None else f"{quoted(only)}:"
        paused = self._management.run(op, self._management.keys(self._topology.paused))
        return [
            self._info(topic, name, parts, self._topology.queue(topic, name) in paused)
            for (topic, name), parts in sorted(_groups(self._queues(op, begin)).items())
        ]

    @staticmethod
    def _info(topic: str, name: str, parts: _Parts, paused: bool | None) -> GroupInfo:
        counts = [parts[part] for part in (QUEUES if _MEMBERS in parts else ("",)) if part in parts]
        held = sum(each.held or 0 for each in counts)
        # a group that is still given what was there before it has that before it too
        lag = None if "replay" in parts else sum(each.messages or 0 for each in counts)
        return GroupInfo(topic, name, lag, None, held, None, paused=paused, order="key" if _MEMBERS in parts else "")

    # -- mending ----------------------------------------------------------

    def purge(self, op: Operation, topic: str, before: datetime | None, dry_run: bool, /) -> int:
        if before is not None:
            raise UnsupportedError(
                f"rabbitmq {self._engine.where}: a queue does not show when its events were published: purge all of them"
            )
        waiting = [*self._delays(op, topic)]
        for (_, group), parts in _groups(self._queues(op, f"{quoted(topic)}:")).items():
            waiting += self._topology.group(topic, group, _MEMBERS in parts)
        if dry_run:
            return int(self._engine.run(op, self._topology.use(waiting))[0])
        return self._engine.run(op, self._topology.purge(waiting))

    def delete_topic(self, op: Operation, topic: str, dry_run: bool, /) -> int | None:
        if topic not in self._names(op, topic):
            return None
        run, topology = self._engine.run, self._topology
        found = _groups(self._queues(op, f"{quoted(topic)}:"))
        groups = [(group, _MEMBERS in parts) for (_, group), parts in found.items()]
        events = sum(self._unused(op, topic, group, ordered) for group, ordered in groups)
        if topology.streams:
            events = sum(each.events or 0 for each in self.topics(op, topic, 1) if each.name == topic)
        if not dry_run:
            for group, ordered in groups:
                run(op, topology.delete(topic, group, ordered))
            run(op, topology.delete_topic(topic, self._delays(op, topic)))
        return events

    def _delays(self, op: Operation, topic: str) -> list[str]:
        """Return where delayed events of a topic wait: queues, and the exchanges of the same names."""
        names = self._management.run(op, self._management.exchanges(f"{self._topology.exchange(topic)}:delay:"))
        return [name for name in names if self._topology.topic_of(name) is None]


def _groups(queues: Mapping[tuple[str, str], _Parts]) -> dict[tuple[str, str], _Parts]:
    """Return the groups among what has queues."""
    return {of: parts for of, parts in queues.items() if of[1] and ("" in parts or _MEMBERS in parts)}
