"""What tells of changes of files before anyone looks: watchfiles, where it is installed (extra ``watch``).

It only shortens a wait. What is in the file is found by looking, so where notices do not come (network file systems, some mounts of containers) changes are seen at the next look.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from pathlib import Path
from time import monotonic
from typing import Any, Final

from ..._core import fork
from ..._core.logs import repeated

__all__ = ["Notices", "folders"]

_STEP_MS: Final = 25
_GATHER_MS: Final = 100
_LINKS: Final = 40  # as many as Linux follows (path_resolution(7))
_AGAIN: Final = 60.0


def folders(path: Path) -> list[str]:
    """Return the folders in which something must change for the file of this path to become another: its own, and those of the links on the way."""
    found: set[str] = set()
    place = "/"
    rest = list(reversed(os.path.abspath(path).split("/")))
    links = 0
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            place = os.path.dirname(place)
            continue
        here = os.path.join(place, part)
        try:
            target = os.readlink(here)
        except OSError:  # no link, or nothing at all
            place = here
            continue
        found.add(place)
        links += 1
        if links > _LINKS:
            break
        if target.startswith("/"):
            place = "/"
        rest.extend(reversed(target.split("/")))
    else:
        found.add(os.path.dirname(place))
    return sorted(folder for folder in found if os.path.isdir(folder))


class Notices:
    """Notices for one path; used by one thread, `stop` excepted."""

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
