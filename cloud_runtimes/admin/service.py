"""`AdminService`: what ``client.admin`` is. What it shows is in `_looking`, what concerns groups as a whole in `_steering`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from .._core.arguments import CLIENT_TIMEOUT
from .._service import error_context
from ..errors import InvalidArgumentError
from ..pubsub.outgoing import check_start, check_topic
from ..spi.admin import Position, Target
from ..spi.operation import Method
from ..spi.pubsub import Delivery
from ._audit import audited
from ._looking import check_limit, no_group, run, run_async
from ._steering import Steering
from ._surveying import Surveying
from .types import Asks, Redriven, Save, purge_topic, remove_letters, selecting

__all__ = ["AdminService"]

_REDRIVE: Final = Method("admin", "redrive", repeatable=True)
_DISCARD: Final = Method("admin", "discard", repeatable=True)
_PURGE: Final = Method("admin", "purge", repeatable=True)
_SEEK: Final = Method("admin", "seek", repeatable=True)


class AdminService(Steering, Surveying):
    """See what services hold, and mend it. It is no service of its own: the components of the services answer.

    What a component cannot tell is ``None``. What it cannot do raises `UnsupportedError` before any I/O, and ``client.supports("admin.peek", "bus")`` says so.
    """

    name = "admin"

    @error_context(_REDRIVE)
    @audited
    def redrive(
        self,
        pubsub_name: str,
        topic: str,
        *,
        group: str | None = None,
        reason: str | None = None,
        error: str | None = None,
        ids: Collection[str] | None = None,
        limit: int | None = None,
        to: Target = "group",
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Redriven:
        """Send dead letters back, and remove them from their topic for all of its groups, in one commit.

        They are the events that they were: without the extensions of a dead letter, under their ids. It handles no more than there are when it begins, in pages. A process that crashes meanwhile neither loses nor doubles one, and neither do two at once.

        Args:
            pubsub_name, topic: the component and the dead-letter topic.
            group, reason, error: only those of this group, this reason and this type of error, as `dead_letters` names them.
            ids: only events with these ids.
            limit: how many at most.
            to: ``"group"``: to the group that failed alone, with a fresh delivery count; other groups never see them. ``"topic"``: to all groups of the topic that it got them from.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: their group does not exist any more.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_REDRIVE, pubsub_name, topic, timeout, metadata)
        steps = _removing(topic, group, reason, error, ids, limit, _check_to(to), dry_run)
        return run(frame, op, admin, steps)

    @error_context(_REDRIVE)
    @audited
    async def redrive_async(
        self,
        pubsub_name: str,
        topic: str,
        *,
        group: str | None = None,
        reason: str | None = None,
        error: str | None = None,
        ids: Collection[str] | None = None,
        limit: int | None = None,
        to: Target = "group",
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Redriven:
        """Send dead letters back, and remove them from their topic for all of its groups, in one commit.

        They are the events that they were: without the extensions of a dead letter, under their ids. It handles no more than there are when it begins, in pages. A process that crashes meanwhile neither loses nor doubles one, and neither do two at once.

        Args:
            pubsub_name, topic: the component and the dead-letter topic.
            group, reason, error: only those of this group, this reason and this type of error, as `dead_letters` names them.
            ids: only events with these ids.
            limit: how many at most.
            to: ``"group"``: to the group that failed alone, with a fresh delivery count; other groups never see them. ``"topic"``: to all groups of the topic that it got them from.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: their group does not exist any more.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_REDRIVE, pubsub_name, topic, timeout, metadata)
        steps = _removing(topic, group, reason, error, ids, limit, _check_to(to), dry_run)
        return await run_async(frame, op, admin, steps)

    @error_context(_DISCARD)
    @audited
    def discard(
        self,
        pubsub_name: str,
        topic: str,
        *,
        group: str | None = None,
        reason: str | None = None,
        error: str | None = None,
        ids: Collection[str] | None = None,
        limit: int | None = None,
        undo: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Remove dead letters for good, for all groups of their topic; returns how many.

        Args:
            pubsub_name, topic: the component and the dead-letter topic.
            group, reason, error, ids, limit: which of them, as in `redrive`.
            undo: file that gets the events before they are removed, a line of CloudEvents JSON each; ``cloud-runtimes restore`` publishes them again.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            InvalidArgumentError: an argument is wrong, or the file cannot be written.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_DISCARD, pubsub_name, topic, timeout, metadata)
        steps = _removing(topic, group, reason, error, ids, limit, None, dry_run, undo)
        return run(frame, op, admin, steps).count

    @error_context(_DISCARD)
    @audited
    async def discard_async(
        self,
        pubsub_name: str,
        topic: str,
        *,
        group: str | None = None,
        reason: str | None = None,
        error: str | None = None,
        ids: Collection[str] | None = None,
        limit: int | None = None,
        undo: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Remove dead letters for good, for all groups of their topic; returns how many.

        Args:
            pubsub_name, topic: the component and the dead-letter topic.
            group, reason, error, ids, limit: which of them, as in `redrive`.
            undo: file that gets the events before they are removed, a line of CloudEvents JSON each; ``cloud-runtimes restore`` publishes them again.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            InvalidArgumentError: an argument is wrong, or the file cannot be written.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_DISCARD, pubsub_name, topic, timeout, metadata)
        steps = _removing(topic, group, reason, error, ids, limit, None, dry_run, undo)
        return (await run_async(frame, op, admin, steps)).count

    @error_context(_PURGE)
    @audited
    def purge(
        self,
        pubsub_name: str,
        topic: str,
        *,
        before: datetime | None = None,
        undo: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Remove the events of a topic for good, for all of its groups; returns how many there were. Events that are published later by ``delay`` stay.

        Args:
            pubsub_name, topic: the component and the topic.
            before: only events published before this time; ``None``: all that there are.
            undo: file that gets the events before they are removed, a line of CloudEvents JSON each; ``cloud-runtimes restore`` publishes them again.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            InvalidArgumentError: an argument is wrong, or the file cannot be written.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_PURGE, pubsub_name, topic, timeout, metadata)
        return run(frame, op, admin, purge_topic(topic, _check_before(before), bool(dry_run), _saving(undo)))

    @error_context(_PURGE)
    @audited
    async def purge_async(
        self,
        pubsub_name: str,
        topic: str,
        *,
        before: datetime | None = None,
        undo: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Remove the events of a topic for good, for all of its groups; returns how many there were. Events that are published later by ``delay`` stay.

        Args:
            pubsub_name, topic: the component and the topic.
            before: only events published before this time; ``None``: all that there are.
            undo: file that gets the events before they are removed, a line of CloudEvents JSON each; ``cloud-runtimes restore`` publishes them again.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            InvalidArgumentError: an argument is wrong, or the file cannot be written.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_PURGE, pubsub_name, topic, timeout, metadata)
        return await run_async(
            frame, op, admin, purge_topic(topic, _check_before(before), bool(dry_run), _saving(undo))
        )

    @error_context(_SEEK)
    @audited
    def seek(
        self,
        pubsub_name: str,
        topic: str,
        group: str,
        to: datetime | Literal["earliest", "latest"],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Move a group to another place of its topic: it gets what was published since, whatever it has settled, and nothing of before.

        What its members hold at that moment is not settled by their answers any more. Redriven events stay.

        Args:
            pubsub_name, topic, group: the component, the topic and the group.
            to: ``"earliest"``: all that is kept; ``"latest"``: what is published from now on; a time: what was published since.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            ConflictError: it has members that must stop first.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_SEEK, pubsub_name, topic, timeout, metadata)
        check_topic(group, "group")
        if not frame.call(op, admin.seek, topic, group, _check_place(to)):
            raise no_group(pubsub_name, topic, group)

    @error_context(_SEEK)
    @audited
    async def seek_async(
        self,
        pubsub_name: str,
        topic: str,
        group: str,
        to: datetime | Literal["earliest", "latest"],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Move a group to another place of its topic: it gets what was published since, whatever it has settled, and nothing of before.

        What its members hold at that moment is not settled by their answers any more. Redriven events stay.

        Args:
            pubsub_name, topic, group: the component, the topic and the group.
            to: ``"earliest"``: all that is kept; ``"latest"``: what is published from now on; a time: what was published since.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            ConflictError: it has members that must stop first.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_SEEK, pubsub_name, topic, timeout, metadata)
        check_topic(group, "group")
        if not await frame.call_async(op, admin.seek_async, topic, group, _check_place(to)):
            raise no_group(pubsub_name, topic, group)


def _check_before(before: Any) -> datetime | None:
    if before is None:
        return None
    if not isinstance(before, datetime) or before.utcoffset() is None:
        raise InvalidArgumentError(f"before {before!r}: give a datetime with a time zone, or None")
    return before


def _check_place(to: Any) -> Position:
    check_start(to)
    if to is None:
        raise InvalidArgumentError("to must be 'earliest', 'latest' or a datetime with a time zone, got None")
    return to


def _check_to(to: Any) -> Target:
    if to not in ("group", "topic"):
        raise InvalidArgumentError(f'to must be "group" or "topic", got {to!r}')
    target: Target = to
    return target


def _removing(
    topic: str,
    group: Any,
    reason: Any,
    error: Any,
    ids: Any,
    limit: Any,
    to: Target | None,
    dry_run: bool,
    undo: str | os.PathLike[str] | None = None,
) -> Asks[Redriven]:
    """Check the selectors; return what removes those dead letters."""
    for name, text in (("group", group), ("reason", reason), ("error", error)):
        if text is not None and not isinstance(text, str):
            raise InvalidArgumentError(f"{name} must be text, got {text!r}")
    if isinstance(ids, str | bytes):
        raise InvalidArgumentError("ids must be a list of ids, not text")
    selects = selecting(group, reason, error, None if ids is None else frozenset(ids))
    most = None if limit is None else check_limit(limit)
    return remove_letters(topic, selects, most, to, dry_run, _saving(undo))


def _saving(path: str | os.PathLike[str] | None) -> Save | None:
    """Return what appends events to a file; it returns once they are on the disk."""
    if path is None:
        return None

    def save(deliveries: Sequence[Delivery]) -> None:
        lines = [each.record.to_json().replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" for each in deliveries]
        try:
            with open(path, "ab") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InvalidArgumentError(
                f"undo {os.fspath(path)!r}: {error.strerror}; nothing of it was removed"
            ) from error

    return save
