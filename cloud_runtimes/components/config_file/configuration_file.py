"""A file of configuration: whatever is wrong with it, its last good values stay, and that is said once in a while."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ... import config
from ..._core.clocks import Clocks
from ..._core.logs import repeated
from ...errors import CloudRuntimesError, UnavailableError
from ...spi.operation import Operation
from .flat import flatten
from .watched import LONGEST, QUIET, Look, Watched, fresh

__all__ = ["ConfigurationFile", "Values"]

_PATIENCE: Final = 1.0
"""Seconds for which a missing or broken file is nothing to speak of."""
_EVERY: Final = 60.0

Values = Mapping[str, str]


class ConfigurationFile:
    """One file. Any number of threads may use it. Values that are the same are the same object.

    Args:
        path: absolute.
        suffix: which kind of file it is, one of `config.SUFFIXES`.
        clocks: that the rules about time use.
    """

    def __init__(self, path: Path, suffix: str, clocks: Clocks) -> None:
        self.path = path
        self._suffix = suffix
        self._clocks = clocks
        self._file: Watched[Values] = Watched(str(path), self._parsed, clocks, keep=True)
        self._spoken = float("-inf")

    def _parsed(self, data: bytes) -> Values | CloudRuntimesError:
        if not data.strip():
            return UnavailableError(
                f"{self.path} is empty: is it being written? A file without values is {{}} or a comment"
            )
        try:
            return flatten(config.parse(data, self._suffix, self.path), self.path)
        except CloudRuntimesError as error:
            return error.with_traceback(None)

    def look(self) -> Look[Values]:
        """Look at the file once; speaks of a problem that there has been for a while, once a minute."""
        return self._spoken_of(self._file.look())

    def values(self, op: Operation) -> Values:
        """Return the file's values; of one that is being written, wait for the end, a moment.

        Raises:
            CloudRuntimesError: there were none ever; says why.
        """
        found = self._spoken_of(self._file.settled(op, patience=LONGEST + QUIET, old=False))
        if found.value is not None:
            return found.value
        assert found.problem is not None
        raise fresh(found.problem)

    def _spoken_of(self, found: Look[Values]) -> Look[Values]:
        if found.problem is not None and found.value is not None:
            now = self._clocks.monotonic()
            if now - found.since >= _PATIENCE and now - self._spoken >= _EVERY:
                self._spoken = now
                repeated(f"watched {self.path}", "%s; its last good values are kept", found.problem)
        return found
