"""State, configuration and jobs on Redis as records that move to another home and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ...errors import UnsupportedError
from ...spi.operation import Operation
from ...spi.portable import JobRecord, Portable, Records
from .._copy.stores import KeyedPortable, StoredConfiguration, StoredState
from . import RedisComponent
from .configuration import RedisConfiguration
from .scanning import names_of
from .schedule import RedisSchedule
from .state import RedisState

_TOKENS: Final = 1_000_000
"""Of locks in a second: their tokens are microseconds."""
_KEYS: Final = {
    "configuration": (b"*}:names", re.compile(rb"(.*)}:names", re.DOTALL)),
    "lock": (b"*}:l:*", re.compile(rb"(.*?)}:l:.*", re.DOTALL)),
    "pubsub": (b"*}:topic:*", re.compile(rb"(.*?)}:topic:.*", re.DOTALL)),
    "schedule": (b"*}:jobs", re.compile(rb"(.*)}:jobs", re.DOTALL)),
    "state": (b"*}:[nf]*", re.compile(rb"(?!.*}:v:)(.*)}:(?:names|fences)", re.DOTALL)),
}
"""Service → a glob for the keys that tell a name, and which name that is; those of all values of state are not looked at."""


def names(component: RedisComponent, op: Operation, service: str) -> list[str]:
    """Return the names of a service that have data."""
    _check(component, service)
    if service not in _KEYS:
        return []
    return component.engine.run(op, names_of(component, service, *_KEYS[service]))


def portable(component: RedisComponent, service: str, name: str) -> Portable:
    """Return the data of a name."""
    _check(component, service)
    engine = component.engine
    if service == "state":
        state = RedisState(component, name)
        return StoredState(state, lambda op, keys: engine.run(op, state.fences(keys)), _TOKENS)
    if service == "configuration":
        configuration = RedisConfiguration(component, name)
        return StoredConfiguration(configuration, lambda op: engine.run(op, configuration.scopes()))
    if service == "schedule":
        return _Jobs(component, name)
    raise UnsupportedError(
        f"{service} of the component 'redis' is not copied: choose state, configuration and schedule with --service; "
        "docs/how-to/move-to-redis.md says how the rest moves",
        service=service,
        component=name,
    )


class _Jobs(KeyedPortable):
    """The jobs of an application, with their runs."""

    def __init__(self, component: RedisComponent, app: str) -> None:
        super().__init__()
        self._engine = component.engine
        self._driver = RedisSchedule(component, app, app)

    def keys(self, op: Operation) -> list[str]:
        return [job.spec.name for job in self._driver.list_jobs(op)]

    def size(self, record: JobRecord) -> int:
        return len(record.job.spec.data or b"")

    def find(self, op: Operation, keys: Sequence[str], /) -> dict[str, JobRecord]:
        return {record.key: record for record in self._engine.run(op, self._driver.records(keys))}

    def put(self, op: Operation, records: Records, /) -> None:
        self._engine.run(op, self._driver.restore(records))


def _check(component: RedisComponent, service: str) -> None:
    settings = component.settings
    if settings.layout == "dapr" and service in ("pubsub", "state"):
        raise UnsupportedError(
            f"{service} in Dapr's layout is not copied: its keys are in no order",
            service=service,
            component=component.name,
        )
    if component.is_cluster:
        raise UnsupportedError(
            "a Redis cluster is not copied from or to: copy between others", component=component.name
        )
