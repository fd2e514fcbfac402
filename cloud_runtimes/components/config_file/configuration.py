"""Configuration from one watched file. It is read-only, has neither groups nor labels, and its items have no versions.

From the tables of the file to keys and texts:

==================  =====================================================================
in the file         here
==================  =====================================================================
a table in a table  its keys, joined by dots: ``[db] host = "x"`` is ``db.host``
text                as it is
a whole number      in decimal: ``0x10`` is ``16``
another number      the shortest text that is the same number: ``1.50`` is ``1.5``
true and false      ``true``, ``false``
date and time       RFC 3339, as TOML and YAML write it: ``2026-01-31T08:00:00+00:00``
an array            JSON, its members by the same rules: ``["a", 1, {"b": true}]``
null, empty table   nothing: there is no such key
==================  =====================================================================
"""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ... import config
from ..._core import extras, fork
from ..._core.arguments import check_key
from ..._core.clocks import Clocks
from ..._core.logs import repeated
from ..._core.threads import Changes
from ...errors import CloudRuntimesError, InvalidArgumentError, UnavailableError, UnsupportedError
from ...spi.configuration import (
    SUBSCRIBE,
    ConfigurationDriver,
    ConfigurationItem,
    ConfigurationSource,
    Selection,
    Update,
)
from ...spi.operation import Operation
from .folder import LINK, WatchedFolder
from .watched import LONGEST, QUIET, Look, Watched, fresh

if TYPE_CHECKING:
    from . import FileComponent

_PATIENCE: Final = 1.0
"""Seconds for which a missing or broken file is nothing to speak of."""
_EVERY: Final = 60.0
_INTERVAL: Final = 0.5
"""Seconds between two looks."""
_MOST: Final = 1_000_000
"""Values of one file: YAML's aliases make much out of little."""
_DEPTH: Final = 100

_STEP_MS: Final = 25
_GATHER_MS: Final = 100
_LINKS: Final = 40  # as many as Linux follows (path_resolution(7))
_AGAIN: Final = 60.0

Values = Mapping[str, str]


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
        settings = self._component.settings
        notices = self._notices(file, settings.watch or "auto")
        values = file.values(op)
        source = _Source(file, selection, settings.poll_interval or _INTERVAL, notices, values)
        return source, Update(_items(values, selection), True)

    def _notices(self, file: ConfigurationFile, watch: str) -> Notices | None:
        if watch == "poll":
            return None
        if not extras.installed("watchfiles"):
            if watch == "auto":
                return None
            raise extras.missing('watch = "watchfiles"', "watch")
        return Notices(file.path / LINK if file.is_folder else file.path)


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
        self._again_in = 0.0
        self._woken = False
        self._changes = Changes()

    def look(self) -> Update | None:
        state = self._file.look()
        self._again_in = state.again_in
        if state.value is None or state.value is self._values:
            return None
        self._values = state.value
        return Update(_items(state.value, self._selection), True)

    def wait(self, timeout: float, /) -> None:
        limit = min(timeout, self._interval)
        if self._again_in:
            limit = min(limit, self._again_in)
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


class ConfigurationFile:
    """A file of one of `config.SUFFIXES`. Any number of threads may use it. Values that are the same are the same object."""

    def __init__(self, path: Path, suffix: str, clocks: Clocks) -> None:
        self.path = path
        self._suffix = suffix
        self.is_folder = suffix == ".folder"
        self._clocks = clocks
        watched = WatchedFolder if self.is_folder else Watched
        self._file: Watched[Values] = watched(str(path), self._parsed, clocks, keep=True)
        self._spoken = float("-inf")

    def _parsed(self, data: Any) -> Values | CloudRuntimesError:
        if self.is_folder:
            return self._texts(data)
        if not data.strip():
            return UnavailableError(
                f"{self.path} is empty: is it being written? A file without values is {{}} or a comment"
            )
        try:
            return flatten(config.parse(data, self._suffix, self.path), self.path)
        except CloudRuntimesError as error:
            return error.with_traceback(None)

    def _texts(self, files: Mapping[str, bytes]) -> Values | CloudRuntimesError:
        try:
            return {check_key(name): data.decode() for name, data in files.items()}
        except UnicodeDecodeError:
            return InvalidArgumentError(f"{self.path}: a file is no UTF-8: its folder is of texts")
        except CloudRuntimesError as error:
            return error.with_traceback(None)

    def look(self) -> Look[Values]:
        """Look at the file once; speaks of a problem that there has been for a while, once a minute."""
        return self._spoken_of(self._file.look())

    def values(self, op: Operation) -> Values:
        """Return the file's values, or raise why there were none ever; of one that is being written, wait for the end, a moment."""
        state = self._spoken_of(self._file.settled(op, patience=LONGEST + QUIET, old=False))
        if state.value is not None:
            return state.value
        assert state.problem is not None
        raise fresh(state.problem)

    def _spoken_of(self, state: Look[Values]) -> Look[Values]:
        if state.problem is not None and state.value is not None:
            now = self._clocks.monotonic()
            if now - state.since >= _PATIENCE and now - self._spoken >= _EVERY:
                self._spoken = now
                repeated(f"watched {self.path}", "%s; its last good values are kept", state.problem)
        return state


def flatten(tables: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Return key → text; refuse keys that become the same, and values of no kind named above."""
    values: dict[str, str] = {}
    try:
        budget = iter(range(_MOST))
        for key, value in _walk(tables, "", budget, 0):
            if value is None:
                continue
            if check_key(key) in values:
                raise InvalidArgumentError(f"{key!r} stands there twice, once with dots in its name")
            if not value.isascii():
                value.encode()
            values[key] = value
    except UnicodeEncodeError:
        raise InvalidArgumentError(
            f"{path}: {key!r} has a lone surrogate, which is not UTF-8: repair the text"
        ) from None
    except (ValueError, RecursionError) as error:  # InvalidArgumentError too
        raise InvalidArgumentError(f"{path}: {error}") from None
    return values


def _walk(table: Mapping[Any, Any], before: str, budget: Iterator[int], depth: int) -> Iterator[tuple[str, str | None]]:
    if depth > _DEPTH:
        raise InvalidArgumentError(f"tables are nested more than {_DEPTH} deep")
    for name, value in table.items():
        key = f"{before}{_name(name)}"
        if isinstance(value, Mapping):
            yield from _walk(value, f"{key}.", budget, depth + 1)
        elif isinstance(value, list):
            yield key, json.dumps(_plain(value, key, budget), ensure_ascii=False)
        else:
            _count(budget)
            yield key, _text(value, key)


def _name(name: Any) -> str:
    if isinstance(name, str):
        return name
    text = _text(name, str(name)) if name is not None else None
    if text is None:
        raise InvalidArgumentError("a key is null: give it a name")
    return text


def _text(value: Any, key: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise InvalidArgumentError(f"{key!r} is {type(value).__name__}: write it as text")


def _plain(value: Any, key: str, budget: Iterator[int]) -> Any:
    """Return a member of an array as JSON has it; what JSON does not have, as text."""
    _count(budget)
    if isinstance(value, Mapping):
        return {_name(name): _plain(each, key, budget) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, key, budget) for each in value]
    if isinstance(value, float) and value - value != 0:  # NaN and infinity
        return repr(value)
    return value if value is None or isinstance(value, (bool, int, float)) else _text(value, key)


def _count(budget: Iterator[int]) -> None:
    if next(budget, None) is None:
        raise InvalidArgumentError(f"more than {_MOST:,} values")


def folders(path: Path) -> list[str]:
    """Return the folders in which something must change for the file of this path to become another: its own, and those of the links on the way."""
    result: set[str] = set()
    current = "/"
    rest = list(reversed(os.path.abspath(path).split("/")))
    links = 0
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            current = os.path.dirname(current)
            continue
        here = os.path.join(current, part)
        try:
            target = os.readlink(here)
        except OSError:  # no link, or nothing at all
            current = here
            continue
        result.add(current)
        links += 1
        if links > _LINKS:
            break
        if target.startswith("/"):
            current = "/"
        rest.extend(reversed(target.split("/")))
    else:
        result.add(os.path.dirname(current))
    return sorted(folder for folder in result if os.path.isdir(folder))


class Notices:
    """Notices of changes of a file before anyone looks, by watchfiles where it is installed (extra ``watch``).

    Used by one thread, `stop` excepted. They only shorten a wait. Where notices do not come (network file systems,
    some mounts of containers), the next look sees changes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._folders: list[str] = []
        self._changes: Generator[set[Any], None, None] | None = None
        self._broken = float("-inf")

    def stop(self) -> None:
        """End the wait and all that come."""
        self._stop.set()

    def wait(self, timeout: float) -> bool:
        """Return once something changed or ``timeout`` seconds are up; ``False``: notices do not work here at present."""
        if monotonic() < self._broken + _AGAIN:
            return False
        end = monotonic() + timeout
        try:
            if (wanted := folders(self._path)) != self._folders:
                self.close()
                self._changes, self._folders = self._watch(wanted), wanted
                timeout = 0.0  # what changed before they began is not told: look again
            for changes in self._changes or ():
                if changes or not timeout or monotonic() >= end:
                    return True
            if not self._stop.is_set():
                raise RuntimeError("the notices ended")
        except Exception as error:
            self.close()
            self._broken = monotonic()
            repeated(f"notices {self._path}", "%s: no notices of changes, looking instead: %s", self._path, error)
            return False
        return True

    def _watch(self, paths: list[str]) -> Generator[set[Any], None, None]:
        if not paths:
            raise FileNotFoundError("its folder does not exist")
        with fork.importing:
            from watchfiles import watch

        return watch(
            *paths,
            watch_filter=None,
            debounce=_GATHER_MS,
            step=_STEP_MS,
            stop_event=self._stop,
            rust_timeout=2 * _STEP_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
            ignore_permission_denied=True,
        )

    def close(self) -> None:
        """Let go of the kernel's watches."""
        changes, self._changes, self._folders = self._changes, None, []
        if changes is not None:
            changes.close()
