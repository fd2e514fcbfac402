"""What a file of secrets says: its bytes → secrets by key.

Nothing here raises, for the reason that `_tables` names: what is wrong is told as text that names places and never values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from ..._core.arguments import MAX_KEY_BYTES
from ..._core.config_formats import KINDS, read_tables
from ...spi.secret import Secret
from .dotenv import parse as parse_dotenv

__all__ = ["Document", "kind_of", "parse"]

_MAX_ENTRIES: Final = 100_000
_MAX_DEPTH: Final = 64


class Document:
    """The secrets of a file; not changed once made.

    Attributes:
        secrets: by key.
        wrong: key → why it cannot be served.
    """

    __slots__ = ("secrets", "wrong")

    def __init__(self, secrets: Mapping[str, Secret], wrong: Mapping[str, str]) -> None:
        self.secrets = secrets
        self.wrong = wrong


def kind_of(path: str) -> str | None:
    """Return the kind of file, by the end of its name: a value of `_tables.KINDS`, or ``"dotenv"`` for ``*.env``, ``.env`` and ``.env.*``."""
    name = PurePath(path).name.lower()
    if name.startswith(".env.") or name.endswith(".env"):
        return "dotenv"
    return KINDS.get(PurePath(name).suffix)


def parse(kind: str, data: bytes, separator: str, multi_valued: bool) -> Document | str:
    """Return what a file says, or what is wrong with it."""
    tree = _dotenv(data) if kind == "dotenv" else read_tables(data, kind)
    return tree if isinstance(tree, str) else _document(tree, separator, multi_valued)


def _dotenv(data: bytes) -> dict[str, str] | str:
    try:
        return parse_dotenv(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"


def _document(tree: dict[Any, Any], separator: str, multi_valued: bool) -> Document | str:
    """Flatten nested tables, as Dapr's local file store does (secretstores/local/file, ``nestedSeparator``, ``multiValued``)."""
    groups: dict[str, dict[str, str]] = {}
    wrong: dict[str, str] = {}
    for count, (path, value) in enumerate(_leaves(tree, ())):
        if count == _MAX_ENTRIES:
            return f"more than {_MAX_ENTRIES} entries"
        if len(path) > _MAX_DEPTH:
            return "nested too deeply"
        key = path[0] if multi_valued else separator.join(path)
        entry = separator.join(path[1:]) if multi_valued and len(path) > 1 else key
        problem = _unfit(key, value)
        if problem is not None:
            wrong[key] = problem if entry == key else f"its entry {entry!r}: {problem}"
        elif entry in groups.setdefault(key, {}):
            wrong[key] = f"{entry!r} stands twice, once in nested tables"
        else:
            groups[key][entry] = value
    return Document({key: Secret(values) for key, values in groups.items() if key not in wrong}, wrong)


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what is no table and no list, with the way to it; an element of a list has its index as name."""
    if len(path) > _MAX_DEPTH or not isinstance(tree, (dict, list)):
        yield path, tree
        return
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _leaves(value, (*path, str(name)))


def _unfit(key: str, value: Any) -> str | None:
    """Say why a value cannot be a secret under a key."""
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        return f"is {kind}, not text: put it into quotes"
    try:
        size = len(key.encode())
        value.encode()
    except UnicodeEncodeError:
        return "holds a lone surrogate, which is not UTF-8"
    if not 0 < size <= MAX_KEY_BYTES or "\0" in key:
        return f"is no key that can be asked for: 1 to {MAX_KEY_BYTES} bytes without NUL"
    return None
