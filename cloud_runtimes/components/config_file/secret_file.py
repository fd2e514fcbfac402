"""A file of secrets: what is served of it, and when it is an error.

While a file is being written, and for `GRACE` seconds while it cannot be parsed, which counts as half-written, the secrets of before are served. A file that is gone, or may not be read, is an error at once.
"""

from __future__ import annotations

import stat
from typing import Final

from ..._core.clocks import Clocks
from ..._core.config_formats import load_parser
from ...errors import CloudRuntimesError, PayloadError
from ...spi.operation import Operation
from .document import Document, parse
from .watched import Watched, fresh

__all__ = ["GRACE", "PATIENCE", "SecretFile"]

GRACE: Final = 2.0
PATIENCE: Final = 5.0
"""Seconds that a call waits at most where there are no secrets of before."""

_NOTHING: Final = Document({}, {})
_warned: set[str] = set()


class SecretFile:
    """One file. Any number of threads use it at once.

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
        self._options = (separator, multi_valued)
        self._optional = optional
        self._prepared = False
        self._file: Watched[Document] = Watched(path, self._parsed, clocks, keep=False)

    def _parsed(self, data: bytes) -> Document | CloudRuntimesError:
        found = parse(self._kind, data, *self._options)
        return PayloadError(f"{self.path}: {found}") if isinstance(found, str) else found

    def load(self, op: Operation) -> Document:
        """Return what the file holds.

        Raises:
            PayloadError: it cannot be parsed; says where and quotes nothing.
            UnavailableError: it is not there, or the disk failed.
            PermissionDeniedError, InvalidArgumentError, ResourceExhaustedError: it cannot be read, is no file, is too large.
            DeadlineExceededError: there is nothing from before, and it did not come to rest in time.
        """
        if not self._prepared:
            load_parser(self._kind, self.path)
            self._prepared = True
        found = self._file.settled(op, patience=PATIENCE, old=True)
        document, problem = found.value, found.problem
        if document is not None and (problem is None or found.hurry or 0 <= found.age < GRACE):
            self._warn(found.mode)
            return document
        assert problem is not None
        if self._optional and isinstance(problem.__cause__, (FileNotFoundError, NotADirectoryError)):
            return _NOTHING
        raise fresh(problem)

    def _warn(self, mode: int) -> None:
        """Say, once per process, that others may read or write the file."""
        if not mode & (stat.S_IROTH | stat.S_IWOTH) or self.path in _warned:
            return
        _warned.add(self.path)
        from ..._core.logs import logger

        what = "written" if mode & stat.S_IWOTH else "read"
        logger().warning(
            "%s can be %s by every user of this machine (mode %04o): chmod 600", self.path, what, stat.S_IMODE(mode)
        )
