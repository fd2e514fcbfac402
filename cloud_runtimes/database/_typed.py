"""Rows as values of a type: the conversion of `codec`, and what a row is to it."""

from __future__ import annotations

import collections.abc as abc
import types
import typing
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from ..errors import InvalidArgumentError, PayloadError
from .types import Row

_MAPPINGS: Final = (dict, abc.Mapping, abc.MutableMapping)
_SEQUENCES: Final = (list, tuple, set, frozenset, abc.Sequence)


def maker(columns: tuple[str, ...], type: Any, lacks: frozenset[type]) -> Callable[[int, Sequence[Any]], Any]:
    """Return what makes a row's values into a value of ``type``; it is called with the row's number and values.

    ``None`` gives a `Row`. A dataclass, TypedDict, NamedTuple, pydantic model or mapping is made of the columns by name, a tuple or list of the values in their order, anything else of the value of the only column.
    """
    if type is None or type is Row:
        index = {name: at for at, name in enumerate(columns)}
        build_row = Row._build
        return lambda number, values: build_row(index, values)
    from ..codec.convert import convert

    if _is_named(type):
        adapted = _adapters(type, columns, lacks)
        fields = getattr(_kind(type), "_fields", None)
        if fields is not None and set(fields) != set(columns):
            raise PayloadError(f"{type!r} has the fields {', '.join(fields)}, the rows {', '.join(columns)}")

        def named(number: int, values: Sequence[Any]) -> Any:
            row = dict(zip(columns, values, strict=True))
            for name, adapt in adapted:
                row[name] = adapt(row[name])
            given: Any = row if fields is None else [row[name] for name in fields]
            return convert(given, type, f"row {number}: $")

        return named
    if _kind(type) in _SEQUENCES:
        return lambda number, values: convert(list(values), type, f"row {number}: $")
    if len(columns) != 1:
        raise InvalidArgumentError(
            f"type={type!r} is made of one column, and the rows have {len(columns)}: {', '.join(columns)}"
        )
    adapt = _adapter(type, lacks)
    column = columns[0]
    if adapt is None:
        return lambda number, values: convert(values[0], type, f"row {number}: $.{column}")
    return lambda number, values: convert(adapt(values[0]), type, f"row {number}: $.{column}")


def _kind(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation


def _is_named(annotation: Any) -> bool:
    kind = _kind(annotation)
    if kind in (typing.Union, types.UnionType):
        return any(_is_named(each) for each in typing.get_args(annotation))
    if kind is typing.Annotated:
        return _is_named(typing.get_args(annotation)[0])
    return (
        kind in _MAPPINGS
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__required_keys__")
        or callable(getattr(kind, "model_validate", None))
        or (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


@lru_cache(maxsize=256)
def _hints(annotation: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(annotation)
    except Exception:  # convert says what is wrong with it
        return {}


def _adapters(
    annotation: Any, columns: tuple[str, ...], lacks: frozenset[type]
) -> list[tuple[str, Callable[[Any], Any]]]:
    if not lacks or _kind(annotation) in (*_MAPPINGS, typing.Union, types.UnionType):
        return []
    hints = _hints(_kind(annotation))
    adapters = ((name, _adapter(hints[name], lacks)) for name in columns if name in hints)
    return [(name, adapt) for name, adapt in adapters if adapt is not None]


def _adapter(annotation: Any, lacks: frozenset[type]) -> Callable[[Any], Any] | None:
    """Return what makes a value of a database without that type into one that fits the annotation."""
    try:
        hash(annotation)
    except TypeError:
        raise InvalidArgumentError(f"type must be a type, not {annotation!r}") from None
    members = set(
        typing.get_args(annotation) if _kind(annotation) in (typing.Union, types.UnionType) else (annotation,)
    )
    if bool in members & lacks and not members & {int, float}:
        return _to_bool
    if Decimal in members & lacks and not members & {int, float, str}:
        return _to_decimal
    if UUID in members & lacks:
        return _to_uuid
    if bytes in members & lacks and str not in members:
        return _to_bytes
    if dict in lacks and str not in members and any(_kind(each) in (dict, list) for each in members):
        return _to_json
    return None


def _to_bool(value: Any) -> Any:
    return bool(value) if type(value) is int and value in (0, 1) else value


def _to_bytes(value: Any) -> Any:
    if type(value) is not str or not value.startswith("\\x"):
        return value
    try:
        return bytes.fromhex(value[2:])
    except ValueError:
        return value


def _to_json(value: Any) -> Any:
    from ..codec import json

    return json.decode(value) if type(value) is str else value


def _to_uuid(value: Any) -> Any:
    return UUID(int=value.int) if isinstance(value, UUID) else value


def _to_decimal(value: Any) -> Any:
    return Decimal(repr(value)) if type(value) in (int, float) else value
