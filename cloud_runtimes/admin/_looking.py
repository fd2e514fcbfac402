"""Looking: the methods of `AdminService` that leave everything as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.notebook import Listing
from .._service import ServiceFrame, error_context
from ..errors import InvalidArgumentError, NotFoundError
from ..pubsub import Event
from ..pubsub.outgoing import check_start, check_topic
from ..pubsub.service import Start
from ..spi.admin import FEATURES, GroupInfo, Position, PubSubAdmin, TopicInfo
from ..spi.operation import Method, Operation
from ..spi.pubsub import Delivery
from ._audit import Audited
from .types import Asks, DeadLetters, collect, group_letters, peeked

T = TypeVar("T")

_TOPICS: Final = Method("admin", "topics", repeatable=True, writes=False)
_GROUPS: Final = Method("admin", "groups", repeatable=True, writes=False)
_PEEK: Final = Method("admin", "peek", repeatable=True, writes=False)
_DEAD_LETTERS: Final = Method("admin", "dead_letters", repeatable=True, writes=False)


class Looking(Audited):
    """See what services hold."""

    def _asking(
        self, method: Method, pubsub_name: str, topic: str | None, timeout: float | None, metadata: Any
    ) -> tuple[ServiceFrame, Operation, PubSubAdmin]:
        """Return the frame whose driver answers, the operation, and what shows the topics."""
        frame, op, driver = self._operation(method, pubsub_name, timeout, metadata)
        if topic is not None:
            check_topic(topic)
        admin: PubSubAdmin = driver.admin()
        admin.executor = driver.executor
        return frame, op, admin

    def _service_of(self, method: Method) -> ServiceFrame:
        """Return the frame of the service that answers."""
        return self._frame.context.frame(FEATURES[method.name][0])

    def _operation(
        self, method: Method, name: str, timeout: float | None, metadata: Any
    ) -> tuple[ServiceFrame, Operation, Any]:
        """Return the frame whose driver answers, the operation, and the driver."""
        frame = self._service_of(method)
        driver = frame.drivers.get(name) or frame.driver(name)
        self._frame.runtime_name = frame.runtime_name  # for errors of arguments
        check_metadata(metadata)
        limit = frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        frame.need(driver, FEATURES[method.name][1], str(method), name)
        return frame, Operation(method, name, limit, metadata), driver

    @error_context(_TOPICS)
    def topics(
        self,
        pubsub_name: str,
        *,
        prefix: str = "",
        limit: int = 1000,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[TopicInfo]:
        """Return the topics of a pub/sub name, in the order of their names.

        Args:
            pubsub_name: the component.
            prefix: of their names.
            limit: how many at most.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            UnsupportedError: the component cannot tell.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            PermissionDeniedError: the account must not look.
            UnavailableError, DeadlineExceededError: the broker cannot be reached, or does not answer within ``timeout``.
        """
        frame, op, admin = self._asking(_TOPICS, pubsub_name, None, timeout, metadata)
        return Listing(frame.call(op, admin.topics, _check_prefix(prefix), check_limit(limit)))

    @error_context(_TOPICS)
    async def topics_async(
        self,
        pubsub_name: str,
        *,
        prefix: str = "",
        limit: int = 1000,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[TopicInfo]:
        """Return the topics of a pub/sub name, in the order of their names.

        Args:
            pubsub_name: the component.
            prefix: of their names.
            limit: how many at most.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            UnsupportedError: the component cannot tell.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            PermissionDeniedError: the account must not look.
            UnavailableError, DeadlineExceededError: the broker cannot be reached, or does not answer within ``timeout``.
        """
        frame, op, admin = self._asking(_TOPICS, pubsub_name, None, timeout, metadata)
        return Listing(await frame.call_async(op, admin.topics_async, _check_prefix(prefix), check_limit(limit)))

    @error_context(_GROUPS)
    def groups(
        self,
        pubsub_name: str,
        topic: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[GroupInfo]:
        """Return the groups of a topic, in the order of their names.

        Args:
            pubsub_name, topic: the component and the topic.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the component cannot tell.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_GROUPS, pubsub_name, topic, timeout, metadata)
        return Listing(frame.call(op, admin.groups, topic))

    @error_context(_GROUPS)
    async def groups_async(
        self,
        pubsub_name: str,
        topic: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[GroupInfo]:
        """Return the groups of a topic, in the order of their names.

        Args:
            pubsub_name, topic: the component and the topic.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the component cannot tell.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_GROUPS, pubsub_name, topic, timeout, metadata)
        return Listing(await frame.call_async(op, admin.groups_async, topic))

    @error_context(_PEEK)
    def peek(
        self,
        pubsub_name: str,
        topic: str,
        *,
        group: str | None = None,
        start: Start = "earliest",
        limit: int = 20,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Event[Any]]:
        """Return events of a topic and leave everything as it is: no group moves, no delivery is counted.

        Nothing waits for an answer to these events. Their ``delivery_count`` is how often the group got them so far.

        Args:
            pubsub_name, topic: the component and the topic.
            group: those that this group has not settled, also what its members hold and what comes again later; ``None``: all that is kept.
            start: where to begin without a group: ``"latest"`` are the last ``limit`` events, a time those published since.
            limit: how many at most.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            UnsupportedError: the component cannot show its events without a trace.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_PEEK, pubsub_name, topic, timeout, metadata)
        steps = collect(topic, _check_start(group, start), check_limit(limit), group)
        return _found(run(frame, op, admin, steps), pubsub_name, topic, group)

    @error_context(_PEEK)
    async def peek_async(
        self,
        pubsub_name: str,
        topic: str,
        *,
        group: str | None = None,
        start: Start = "earliest",
        limit: int = 20,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Event[Any]]:
        """Return events of a topic and leave everything as it is: no group moves, no delivery is counted.

        Nothing waits for an answer to these events. Their ``delivery_count`` is how often the group got them so far.

        Args:
            pubsub_name, topic: the component and the topic.
            group: those that this group has not settled, also what its members hold and what comes again later; ``None``: all that is kept.
            start: where to begin without a group: ``"latest"`` are the last ``limit`` events, a time those published since.
            limit: how many at most.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: the group does not exist.
            UnsupportedError: the component cannot show its events without a trace.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_PEEK, pubsub_name, topic, timeout, metadata)
        steps = collect(topic, _check_start(group, start), check_limit(limit), group)
        return _found(await run_async(frame, op, admin, steps), pubsub_name, topic, group)

    @error_context(_DEAD_LETTERS)
    def dead_letters(
        self,
        pubsub_name: str,
        topic: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[DeadLetters]:
        """Return the events of a dead-letter topic, grouped by the group that failed, the reason and the type of the error; the largest first.

        It reads the whole topic, in pages.

        Args:
            pubsub_name, topic: the component and the dead-letter topic.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the component cannot show its events without a trace.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_DEAD_LETTERS, pubsub_name, topic, timeout, metadata)
        return run(frame, op, admin, group_letters(pubsub_name, topic))

    @error_context(_DEAD_LETTERS)
    async def dead_letters_async(
        self,
        pubsub_name: str,
        topic: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[DeadLetters]:
        """Return the events of a dead-letter topic, grouped by the group that failed, the reason and the type of the error; the largest first.

        It reads the whole topic, in pages.

        Args:
            pubsub_name, topic: the component and the dead-letter topic.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the component cannot show its events without a trace.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, admin = self._asking(_DEAD_LETTERS, pubsub_name, topic, timeout, metadata)
        return await run_async(frame, op, admin, group_letters(pubsub_name, topic))


def _check_prefix(prefix: Any) -> str:
    return check_topic(prefix, "prefix") if prefix else ""


def check_limit(limit: Any) -> int:
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 1_000_000:
        raise InvalidArgumentError(f"limit must be a whole number from 1 to 1,000,000, got {limit!r}")
    return limit


def _check_start(group: Any, start: Any) -> Position:
    check_start(start)
    if group is not None and start not in ("earliest", None):
        raise InvalidArgumentError("give start= or group=: a group's events begin where it stands")
    if group is not None:
        check_topic(group, "group")
    return start or "earliest"


def run(frame: ServiceFrame, op: Operation, admin: PubSubAdmin, steps: Asks[T]) -> T:
    """Do what some steps ask for."""
    ask = next(steps)
    while True:
        method, *arguments = ask
        answer = frame.call(op.following(), getattr(admin, method), *arguments)
        try:
            ask = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result


async def run_async(frame: ServiceFrame, op: Operation, admin: PubSubAdmin, steps: Asks[T]) -> T:
    """Asynchronous `run`."""
    ask = next(steps)
    while True:
        method, *arguments = ask
        answer = await frame.call_async(op.following(), getattr(admin, f"{method}_async"), *arguments)
        try:
            ask = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result


def no_group(pubsub_name: str, topic: str, group: str | None) -> NotFoundError:
    """Return the error of a group that does not exist."""
    return NotFoundError(
        f"{pubsub_name}/{topic} has no group {group!r}: a group exists once it has subscribed; check the names"
    )


def _found(deliveries: Sequence[Delivery] | None, pubsub_name: str, topic: str, group: str | None) -> list[Event[Any]]:
    if deliveries is None:
        raise no_group(pubsub_name, topic, group)
    return Listing(peeked(pubsub_name, deliveries, counted=group is not None))
