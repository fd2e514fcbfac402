"""Contents of services as OpenMetrics 1.0: lag and age of groups, dead letters, jobs, locks, services, spools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .operations import Operations

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Family:
    """Samples of one gauge."""

    def __init__(self, name: str, help: str, unit: str = "") -> None:
        self.name = f"cloud_runtimes_{name}"
        self._help = help
        self._unit = unit
        self._samples: list[str] = []

    def add(self, value: float | None, **labels: str | None) -> None:
        """Add a sample; ``None`` is not known, and left out."""
        if value is None:
            return
        known = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items() if text)
        self._samples.append(
            f"{self.name}{{{known}}} {value:d}" if isinstance(value, int) else f"{self.name}{{{known}}} {value!r}"
        )

    def lines(self) -> Iterable[str]:
        """Yield what a scraper reads."""
        if self._samples:
            yield f"# TYPE {self.name} gauge"
            if self._unit:
                yield f"# UNIT {self.name} {self._unit}"
            yield f"# HELP {self.name} {self._help}"
            yield from self._samples


def exposition(operations: Operations) -> bytes:
    """Return all metrics. A component that is away is a sample, and no error."""
    found, now = operations.backlogs(), datetime.now(UTC)
    up = Family("component_up", "Whether a component answers.")
    lag = Family("group_lag_events", "Events that a group has not settled.", "events")
    age = Family("group_oldest_seconds", "Age of the oldest event that a group has not settled.", "seconds")
    held = Family("group_in_flight_events", "Events that members of a group hold.", "events")
    members = Family("group_members", "Members of a group.")
    paused = Family("group_paused", "Whether a group is paused.")
    dead = Family("dead_letter_events", "Events of a dead-letter topic.", "events")
    failed = Family("job_failed_runs", "Runs of a job that failed since one succeeded.", "runs")
    waiting = Family("lock_waiting", "Callers that wait for a lock that has expired.")
    instances = Family("service_instances", "Instances of an application that can be called.")
    for component in found.components:
        up.add(component.error is None, service=component.service, component=component.name)
    for each in found.groups:
        group = each.group
        labels: Mapping[str, str] = {"component": each.pubsub_name, "topic": group.topic, "group": group.name}
        lag.add(group.lag, **labels)
        age.add(None if group.oldest is None else max(0.0, (now - group.oldest).total_seconds()), **labels)
        held.add(group.in_flight, **labels)
        members.add(None if group.members is None else len(group.members), **labels)
        paused.add(group.paused, **labels)
    for letters in found.dead_letters:
        dead.add(letters.topic.events, component=letters.pubsub_name, topic=letters.topic.name)
    for job in found.jobs:
        failed.add(job.failed, job=job.name, application=job.app_id)
    for stuck in found.locks:
        waiting.add(stuck.lock.waiting, component=stuck.store_name, lock=stuck.lock.resource_id)
    for service in operations.services():
        instances.add(len(service.instances), application=service.app_id)
    families = (up, lag, age, held, members, paused, dead, failed, waiting, instances)
    return "".join(f"{line}\n" for family in families for line in [*family.lines()]).encode() + b"# EOF\n"
