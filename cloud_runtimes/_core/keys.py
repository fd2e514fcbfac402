"""The rules of keys, for every service that has some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..errors import InvalidArgumentError

__all__ = ["MAX_KEY_BYTES", "check_key", "check_keys", "check_several"]

MAX_KEY_BYTES: Final = 1024


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
    if "\0" in key or ("||" in key and not bars):
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
