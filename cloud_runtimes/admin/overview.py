"""The overview: what is wrong anywhere, asked of all components at once, each for a limited time."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

from .._core.workers import Workers
from .._service import ServiceFrame
from ..errors import CloudRuntimesError, DeadlineExceededError
from ..spi import lock, pubsub, schedule
from ..spi.admin import GroupInfo, TopicInfo
from ..spi.component import Runtime
from ..spi.inventory import JobInfo, LockInfo
from ..spi.operation import Method, Operation

T = TypeVar("T")
OVERVIEW: Final = Method("admin", "overview", repeatable=True, writes=False)
PATIENCE: Final = 5.0
"""Seconds that all components have together."""
_AT_ONCE: Final = 64
"""Questions under way: a component that hangs keeps a thread until the end."""
_MOST: Final = 10_000
"""Topics, jobs or locks that one component is asked for."""
_NAMED: Final = 1000
"""Topics whose names are looked at for dead letters."""
_FEW: Final = 20
"""Dead-letter topics that are asked for one by one."""
_DEAD: Final = re.compile(r"(?:^|[._-])(?:dead(?:[._-]?letters?)?|dlq|dlt)(?:[._-]|$)", re.IGNORECASE)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """A component that is configured, or a home.

    Attributes:
        service, name: that it has; empty: a home, for all services or any name.
        component: which one it is; ``""``: it is not known.
        error: why it does not answer; ``None``: it does.
    """

    service: str
    name: str
    component: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """A group of a topic and what it has not settled.

    Attributes:
        pubsub_name: the component.
        group: with lag and the oldest event.
    """

    pubsub_name: str
    group: GroupInfo


@dataclass(frozen=True, slots=True)
class DeadTopic:
    """A dead-letter topic that has events.

    Attributes:
        pubsub_name: the component.
        topic: with the count.
    """

    pubsub_name: str
    topic: TopicInfo


@dataclass(frozen=True, slots=True)
class StuckLock:
    """A lock that has expired, and others wait for it.

    Attributes:
        store_name: the component.
        lock: with how many wait.
    """

    store_name: str
    lock: LockInfo


@dataclass(frozen=True, slots=True)
class Overview:
    """State of all components, the worst first.

    Attributes:
        components: those that do not answer first.
        groups: by the age of the oldest event that they have not settled, then by their lag.
        dead_letters: by how many there are.
        jobs: that failed when they ran last, by how often in a row.
        locks: that have expired while others wait.
        omitted: how many lines more there are, beyond the limit.
    """

    components: tuple[ComponentStatus, ...]
    groups: tuple[Backlog, ...]
    dead_letters: tuple[DeadTopic, ...]
    jobs: tuple[JobInfo, ...]
    locks: tuple[StuckLock, ...]
    omitted: int


@dataclass(slots=True)
class Survey:
    """Questions to all components of a client.

    Attributes:
        frame_of: returns the frame of a service.
        runtime: with the components.
        dead: names of dead-letter topics beside those that groups and declared subscriptions have.
        seconds: that all questions have.
    """

    frame_of: Callable[[str], ServiceFrame]
    runtime: Runtime
    dead: Collection[str]
    seconds: float
    _end: float = 0.0
    _workers: Workers = field(default_factory=lambda: Workers("cloud-runtimes-overview", _AT_ONCE))
    _errors: dict[tuple[str, str], str] = field(default_factory=dict)

    def run(self, limit: int) -> Overview:
        """Ask, and return ``limit`` lines of each kind at most."""
        self._end = monotonic() + self.seconds
        try:
            checks = [(service, name, self._ask(check)) for service, name, check in self.runtime.checks()]
            jobs = self._ask(self._jobs)
            locks, groups = self._of_names("lock", self._locks), self._of_names("pubsub", self._groups)
            failed = [job for found in self._found("schedule", "", jobs) for job in found]
            stuck = [each for found in self._all("lock", locks) for each in found]
            buses = list(self._all("pubsub", groups))
            statuses = self._statuses(checks)
        finally:
            self._workers.close()
        backlogs = [each for found, _ in buses for each in found]
        dead = [each for _, found in buses for each in found]
        return _sorted(statuses, backlogs, dead, failed, stuck, limit)

    # -- questions ----------------------------------------------------------

    def _ask(self, question: Callable[[], T]) -> Future[T]:
        return self._workers.submit(question)

    def _operation(self, name: str) -> Operation:
        return Operation(OVERVIEW, name, max(0.001, self._end - monotonic()))

    def _of_names(
        self, service: str, question: Callable[[ServiceFrame, str], T]
    ) -> Future[list[tuple[str, Future[T]]]]:
        def names() -> list[tuple[str, Future[T]]]:
            found = self.runtime.names(self._operation(service), service)
            return [(name, self._ask(partial(question, self.frame_of(service), name))) for name in found]

        return self._ask(names)

    def _jobs(self) -> Sequence[JobInfo]:
        frame = self.frame_of("schedule")
        name = frame.only()
        driver = _driver(frame, name, schedule.JOBS)
        jobs = frame.call(self._operation(name), driver.jobs, "", _MOST) if driver is not None else ()
        return [job for job in jobs if job.failed or job.last_error]

    def _locks(self, frame: ServiceFrame, name: str) -> Sequence[StuckLock]:
        driver = _driver(frame, name, lock.LOCKS)
        locks = frame.call(self._operation(name), driver.locks, "", _MOST) if driver is not None else ()
        return [StuckLock(name, each) for each in locks if each.owner is None]

    def _groups(self, frame: ServiceFrame, name: str) -> tuple[list[Backlog], list[DeadTopic]]:
        driver = _driver(frame, name, pubsub.GROUPS)
        if driver is None:
            return [], []
        admin = driver.admin()
        admin.executor = driver.executor
        groups = frame.call(self._operation(name), admin.backlogs, _MOST)
        dead = {*self.dead, *(each.dead_letter_topic for each in groups)}
        dead |= {each.request.dead_letter_topic for (bus, *_), each in frame.handlers.items() if bus == name}
        letters: dict[str, TopicInfo] = {}
        if pubsub.TOPICS in driver.features:
            if not any(each.dead_letter_topic for each in groups):  # its groups do not tell, so the name must
                dead |= set(filter(_DEAD.search, frame.call(self._operation(name), admin.names, _NAMED)))
            dead.discard(None)
            for prefix, most in [("", _MOST)] if len(dead) > _FEW else [(str(topic), 1) for topic in dead]:
                found = frame.call(self._operation(name), admin.topics, prefix, most)
                letters |= {each.name: each for each in found if each.name in dead}
        return [Backlog(name, group) for group in groups], [
            DeadTopic(name, each) for each in letters.values() if each.events != 0
        ]

    # -- answers ------------------------------------------------------------

    def _found(self, service: str, name: str, answer: Future[T]) -> list[T]:
        """Return an answer, or none: what fails is an error of its component."""
        try:
            return [answer.result(max(0.0, self._end - monotonic()))]
        except TimeoutError:
            error: Exception = DeadlineExceededError(f"it does not answer within {self.seconds:.1f} s")
        except CloudRuntimesError as failure:
            error = failure
        self._errors.setdefault((service, name), str(error))
        return []

    def _all(self, service: str, named: Future[list[tuple[str, Future[T]]]]) -> Iterator[T]:
        for names in self._found(service, "", named):
            for name, answer in names:
                yield from self._found(service, name, answer)

    def _statuses(self, checks: Iterable[tuple[str, str, Future[None]]]) -> list[ComponentStatus]:
        places = []
        for service, name, answer in checks:
            self._found(service, name, answer)
            places.append((service, name))
        errors = self._errors
        # a home that is away is one line, whatever was asked of it
        away = {service for service, name in places if not name and (service, name) in errors}
        others = [each for each in errors if each[1] or not away & {each[0], ""}]
        return [
            ComponentStatus(service, name, self._component(service, name), errors.get((service, name)))
            for service, name in dict.fromkeys([*places, *others])
        ]

    def _component(self, service: str, name: str) -> str:
        try:
            return self.runtime.vendor(service, name) if service and name else ""
        except CloudRuntimesError:  # its settings are wrong
            return ""


def _driver(frame: ServiceFrame, name: str, feature: str) -> Any:
    """Return the driver of a name; ``None``: it does not tell."""
    try:
        driver = frame.driver(name)
    except CloudRuntimesError:  # which the component's own check tells
        return None
    return driver if feature in driver.features else None


def _sorted(
    statuses: list[ComponentStatus],
    groups: list[Backlog],
    dead: list[DeadTopic],
    jobs: list[JobInfo],
    locks: list[StuckLock],
    limit: int,
) -> Overview:
    statuses.sort(key=lambda each: (each.error is None, each.service, each.name))
    groups.sort(key=lambda each: (each.group.oldest or _NEVER, -(each.group.lag or 0), each.group.topic))
    dead.sort(key=lambda each: -(each.topic.events or 0))
    jobs.sort(key=lambda job: -job.failed)
    locks.sort(key=lambda each: -(each.lock.waiting or 0))
    omitted = sum(max(0, len(each) - limit) for each in (statuses, groups, dead, jobs, locks))
    shown = tuple(statuses[:limit]), tuple(groups[:limit]), tuple(dead[:limit]), tuple(jobs[:limit])
    return Overview(*shown, tuple(locks[:limit]), omitted)
