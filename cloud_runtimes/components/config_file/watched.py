"""A file that others change: read when it is whole, and only then.

Writers do all sorts of things: rename a new file over it, swap a symlink on the way to it (as Kubernetes does with ``..data``), cut it and write it anew in place, delete it and make it again. A file in the middle of that may be empty, cut, or a valid beginning of itself. So:

* A look asks for the file's status (device, inode, size, times of data and of status: stat(2)); only where that differs from the last time is the file read.
* It is read once it has been quiet for `QUIET`; a file that is another one at every look is replaced, not rewritten, and read all the same after `LONGEST`.
* A reading counts only if the status was the same before and after it.
* While a change could hide behind a time stamp that stays, it is read at every look: within a kernel's tick, within two seconds where times are in whole seconds, and while a time stamp lies in the future, which another machine's clock has set.

What is in the file, and what becomes of the last good value while there is no new one, is up to the services. A file that is written in place by steps further apart than `QUIET`, each of which can be parsed, can be seen between them: no reader can tell.
"""

from __future__ import annotations

import copy
import errno
import itertools
import os
import stat
import time
import traceback
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ..._core.clocks import Clocks
from ..._core.os_files import WITHOUT_WAITING
from ..._core.threads import Mutex
from ...errors import (
    CloudRuntimesError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from ...spi.operation import Operation

T = TypeVar("T")

QUIET: Final = 0.1
"""Seconds without a change after which a file counts as whole; more than the grain of a file's times (a kernel's tick, 10 ms at most)."""
LONGEST: Final = 1.0
"""Seconds after which a file that is never quiet is read all the same, if it is another file at every look."""
MAX_BYTES: Final = 16 * 1024 * 1024
_COARSE: Final = 2.0
"""The grain where a file system keeps times in whole seconds (FAT: 2 s)."""
_LEAST: Final = 0.01
_STEP: Final = 0.02

Signature = tuple[int, ...]


class Look(NamedTuple, Generic[T]):
    """Snapshot of the file's state; never changed.

    Attributes:
        value: the newest good one, if there is one.
        problem: why ``value`` is not that of the file as it is now; see `fresh`.
        again_in: seconds after which to look again, since the file is being written; 0.0: it is at rest.
        since: monotonic time since which there is a problem.
        age: seconds since the file's last change, as far as clocks can be trusted; negative: by another clock than
            this machine's.
        mode: of the file that was read (``st_mode``).
        signature: of what ``value`` or ``problem`` tells, if no change can hide from it.
        seen, still, restless: the signature of the last look, and the monotonic times since when it has been that
            one, and since when there has been no rest.
    """

    value: T | None = None
    problem: CloudRuntimesError | None = None
    again_in: float = 0.0
    since: float = 0.0
    age: float = 0.0
    mode: int = 0
    signature: Signature | None = None
    seen: Signature | None = None
    still: float = 0.0
    restless: float | None = None

    def troubled(self, problem: CloudRuntimesError, now: float) -> Look[T]:
        """Return the same with a problem."""
        return self._replace(problem=problem, since=now if self.problem is None else self.since)


class Watched(Generic[T]):
    """Watches one file.

    Any number of threads may use it, and a signal handler among them: the known state is replaced as a whole.
    ``parse`` returns an error that says what is wrong with the bytes, since a raised one would hold them in its
    frames. With ``keep`` the last good value stays while the file cannot be read. Symlinks are followed at every
    look.
    """

    def __init__(
        self, path: str, parse: Callable[[Any], T | CloudRuntimesError], clocks: Clocks, *, keep: bool
    ) -> None:
        self.path = path
        self._parse = parse
        self._clocks = clocks
        self._keep = keep
        self._known: Look[T] = Look()
        # looks take effect in the order in which they began, else an older value could follow a newer one;
        # the lock is held for that only, and never while the file is looked at
        self._numbers = itertools.count(1)
        self._number = 0
        self._lock = Mutex()

    def look(self) -> Look[T]:
        """Look at the file once, and return what is known then; what is wrong with the file is a `Look.problem`."""
        number = next(self._numbers)
        before = self._known
        state = self._looked(before)
        if state is before:
            return state
        with self._lock:
            if number > self._number:
                if state.value is before.value and (self._keep or state.seen is not None):
                    # this one has no news of the value; a look that began earlier may have brought some meanwhile
                    state = state._replace(value=self._known.value, mode=self._known.mode)
                self._number, self._known = number, state
            return self._known

    def settled(self, op: Operation, *, patience: float, old: bool) -> Look[T]:
        """Look until the file is at rest, for ``patience`` seconds at most; with ``old`` only until there is a value."""
        end: float | None = None
        while True:
            state = self.look()
            if not state.again_in or (old and state.value is not None):
                return state
            if end is None:
                end = time.monotonic() + patience
            remaining = op.remaining()
            late = remaining is not None and remaining <= _STEP
            if late or time.monotonic() > end:
                if state.value is not None:
                    return state
                raise op.timed_out(f"{self.path}, which is being written") if late else self._restless()
            time.sleep(_STEP)

    def _looked(self, known: Look[T]) -> Look[T]:
        try:
            signature, refused = self._status()
        except OSError as error:
            return self._failed(known, self._map_error(error))
        same = signature == known.signature
        if same and known.problem is None:
            return known
        # by the time of change, which the kernel sets, not by that of modification, which anyone may set
        changed = signature[-1]
        age = self._clocks.wall_ms() / 1e3 - changed / 1e9
        if same:
            return known._replace(age=age)
        if refused is not None:
            return self._failed(known, refused)
        last = known.seen
        now = self._clocks.monotonic()
        if signature != last:
            restless = now if known.restless is None else known.restless
            known = known._replace(signature=None, seen=signature, still=now, restless=restless)
        known = known._replace(age=age)
        grain = QUIET if changed % 1_000_000_000 else _COARSE
        # by the file's time as far as its grain allows, or by what was seen here
        rest = max(age - (grain - QUIET), now - known.still)
        if rest < QUIET:
            if known.restless is None or now - known.restless < LONGEST:
                return known._replace(again_in=max(QUIET - rest, _LEAST))
            if last is None or last[:2] == signature[:2]:
                return known.troubled(self._restless(), now)._replace(again_in=QUIET)
        return self._taken(known, signature, grain, now)

    def _taken(self, known: Look[T], signature: Signature, grain: float, now: float) -> Look[T]:
        """Read a file that should be whole."""
        try:
            content = self._read(signature)
        except OSError as error:
            return self._failed(known, self._map_error(error))
        if content is None:  # changed meanwhile
            return known._replace(again_in=QUIET)
        value, mode = content
        known = known._replace(
            again_in=QUIET if 0 <= known.age < QUIET else 0.0,
            mode=mode,
            signature=signature if known.age >= grain else None,
            restless=None,
        )
        if isinstance(value, CloudRuntimesError):
            return known.troubled(value, now)
        return known._replace(value=known.value if known.value == value else value, problem=None)

    def _failed(self, known: Look[T], problem: CloudRuntimesError) -> Look[T]:
        known = known.troubled(problem, self._clocks.monotonic())
        value = known.value if self._keep else None
        return known._replace(value=value, again_in=0.0, signature=None, seen=None, restless=None)

    def _status(self) -> tuple[Signature, CloudRuntimesError | None]:
        """Return its signature, and, before it is opened, that it is no file of a fitting size."""
        status = os.stat(self.path)
        refused: CloudRuntimesError | None = None
        if not stat.S_ISREG(status.st_mode):
            refused = InvalidArgumentError(f"{self.path} is no regular file: give the path of one")
        elif status.st_size > MAX_BYTES:
            refused = too_large(self.path, status.st_size)
        return signature_of(status), refused

    def _read(self, signature: Signature) -> tuple[T | CloudRuntimesError, int] | None:
        """Return what it holds, and its mode; ``None``: it is another one by now."""
        # it may have become a pipe just now
        descriptor = os.open(self.path, os.O_RDONLY | WITHOUT_WAITING)
        try:
            status = os.fstat(descriptor)
            if signature_of(status) != signature:
                return None
            content = _contents(descriptor, signature, self._parse)
        except BaseException as error:
            # an interrupt, memory that ran out, a disk that failed: the frames below hold the document
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            os.close(descriptor)
        return None if content is None else (content, status.st_mode)

    def _restless(self) -> CloudRuntimesError:
        return UnavailableError(
            f"{self.path} changes all the time, without a pause: write a new file and rename it over", retryable=False
        )

    def _map_error(self, error: OSError) -> CloudRuntimesError:
        failure = _map_error(error, self.path)
        failure.__cause__ = error.with_traceback(None)
        return failure


def fresh(problem: CloudRuntimesError) -> CloudRuntimesError:
    """Return an error to raise: each caller raises one of its own."""
    failure = copy.copy(problem).with_traceback(None)
    failure.__cause__ = problem.__cause__
    return failure


def too_large(path: str, size: int) -> CloudRuntimesError:
    """Return why so many bytes are refused."""
    return ResourceExhaustedError(f"{path} has {size:,} bytes; a file or folder of values has at most {MAX_BYTES:,}")


def signature_of(status: os.stat_result) -> Signature:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _contents(
    descriptor: int, signature: Signature, parse: Callable[[bytes], T | CloudRuntimesError]
) -> T | CloudRuntimesError | None:
    data = bytes_of(descriptor, signature[2])
    if signature_of(os.fstat(descriptor)) != signature or len(data) != signature[2]:
        return None
    return parse(data)


def bytes_of(descriptor: int, size: int) -> bytes:
    """Read a file to its end, or one byte more than it is said to have."""
    data = b""
    while len(data) <= size and (part := os.read(descriptor, size + 1 - len(data))):
        data += part
    return data


def _map_error(error: OSError, path: str) -> CloudRuntimesError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return UnavailableError(
            f"{path} does not exist: make it, mount its volume, or correct the setting that names it"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(
            f"{path} may not be read by this process ({error.strerror}): check the owner and mode of it and its folders"
        )
    if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
        return InvalidArgumentError(f"{path} is no regular file ({error.strerror}): give the path of one")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceExhaustedError(f"{path}: {error.strerror}: raise the limit (ulimit -n)", retryable=True)
    return UnavailableError(f"{path} cannot be read: {error.strerror}")
