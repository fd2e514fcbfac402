"""Checks of the arguments that every call has: ``timeout=`` and ``metadata=``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import InvalidArgumentError

__all__ = ["CLIENT_TIMEOUT", "check_metadata", "check_timeout"]


class _ClientTimeout(float):
    """The type of `CLIENT_TIMEOUT`; a float so that signatures stay plain."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<the client's timeout>"


CLIENT_TIMEOUT: Final[float] = _ClientTimeout("nan")
"""Default of every ``timeout=``: not given, so the client's applies. ``None`` means no limit."""


def check_timeout(timeout: float | None, default: float | None = None) -> float | None:
    """Return a timeout in seconds, ``None`` for no limit; refuse what is no number, not finite, or ≤ 0."""
    if timeout is CLIENT_TIMEOUT:
        return default
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InvalidArgumentError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if not 0 < timeout < float("inf"):
        raise InvalidArgumentError(
            f"timeout must be a finite number of seconds > 0, or None for no limit; got {timeout}"
        )
    return timeout


def check_metadata(metadata: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return ``metadata``; refuse what is not a mapping of strings."""
    if metadata is not None:
        if not isinstance(metadata, Mapping):
            raise InvalidArgumentError(f"metadata must be a mapping of str to str, not {type(metadata).__name__}")
        for name, value in metadata.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise InvalidArgumentError(
                    f"metadata must be a mapping of str to str; {name!r} is {type(value).__name__}: give str(value)"
                )
    return metadata
