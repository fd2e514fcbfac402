"""Configuration from one watched file. It is read-only, has neither groups nor labels, and its versions are nobody's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import sleep
from typing import TYPE_CHECKING, Any

from ..._bridge import BlockingDriver
from ..._operation import Operation
from ..._thread import Changes
from ...configuration.driver import ConfigurationDriver, ConfigurationSource, Selection, Update
from ...configuration.types import ConfigurationItem
from ...errors import InvalidArgumentError, UnsupportedError
from .watched import LONGEST, QUIET, Snapshot, Watched

if TYPE_CHECKING:
    from . import FileComponent
    from .notices import Notices

__all__ = ["FileConfiguration"]


class FileConfiguration(BlockingDriver, ConfigurationDriver):
    """The keys of one file."""

    features = frozenset()

    def __init__(self, component: FileComponent) -> None:
        self.bridge = component.bridge
        self._component = component

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return _items(self._settled(op), selection)

    def _settled(self, op: Operation) -> Snapshot:
        """Return the file's values; of one that is being written, wait for the end, a moment."""
        watched = self._component.watched
        waited = 0.0
        while True:
            found, hurry = watched.look()
            if not hurry or waited > LONGEST + QUIET:
                break
            left = op.remaining()
            if left is not None and left < hurry:
                break
            sleep(hurry)
            waited += hurry
        if found is not None:
            return found
        raise watched.problem() or op.timed_out(f"{watched.path}, which is being written,")

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        raise self._read_only()

    def delete(self, op: Operation, selection: Selection, /) -> None:
        raise self._read_only()

    def _read_only(self) -> UnsupportedError:
        return UnsupportedError(f"{self._component.watched.path} is only read: change the file")

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        settings = self._component.settings
        notices = self._notices(settings.watch)
        found = self._settled(op)
        source = _Source(self._component.watched, selection, settings.poll_interval, notices, found.number)
        return source, Update(_items(found, selection), True)

    def _notices(self, watch: str) -> Notices | None:
        if watch == "poll":
            return None
        from importlib.util import find_spec

        if find_spec("watchfiles") is None:
            if watch == "auto":
                return None
            raise InvalidArgumentError(
                'watch = "watchfiles" needs an extra: pip install "cloud-runtimes-python[watch]"; '
                'or set watch = "poll"'
            )
        from .notices import Notices

        return Notices(self._component.watched.path)


class _Source(ConfigurationSource):
    """Looks at the file every now and then, or when notices tell of it."""

    def __init__(
        self, watched: Watched, selection: Selection, interval: float, notices: Notices | None, number: int
    ) -> None:
        self._watched = watched
        self._selection = selection
        self._interval = interval
        self._notices = notices
        self._number = number
        self._hurry = 0.0
        self._woken = False
        self._changes = Changes()

    def look(self) -> Update | None:
        found, self._hurry = self._watched.look()
        if found is None or found.number == self._number:
            return None
        self._number = found.number
        return Update(_items(found, self._selection), True)

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


def _items(found: Snapshot, selection: Selection) -> dict[str, ConfigurationItem]:
    values: Mapping[str, Any] = found.values
    keys = selection.keys or values
    return {key: ConfigurationItem(key, values[key]) for key in keys if key in values}
