"""A file of secrets that is read again when it has changed, and never while it is being written.

Each call looks at the file's status (device, inode, size, times of data and of status: stat(2)); only where that differs from the last time is the file read. Rules about a file that is just being written:

* What changed less than `SETTLE_MS` ago is not read yet: the secrets of before are served; where there are none, the call waits, at most `PATIENCE` seconds.
* A reading counts only if the status was the same before and after it.
* What does not parse, and changed less than `GRACE_MS` ago, counts as half-written: the secrets of before are served. Later, or where there are none, it is an error.

So a file that is replaced by ``rename`` appears as a whole and `SETTLE_MS` later. One that is written in place by steps further apart than `SETTLE_MS`, each of which parses, can be seen between them: no reader can tell.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import traceback
from importlib import import_module
from typing import Final, NamedTuple

from ... import _fork
from ..._clock import Clocks
from ..._operation import Operation
from ...errors import (
    CloudRuntimesError,
    InvalidArgumentError,
    PayloadError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from .document import PARSERS, Document, parse

__all__ = ["GRACE_MS", "SETTLE_MS", "WatchedFile"]

SETTLE_MS: Final = 100
GRACE_MS: Final = 2000
MAX_BYTES: Final = 16 * 1024 * 1024
PATIENCE: Final = 5.0
_POLL: Final = 0.02

_NOTHING: Final = Document({}, {})
_warned: set[str] = set()

_Mark = tuple[int, int, int, int, int]


class _Taken(NamedTuple):
    mark: _Mark
    document: Document


class WatchedFile:
    """One file. Any number of threads use it at once: what was read is replaced as a whole.

    Args:
        path: absolute.
        kind, separator, multi_valued: as in `document.parse`.
        optional: whether a file that is not there holds nothing, instead of being an error.
    """

    def __init__(
        self, path: str, kind: str, clocks: Clocks, *, separator: str, multi_valued: bool, optional: bool
    ) -> None:
        self.path = path
        self._kind = kind
        self._clocks = clocks
        self._options = (separator, multi_valued)
        self._optional = optional
        self._taken: _Taken | None = None

    def load(self, op: Operation) -> Document:
        """Return what the file holds.

        Raises:
            PayloadError: it cannot be parsed; says where and quotes nothing.
            UnavailableError: it is not there, or the disk failed.
            PermissionDeniedError, InvalidArgumentError, ResourceExhaustedError: it cannot be read, is no file, is too large.
            DeadlineExceededError: there is nothing from before, and it did not come to rest in time.
        """
        end = time.monotonic() + PATIENCE
        while True:
            try:
                status = os.stat(self.path)
            except OSError as error:
                self._taken = None
                if self._optional and error.errno in (errno.ENOENT, errno.ENOTDIR):
                    return _NOTHING
                raise self._explained(error) from error
            mark, before = _mark(status), self._taken
            if before is not None and before.mark == mark:
                return before.document
            self._check(status)
            # a status time in the future is another machine's clock: it says nothing
            age = self._clocks.wall_ms() - status.st_ctime_ns // 1_000_000
            if not 0 <= age < SETTLE_MS:
                self._load_parser()
                found = self._read(mark)
                if isinstance(found, Document):
                    self._taken = _Taken(mark, found)
                    return found
                if found is not None and (before is None or not 0 <= age < GRACE_MS):
                    raise PayloadError(f"{self.path}: {found}")
            if before is not None:
                return before.document
            left = op.remaining()
            if left is not None and left <= 0:
                raise op.timed_out(f"{self.path}, which is being written")
            if time.monotonic() > end:
                raise UnavailableError(
                    f"{self.path} changes all the time: replace it by renaming another", retryable=False
                )
            time.sleep(_POLL if left is None else min(_POLL, left))

    def _check(self, status: os.stat_result) -> None:
        """Refuse, before it is opened, what is no file of a fitting size."""
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgumentError(f"{self.path} is no regular file: give the path of one")
        if status.st_size > MAX_BYTES:
            raise ResourceExhaustedError(
                f"{self.path} has {status.st_size:,} bytes; a file of secrets has at most {MAX_BYTES:,}"
            )

    def _read(self, mark: _Mark) -> Document | str | None:
        """Return what it holds or what is wrong with that; ``None``: it changed meanwhile."""
        try:
            # not blocking: it may have become a FIFO just now, and opening that waits for its writer
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise self._explained(error) from error
        try:
            status = os.fstat(descriptor)
            if _mark(status) != mark:
                return None
            found = self._parsed(descriptor, mark)
        except OSError as error:
            raise self._explained(error) from error
        finally:
            os.close(descriptor)
        self._warn(status.st_mode)
        return found

    def _parsed(self, descriptor: int, mark: _Mark) -> Document | str | None:
        try:
            return _parsed(descriptor, mark, self._kind, *self._options)
        except BaseException as error:
            # an interrupt, or memory that ran out: the frames below hold the document
            traceback.clear_frames(error.__traceback__)
            raise

    def _explained(self, error: OSError) -> CloudRuntimesError:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return UnavailableError(f"{self.path} does not exist: make it, or correct the setting that names it")
        if error.errno in (errno.EACCES, errno.EPERM):
            return PermissionDeniedError(
                f"{self.path} may not be read by this process ({error.strerror}): check the owner and mode of it and its folders"
            )
        if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
            return InvalidArgumentError(f"{self.path} is no regular file ({error.strerror}): give the path of one")
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return ResourceExhaustedError(f"{self.path}: {error.strerror}: raise the limit (ulimit -n)", retryable=True)
        return UnavailableError(f"{self.path} cannot be read: {error.strerror}")

    def _load_parser(self) -> None:
        try:
            if (module := PARSERS[self._kind]) is not None:
                with _fork.importing:
                    import_module(module)
        except ImportError as error:
            raise InvalidArgumentError(
                f'{self.path}: YAML needs an extra: pip install "cloud-runtimes-python[yaml]"'
            ) from error

    def _warn(self, mode: int) -> None:
        """Say, once per process, that others may read or write the file."""
        if not mode & (stat.S_IROTH | stat.S_IWOTH) or self.path in _warned:
            return
        _warned.add(self.path)
        from ..._log import logger

        what = "written" if mode & stat.S_IWOTH else "read"
        logger().warning(
            "%s can be %s by every user of this machine (mode %04o): chmod 600", self.path, what, stat.S_IMODE(mode)
        )


def _mark(status: os.stat_result) -> _Mark:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _parsed(descriptor: int, mark: _Mark, kind: str, separator: str, multi_valued: bool) -> Document | str | None:
    data = _contents(descriptor, mark[2])
    if _mark(os.fstat(descriptor)) != mark or len(data) != mark[2]:
        return None
    return parse(kind, data, separator, multi_valued)


def _contents(descriptor: int, size: int) -> bytes:
    """Read a file to its end, or one byte more than it is said to have."""
    data = b""
    while len(data) <= size and (part := os.read(descriptor, size + 1 - len(data))):
        data += part
    return data
