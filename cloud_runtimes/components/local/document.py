"""What a file of secrets says: its bytes → secrets by key.

Nothing here raises: an error of a parser holds the document, as an attribute, as a quoted line, or in the variables of its frames. What is wrong is told as text that names places and never values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from ...secret.types import Secret
from .dotenv import parse as parse_dotenv

__all__ = ["KINDS", "PARSERS", "Document", "kind_of", "parse"]

KINDS: Final[Mapping[str, str]] = {
    ".json": "json",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".env": "dotenv",
}
PARSERS: Final[Mapping[str, str | None]] = {"json": "json", "toml": "tomllib", "yaml": "yaml", "dotenv": None}
"""Kind → the module that parses it; a caller loads it first, where a fork is safe."""
_MAX_ENTRIES: Final = 100_000
_MAX_DEPTH: Final = 64
_MAX_KEY_BYTES: Final = 1024


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
    """Return a value of `KINDS`, by the end of a file's name; ``.env`` and ``.env.local`` are dotenv too."""
    name = PurePath(path).name.lower()
    if name == ".env" or name.startswith(".env."):
        return "dotenv"
    return KINDS.get(PurePath(name).suffix)


def parse(kind: str, data: bytes, separator: str, multi_valued: bool) -> Document | str:
    """Return what a file says, or what is wrong with it."""
    tree = _tree(kind, data)
    return tree if isinstance(tree, str) else _document(tree, separator, multi_valued)


def _tree(kind: str, data: bytes) -> dict[Any, Any] | str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    try:
        found = _PARSERS[kind](text)
    except RecursionError:
        return "nested too deeply"
    except _Twice as twice:
        return f"{twice} stands twice in one table"
    except MemoryError:
        raise
    except Exception as error:
        return f"syntax error{_place(error)}"
    if kind == "yaml" and found is None:  # an empty document
        return {}
    if isinstance(found, dict) or (kind == "dotenv" and isinstance(found, str)):
        return found
    return f"expected a table of secrets at the top, found {type(found).__name__}"


def _place(error: Exception) -> str:
    """Tell where, of what an error of one of the parsers says."""
    mark = getattr(error, "problem_mark", None)  # PyYAML
    line, column = getattr(error, "lineno", None), getattr(error, "colno", None)  # json
    if mark is not None:
        line, column = mark.line + 1, mark.column + 1
    elif line is None and (found := re.search(r"at line (\d+), column (\d+)\)$", str(error))):  # tomllib
        line, column = found[1], found[2]
    if line is None and str(error).endswith("(at end of document)"):
        return " at the end of the document"
    return "" if line is None else f" at line {line}, column {column}"


class _Twice(Exception):
    """A key that stands twice."""


def _distinct(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    table: dict[Any, Any] = {}
    for key, value in pairs:
        if key in table:
            raise _Twice(repr(key))
        table[key] = value
    return table


def _json(text: str) -> Any:
    import json

    return json.loads(text, object_pairs_hook=_distinct)


def _toml(text: str) -> Any:
    import tomllib

    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Refuses a key that stands twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [
                self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"
            ]
            _distinct([(key, None) for key in keys])
            made: dict[Any, Any] = super().construct_mapping(node, deep)
            return made

    return yaml.load(text, Loader)


_PARSERS: Final = {"json": _json, "toml": _toml, "yaml": _yaml, "dotenv": parse_dotenv}


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
    if not 0 < size <= _MAX_KEY_BYTES or "\0" in key:
        return f"is no key that can be asked for: 1 to {_MAX_KEY_BYTES} bytes without NUL"
    return None
