"""From the tables of a file to keys and texts.

==================  =====================================================================
in the file         here
==================  =====================================================================
a table in a table  its keys, joined by dots: ``[db] host = "x"`` is ``db.host``
text                as it is
a whole number      in decimal: ``0x10`` is ``16``
another number      the shortest text that is the same number: ``1.50`` is ``1.5``
true and false      ``true``, ``false``
date and time       RFC 3339, as TOML and YAML write it: ``2026-01-31T08:00:00+00:00``
an array            JSON, its members by the same rules: ``["a", 1, {"b": true}]``
null, empty table   nothing: there is no such key
==================  =====================================================================
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..._core.arguments import check_key
from ...errors import InvalidArgumentError

__all__ = ["flatten"]

_MOST: Final = 1_000_000
"""Values of one file: YAML's aliases make much out of little."""
_DEPTH: Final = 100


def flatten(tables: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Return key → text.

    Raises:
        InvalidArgumentError: two keys become the same, one is no key of ours, or a value is of no kind named above.
    """
    found: dict[str, str] = {}
    try:
        budget = iter(range(_MOST))
        for key, value in _walk(tables, "", budget, 0):
            if value is None:
                continue
            if check_key(key) in found:
                raise InvalidArgumentError(f"{key!r} stands there twice, once with dots in its name")
            if not value.isascii():
                value.encode()
            found[key] = value
    except UnicodeEncodeError:
        raise InvalidArgumentError(
            f"{path}: {key!r} has a lone surrogate, which is not UTF-8: repair the text"
        ) from None
    except (ValueError, RecursionError) as error:  # InvalidArgumentError too
        raise InvalidArgumentError(f"{path}: {error}") from None
    return found


def _walk(table: Mapping[Any, Any], before: str, budget: Iterator[int], depth: int) -> Iterator[tuple[str, str | None]]:
    if depth > _DEPTH:
        raise InvalidArgumentError(f"tables are nested more than {_DEPTH} deep")
    for name, value in table.items():
        key = f"{before}{_name(name)}"
        if isinstance(value, Mapping):
            yield from _walk(value, f"{key}.", budget, depth + 1)
        elif isinstance(value, list):
            yield key, json.dumps(_plain(value, key, budget), ensure_ascii=False)
        else:
            _count(budget)
            yield key, _text(value, key)


def _name(name: Any) -> str:
    if isinstance(name, str):
        return name
    text = _text(name, str(name)) if name is not None else None
    if text is None:
        raise InvalidArgumentError("a key is null: give it a name")
    return text


def _text(value: Any, key: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise InvalidArgumentError(f"{key!r} is {type(value).__name__}: write it as text")


def _plain(value: Any, key: str, budget: Iterator[int]) -> Any:
    """Return a member of an array as JSON has it; what JSON does not have, as text."""
    _count(budget)
    if isinstance(value, Mapping):
        return {_name(name): _plain(each, key, budget) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, key, budget) for each in value]
    if isinstance(value, float) and value - value != 0:  # NaN and infinity
        return repr(value)
    return value if value is None or isinstance(value, (bool, int, float)) else _text(value, key)


def _count(budget: Iterator[int]) -> None:
    if next(budget, None) is None:
        raise InvalidArgumentError(f"more than {_MOST:,} values")
