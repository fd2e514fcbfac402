"""How names stand in a bucket, without I/O.

A name is its own key, so other programs find it. obstore takes no control characters and no empty or dotted segments. A name with one stands below `AREA`, in hexadecimal, which keeps the byte order.
"""

from __future__ import annotations

import re
from typing import Final

from ...errors import InvalidArgumentError

AREA: Final = ".cr-names/"
LAST: Final = "\U0010ffff"
_KEY_BYTES: Final = 1024
_BAD: Final = re.compile(r"[\x00-\x1f\x7f\ufffe\uffff]|//|^/|/$|(?:^|/)\.{1,2}(?:/|$)")
_BAD_ON_AZURE: Final = re.compile(rf"{_BAD.pattern}|\\|\.(?:/|$)")
"""Azure takes a backslash for a slash, and dots off the end of a segment."""


class Names:
    """Names and keys of one store; ``root`` is the prefix of its keys."""

    def __init__(self, store: str, root: str, azure: bool) -> None:
        self.root = root
        self._store = store
        self._bad = _BAD_ON_AZURE if azure else _BAD

    def plain(self, name: str) -> bool:
        """Return whether a name is its own key."""
        return not (self._bad.search(name) or name.startswith(AREA) or not name)

    def key(self, name: str) -> str:
        """Return the key of a name.

        Raises:
            InvalidArgumentError: it is too long.
        """
        key = self.root + (name if self.plain(name) else AREA + name.encode().hex())
        if len(key) > _KEY_BYTES // 4 and (size := len(key.encode())) > _KEY_BYTES:
            raise InvalidArgumentError(
                f"the name {name[:60]!r}… needs a key of {size} bytes in {self._store!r}, prefix included; "
                f"a bucket takes {_KEY_BYTES}: shorten it"
            )
        return key

    def name(self, key: str) -> str | None:
        """Return the name of a key, ``None``: it is none of ours."""
        name = key[len(self.root) :]
        if not name.startswith(AREA):
            return name
        try:
            return bytes.fromhex(name[len(AREA) :]).decode()
        except ValueError:
            return None


def cut(text: str) -> str | None:
    """Return the start of a text that can be a key, for a listing to begin behind; ``None``: there is none."""
    match = _BAD.search(text)
    return (text if match is None else text[: match.start()]).rstrip("/") or None


def before(prefix: str) -> str:
    """Return a text that sorts before all that begin with a prefix, and behind nearly all that sort before it."""
    if not prefix or prefix[-1] <= " ":
        return prefix[:-1]
    code = ord(prefix[-1]) - 1
    return prefix[:-1] + chr(0xD7FF if code == 0xDFFF else code) + LAST
