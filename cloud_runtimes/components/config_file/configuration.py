"""Configuration from one watched file. It is read-only, has neither groups nor labels, and its versions are nobody's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..._core import extras
from ..._core.threads import Changes
from ...errors import UnsupportedError
from ...spi.configuration import (
    SUBSCRIBE,
    ConfigurationDriver,
    ConfigurationItem,
    ConfigurationSource,
    Selection,
    Update,
)
from ...spi.operation import Operation
from .configuration_file import ConfigurationFile, Values

if TYPE_CHECKING:
    from . import FileComponent
    from .notices import Notices

__all__ = ["FileConfiguration"]


class FileConfiguration(ConfigurationDriver):
    """The keys of one file."""

    features = frozenset({SUBSCRIBE})

    def __init__(self, component: FileComponent) -> None:
        self.executor = component.executor
        self._component = component
        component.configuration  # noqa: B018  # what is wrong with the settings is told before any I/O

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return _items(self._component.configuration.values(op), selection)

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        raise self._read_only()

    def delete(self, op: Operation, selection: Selection, /) -> None:
        raise self._read_only()

    def _read_only(self) -> UnsupportedError:
        return UnsupportedError(f"{self._component.configuration.path} is only read: change the file")

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        file = self._component.configuration
        notices = self._notices(file, self._component.watch)
        found = file.values(op)
        source = _Source(file, selection, self._component.poll_interval, notices, found)
        return source, Update(_items(found, selection), True)

    def _notices(self, file: ConfigurationFile, watch: str) -> Notices | None:
        if watch == "poll":
            return None
        if not extras.installed("watchfiles"):
            if watch == "auto":
                return None
            raise extras.missing('watch = "watchfiles"', "watch")
        from .notices import Notices

        return Notices(file.path)


class _Source(ConfigurationSource):
    """Looks at the file every now and then, or when notices tell of it."""

    def __init__(
        self, file: ConfigurationFile, selection: Selection, interval: float, notices: Notices | None, values: Values
    ) -> None:
        self._file = file
        self._selection = selection
        self._interval = interval
        self._notices = notices
        self._values = values
        self._hurry = 0.0
        self._woken = False
        self._changes = Changes()

    def look(self) -> Update | None:
        found = self._file.look()
        self._hurry = found.hurry
        if found.value is None or found.value is self._values:
            return None
        self._values = found.value
        return Update(_items(found.value, self._selection), True)

    def wait(self, timeout: float, /) -> None:
        limit = min(timeout, self._interval)
        if self._hurry:
            limit = min(limit, self._hurry)
        elif self._notices is not None and self._notices.wait(limit):
            return
        ticket = self._changes.ticket()
        self._changes.wait(ticket, 0.0 if self._woken else limit)

    def wake(self) -> None:
        self._woken = True
        if self._notices is not None:
            self._notices.stop()
        self._changes.announce()

    def close(self) -> None:
        if self._notices is not None:
            self._notices.close()


def _items(values: Values, selection: Selection) -> dict[str, ConfigurationItem]:
    keys = selection.keys or values
    return {key: ConfigurationItem(key, values[key]) for key in keys if key in values}
