"""Checks of the arguments that many calls have: ``timeout=``, ``metadata=`` and keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ..errors import InvalidArgumentError

MAX_KEY_BYTES: Final = 1024
HIDDEN: Final = "||"
"""Beginning of keys of our own in a store; no key of an application has it anywhere."""
OUTBOX: Final = f"{HIDDEN}outbox{HIDDEN}"
"""Beginning of the hidden keys whose order of commits a store may keep."""


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


def check_key(key: str, *, bars: bool = False) -> str:
    """Return ``key``; a key is 1 to 1,024 bytes of UTF-8 without NUL, and without ``||`` but where ``bars`` are allowed."""
    if not isinstance(key, str):
        raise InvalidArgumentError(f"a key must be str, not {type(key).__name__}")
    size = len(key)
    if not key.isascii():
        try:
            size = len(key.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"key {key!r}: a lone surrogate at {error.start} is not UTF-8; repair the text"
            ) from None
    if not 0 < size <= MAX_KEY_BYTES:
        shown = repr(key if size < 80 else key[:60] + "…")
        raise InvalidArgumentError(
            f"key {shown}: {size} bytes; a key has 1 to {MAX_KEY_BYTES} bytes of UTF-8: shorten or hash it"
        )
    if "\0" in key or (HIDDEN in key and not bars):
        reserved = "NUL is" if bars else "NUL and '||' are"
        raise InvalidArgumentError(f"key {key!r}: {reserved} reserved; use another separator")
    return key


def check_several(what: str, values: object) -> None:
    """Refuse what is one thing where several are wanted."""
    if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{what} must be several, not one {type(values).__name__}: give a list")


def check_keys(keys: Iterable[str]) -> list[str]:
    """Return several keys, each once."""
    check_several("keys", keys)
    return list(dict.fromkeys(check_key(key) for key in keys))
