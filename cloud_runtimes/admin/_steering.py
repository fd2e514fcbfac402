"""Steering: the methods of `AdminService` for groups and topics as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .._core.arguments import CLIENT_TIMEOUT
from .._service import error_context
from ..errors import NotFoundError
from ..pubsub.outgoing import check_topic
from ..spi.operation import Method
from ._audit import audited
from ._looking import Looking, no_group

_PAUSE: Final = Method("admin", "pause", repeatable=True)
_RESUME: Final = Method("admin", "resume", repeatable=True)
_DELETE_GROUP: Final = Method("admin", "delete_group", repeatable=True)
_DELETE_TOPIC: Final = Method("admin", "delete_topic", repeatable=True)


class Steering(Looking):
    """Pause, resume and delete groups, and delete topics."""

    @error_context(_PAUSE)
    @audited
    def pause(
        self,
        pubsub_name: str,
        topic: str,
        group: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Have the members of a group get nothing until `resume`, those that come later and after a restart too.

        Within a second no handler is called any more. Those that run go on and are acknowledged. What members hold stays theirs.

        Args:
            pubsub_name, topic, group: the component, the topic and the group.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_PAUSE, pubsub_name, topic, timeout, metadata)
        check_topic(group, "group")
        if not frame.call(op, admin.pause, topic, group, True):
            raise no_group(pubsub_name, topic, group)

    @error_context(_PAUSE)
    @audited
    async def pause_async(
        self,
        pubsub_name: str,
        topic: str,
        group: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Have the members of a group get nothing until `resume`, those that come later and after a restart too.

        Within a second no handler is called any more. Those that run go on and are acknowledged. What members hold stays theirs.

        Args:
            pubsub_name, topic, group: the component, the topic and the group.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_PAUSE, pubsub_name, topic, timeout, metadata)
        check_topic(group, "group")
        if not await frame.call_async(op, admin.pause_async, topic, group, True):
            raise no_group(pubsub_name, topic, group)

    @error_context(_RESUME)
    @audited
    def resume(
        self,
        pubsub_name: str,
        topic: str,
        group: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Let a group that was paused go on; one that was not stays as it is.

        Args:
            pubsub_name, topic, group: the component, the topic and the group.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_RESUME, pubsub_name, topic, timeout, metadata)
        check_topic(group, "group")
        if not frame.call(op, admin.pause, topic, group, False):
            raise no_group(pubsub_name, topic, group)

    @error_context(_RESUME)
    @audited
    async def resume_async(
        self,
        pubsub_name: str,
        topic: str,
        group: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Let a group that was paused go on; one that was not stays as it is.

        Args:
            pubsub_name, topic, group: the component, the topic and the group.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_RESUME, pubsub_name, topic, timeout, metadata)
        check_topic(group, "group")
        if not await frame.call_async(op, admin.pause_async, topic, group, False):
            raise no_group(pubsub_name, topic, group)

    @error_context(_DELETE_GROUP)
    @audited
    def delete_group(
        self,
        pubsub_name: str,
        topic: str,
        group: str,
        *,
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Delete a group of a topic, with all that it holds or tries again; returns how many events it had not settled. A member that subscribes later makes a new one.

        Args:
            pubsub_name, topic, group: the component, the topic and the group.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            ConflictError: it has members: stop them first.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_DELETE_GROUP, pubsub_name, topic, timeout, metadata)
        check_topic(group, "group")
        count: int | None = frame.call(op, admin.delete_group, topic, group, bool(dry_run))
        if count is None:
            raise no_group(pubsub_name, topic, group)
        return count

    @error_context(_DELETE_GROUP)
    @audited
    async def delete_group_async(
        self,
        pubsub_name: str,
        topic: str,
        group: str,
        *,
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Delete a group of a topic, with all that it holds or tries again; returns how many events it had not settled. A member that subscribes later makes a new one.

        Args:
            pubsub_name, topic, group: the component, the topic and the group.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            ConflictError: it has members: stop them first.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_DELETE_GROUP, pubsub_name, topic, timeout, metadata)
        check_topic(group, "group")
        count: int | None = await frame.call_async(op, admin.delete_group_async, topic, group, bool(dry_run))
        if count is None:
            raise no_group(pubsub_name, topic, group)
        return count

    @error_context(_DELETE_TOPIC)
    @audited
    def delete_topic(
        self,
        pubsub_name: str,
        topic: str,
        *,
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Delete a topic, with its events and its groups; returns how many events it kept. Whoever publishes later makes a new one.

        Args:
            pubsub_name, topic: the component and the topic.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the topic does not exist.
            ConflictError: a group of it has members: stop them first.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_DELETE_TOPIC, pubsub_name, topic, timeout, metadata)
        count: int | None = frame.call(op, admin.delete_topic, topic, bool(dry_run))
        if count is None:
            raise NotFoundError(f"{pubsub_name} has no topic {topic!r}: `topics` lists those that there are")
        return count

    @error_context(_DELETE_TOPIC)
    @audited
    async def delete_topic_async(
        self,
        pubsub_name: str,
        topic: str,
        *,
        dry_run: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Delete a topic, with its events and its groups; returns how many events it kept. Whoever publishes later makes a new one.

        Args:
            pubsub_name, topic: the component and the topic.
            dry_run: only count.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the topic does not exist.
            ConflictError: a group of it has members: stop them first.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_DELETE_TOPIC, pubsub_name, topic, timeout, metadata)
        count: int | None = await frame.call_async(op, admin.delete_topic_async, topic, bool(dry_run))
        if count is None:
            raise NotFoundError(f"{pubsub_name} has no topic {topic!r}: `topics` lists those that there are")
        return count
