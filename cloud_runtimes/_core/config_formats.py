"""TOML, JSON and YAML: bytes → tables.

Reading does not raise: an error of a parser holds the document, as an attribute, as a quoted line, or in the variables of its frames. What is wrong is told as text that names places and never what stands there. `without_values` keeps what raises later from showing it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, ParamSpec, TypeVar

from ..errors import CloudRuntimesError
from . import extras

P = ParamSpec("P")
T = TypeVar("T")

KINDS: Final[Mapping[str, str]] = {".toml": "toml", ".json": "json", ".yaml": "yaml", ".yml": "yaml"}
"""The end of a file's name → its kind."""
_MODULES: Final[Mapping[str, str]] = {"toml": "tomllib", "json": "json", "yaml": "yaml"}


def load_parser(kind: str, path: object) -> None:
    """Load what `read_tables` needs for a kind, where a fork is safe; other kinds need nothing."""
    if (module := _MODULES.get(kind)) is not None:
        with extras.importing(f"{path}: YAML", "yaml"):
            import_module(module)


def read_tables(data: bytes, kind: str) -> dict[Any, Any] | str:
    """Return the tables of a document, or what is wrong with it. The parser of its kind is loaded."""
    return _read(_PARSERS[kind], data, dict)


def read_documents(data: bytes, doubled: Callable[[str], None]) -> list[Any] | str:
    """Return the documents of YAML, of which the parser is loaded, or what is wrong; nothing of the text is told.

    Of a key that stands twice in a table the last counts, as for daprd. ``doubled`` is told where.
    """
    return _read(lambda text: _yaml_documents(text, lambda what: doubled(f"{what}: the last counts")), data, list)


def _read(parse: Callable[[str], Any], data: bytes, kind: type[T]) -> T | str:
    try:
        match = parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    except RecursionError:
        return "syntax error: nested too deeply"
    except _Twice as twice:
        return f"syntax error: {twice}"
    except MemoryError:
        raise
    except Exception as error:
        return f"syntax error{_position(error)}"
    return match if isinstance(match, kind) else f"expected tables at the top, found {type(match).__name__}"


def _position(error: Exception) -> str:
    """Tell where, of what an error of one of the parsers says."""
    mark = getattr(error, "problem_mark", None)  # PyYAML
    line, column = getattr(error, "lineno", None), getattr(error, "colno", None)  # json
    if mark is not None:
        line, column = mark.line + 1, mark.column + 1
    elif line is None and (match := re.search(r"at line (\d+), column (\d+)\)$", str(error))):  # tomllib
        line, column = match[1], match[2]
    if line is None and str(error).endswith("(at end of document)"):
        return " at the end of the document"
    return "" if line is None else f" at line {line}, column {column}"


class _Twice(Exception):
    """A key that stands twice; tells its place, as a slip makes a key of a value."""


def _distinct(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return pairs of JSON as a dict; refuse a key that stands twice, as TOML does by itself."""
    table: dict[Any, Any] = {}
    for number, (key, value) in enumerate(pairs, 1):
        if key in table:
            raise _Twice(f"key {number} of a table of {len(pairs)} stands twice")
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

    value = yaml.load(text, _yaml_loader())  # noqa: S506  # a SafeLoader
    return {} if value is None else value  # an empty document


def _yaml_documents(text: str, doubled: Callable[[str], None]) -> Any:
    import yaml

    return list(yaml.load_all(text, _yaml_loader(doubled)))


def _refuse(what: str) -> None:
    raise _Twice(what)


def _yaml_loader(doubled: Callable[[str], None] = _refuse) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Looks for a key that stands twice, which YAML refuses and PyYAML does not see."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    continue
                if (key_value := self.construct_object(key, deep=True)) in seen:
                    mark = key.start_mark
                    doubled(f"the key at line {mark.line + 1}, column {mark.column + 1} stands twice in one table")
                seen.add(key_value)
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    return Loader


_PARSERS: Final = {"json": _json, "toml": _toml, "yaml": _yaml}


def without_values(function: Callable[P, T]) -> Callable[P, T]:
    """Cut the frames below a function from its errors, and the errors that those came from.

    Their variables hold values of the configuration, which a traceback with variables would show.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except CloudRuntimesError as error:
            failure = error
        del args, kwargs
        failure.__context__ = None
        try:
            raise failure.with_traceback(None)
        finally:
            del failure  # its traceback holds this frame

    return call
