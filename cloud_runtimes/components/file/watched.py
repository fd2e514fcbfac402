"""A file that others change: read when it is whole, and the last good values kept while it is not.

Writers do all sorts of things: rename a new file over it, swap a symlink on the way to it (as Kubernetes does with ``..data``), cut it and write it anew in place, delete it and make it again. A file in the middle of that may be empty, cut, or a valid beginning of itself. So it is read once it has been quiet for a moment, an empty file counts as unfinished, and what cannot be read or parsed changes nothing.
"""

from __future__ import annotations

import copy
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ... import _fork, config
from ..._clock import Clocks
from ..._log import repeated
from ...errors import CloudRuntimesError, InvalidArgumentError, PermissionDeniedError, UnavailableError
from .flat import flatten

__all__ = ["LONGEST", "QUIET", "Snapshot", "Watched"]

QUIET: Final = 0.05
"""Seconds without a change after which a file counts as whole; more than the grain of a file's times (a kernel's tick, 10 ms at most)."""
LONGEST: Final = 1.0
"""Seconds after which a file that is never quiet is read all the same, if it is another file at every look: replaced, not rewritten."""
_COARSE: Final = 2.0
"""The grain where a file system keeps times in whole seconds (FAT: 2 s)."""
_PATIENCE: Final = 1.0
"""Seconds for which a missing or broken file is nothing to speak of."""
_EVERY: Final = 60.0

Signature = tuple[int, ...]


class Snapshot(NamedTuple):
    """Values of one moment.

    Attributes:
        number: counts the changes of values, as seen here.
        values: key → text.
    """

    number: int
    values: Mapping[str, str]


class Watched:
    """One file. Any number of threads may `look`.

    Args:
        path: of the file; symlinks are followed at every look.
        suffix: which kind of file it is, one of `config.SUFFIXES`.
        clocks: that the rules about time use.
    """

    def __init__(self, path: Path, suffix: str, clocks: Clocks) -> None:
        self.path = path
        self._clocks = clocks
        self._suffix = suffix
        self._lock = threading.RLock()
        self._good: Snapshot | None = None
        # of what was read last, good or not: when it is the same, so is the file
        self._signature: Signature | None = None
        self._data: bytes | None = None
        # of what changes: since when it is as it is, since when there is no quiet
        self._seen: Signature | None = None
        self._still = self._restless = 0.0
        self._problem: CloudRuntimesError | None = None
        self._troubled = self._spoken = float("-inf")
        _fork.register(self)

    def forked(self) -> None:
        """In a forked child: another thread may have been in the middle of a look, so look anew."""
        self._lock = threading.RLock()
        self._signature = self._seen = self._data = None

    def look(self) -> tuple[Snapshot | None, float]:
        """Return the newest good values, if there ever were any, and in how many seconds to look again, 0.0: there is no hurry.

        Where they are not those of the file, `problem` says why.
        """
        with self._lock:
            now = self._clocks.monotonic()
            try:
                hurry = self._look(now)
            except CloudRuntimesError as error:
                hurry = 0.0
                self._note(error, now)
            if self._problem is not None and self._good is not None:
                self._speak(now, self._problem)
            return self._good, hurry

    def _note(self, problem: CloudRuntimesError, now: float) -> None:
        if self._problem is None:
            self._troubled = now
        self._problem = problem.with_traceback(None)

    def _speak(self, now: float, problem: CloudRuntimesError) -> None:
        """Say that there are old values only: at first after a while, then once a minute."""
        if now - self._troubled >= _PATIENCE and now - self._spoken >= _EVERY:
            self._spoken = now
            repeated(f"watched {self.path}", "%s; its last good values are kept", problem)

    def problem(self) -> CloudRuntimesError | None:
        """Return an error to raise: why there are no new values, ``None``: there are."""
        with self._lock:
            found = self._problem
        if found is None:
            return None
        fresh = copy.copy(found)
        fresh.__cause__ = found.__cause__
        return fresh

    def _look(self, now: float) -> float:
        try:
            signature = _signature(os.stat(self.path))
        except OSError as error:
            self._seen = self._signature = None
            raise _explain(error, self.path) from error
        if signature == self._signature:
            return 0.0
        before = self._seen
        if signature != before:
            if before is None:
                self._restless = now
            self._seen, self._still = signature, now
        # by the time of change, which the kernel sets, not by that of modification, which anyone may set
        changed = signature[-1]
        age = self._clocks.wall_ms() / 1e3 - changed / 1e9
        if age < QUIET and now - self._still < QUIET:
            if now - self._restless < LONGEST:
                return QUIET
            if before is None or before[:2] == signature[:2]:
                advice = "write a new file and rename it over"
                self._note(UnavailableError(f"{self.path} is rewritten without a pause: {advice}"), now)
                return QUIET
        data = self._read(signature)
        if data is None:  # changed meanwhile
            return QUIET
        self._seen = None
        # a change within the grain of the time of change would leave it as it is: until then, read again
        if age >= (_COARSE if changed % 1_000_000_000 == 0 else QUIET):
            self._signature = signature
        if data != self._data or self._problem is not None:
            self._data = data
            self._take(data)
        return QUIET if 0 <= age < QUIET else 0.0

    def _take(self, data: bytes) -> None:
        if not data.strip():
            raise UnavailableError(
                f"{self.path} is empty: is it being written? A file without values is {{}} or a comment"
            )
        values = flatten(config.parse(data, self._suffix, self.path), self.path)
        self._problem = None
        if self._good is None or values != self._good.values:
            self._good = Snapshot(self._good.number + 1 if self._good else 1, values)

    def _read(self, signature: Signature) -> bytes | None:
        """Return the bytes of the file of this signature, ``None`` where it is another by now."""
        try:
            # what is no file might be waited for
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise InvalidArgumentError(f"{self.path} is no file: give the path of a TOML, JSON or YAML file")
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read()
                whole = _signature(found) == signature == _signature(os.fstat(descriptor))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _explain(error, self.path) from error
        return data if whole else None


def _signature(found: os.stat_result) -> Signature:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _explain(error: OSError, path: Path) -> CloudRuntimesError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return UnavailableError(f"{path} does not exist: is its volume mounted, is the path right?")
    if isinstance(error, PermissionError):
        return PermissionDeniedError(f"{path} cannot be read ({error.strerror}): check its owner and mode")
    return UnavailableError(f"{path} cannot be read ({error.strerror})")
