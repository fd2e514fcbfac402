"""Conversion of values before JSON or MessagePack encodes them, compiled or not; and the path in a refusal.

`plain` turns everything that is not exactly a builtin into one, one level deep, so an encoder meets builtins only.
The encoder raises `Unencodable` at the value; each container on the way out adds its step, so a path costs nothing until
there is an error.
"""

from __future__ import annotations

import builtins
import datetime
import enum
import sys
from collections.abc import Iterable
from math import isfinite
from typing import Any

from ..errors import PayloadError

__all__ = [
    "NONFINITE", "Packed", "Unencodable", "attrs_names", "has_nonfinite", "located", "model_config", "payload_error", "plain",
    "plain_key", "render_path", "writes_aliases",
]  # fmt: skip

NONFINITE = "NaN and infinities have no form in JSON"
_MAX_ROUNDS = 8  # an enum of an enum, a model that dumps a model: more than this is one that gives itself

_BUILTIN = frozenset(
    [str, int, bool, float, type(None), dict, list, tuple, bytes, bytearray, memoryview, datetime.datetime]
)
_MAPS = (dict, getattr(builtins, "frozendict", dict))  # Python 3.15
_TOO_MANY_CLASSES = 1024
_names: dict[type, tuple[str, ...]] = {}


class Unencodable(Exception):
    """Why a value cannot be encoded, and the steps (keys and indexes) to it, innermost first."""

    def __init__(self, reason: str, cause: Exception | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause
        self.steps: list[object] = []


class Packed(bytes):
    """MessagePack that is written as it is: a value of the package's own types."""


_KEYS = (str, int, bool, float, type(None), bytes, memoryview, Packed)


def _as_unencodable(error: Exception) -> Unencodable:
    return error if isinstance(error, Unencodable) else Unencodable(f"{type(error).__name__}: {error}", error)


def located(error: Exception, step: object) -> Exception:
    """Add a step to a refusal; what user code raised becomes one. Lack of memory says nothing about the value and stays itself."""
    if isinstance(error, MemoryError):
        return error
    refused = _as_unencodable(error)
    refused.steps.append(step)
    return refused


def payload_error(error: Exception) -> Exception:
    """The error that a caller of `encode` gets; raise it ``from error.__cause__``, which is what user code raised, or None."""
    if isinstance(error, MemoryError):
        return error
    refused = _as_unencodable(error)
    result = PayloadError(f"{render_path(reversed(refused.steps))}: {refused.reason}")
    result.__cause__ = refused.cause
    return result


def render_path(steps: Iterable[object]) -> str:
    """``$.items[3].tags``: steps from the outermost in; without any ``the value``. A step that is no identifier is quoted, a long one cut."""
    out = ["$"]
    for step in steps:
        if type(step) is str and step.isidentifier():
            out.append("." + step)
        elif step is None or type(step) in (str, int, bool, float, bytes):
            text = ascii(step)
            out.append(f"[{text}]" if len(text) <= 60 else f"[{text[:57]}...]")
        else:
            out.append(f"[<{type(step).__name__}>]")
    if len(out) == 1:
        return "the value"
    text = "".join(out)
    return text if len(text) <= 400 else f"{text[:190]} ... {text[-190:]}"


def _field_names(cls: type) -> tuple[str, ...]:
    """The names of a dataclass's fields, in order, those that begin with an underscore too."""
    names = _names.get(cls)
    if names is None:
        from dataclasses import fields

        names = tuple(field.name for field in fields(cls))
        if len(_names) >= _TOO_MANY_CLASSES:
            _names.clear()
        _names[cls] = names
    return names


def attrs_names(cls: Any) -> dict[str, str]:
    """Return for each field of an attrs class the name that it is written under: its alias, which is the argument's name."""
    names = {field.name: field.name.lstrip("_") for field in cls.__attrs_attrs__}
    return {
        field.name: field.alias if field.init and field.alias != names[field.name] else field.name
        for field in cls.__attrs_attrs__
    }


def model_config(cls: Any) -> dict[str, Any]:
    """Return the configuration of a pydantic model or of a dataclass of pydantic's."""
    return getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}


def writes_aliases(cls: Any) -> bool:
    """Return whether a model is written by alias, as all are whose configuration does not have ``serialize_by_alias=False``."""
    return model_config(cls).get("serialize_by_alias") is not False


def plain(value: Any, *, json: bool = False) -> Any:
    """The builtin that stands for `value`, one level deep.

    An enum member is its value, a dataclass or an instance of an attrs class a dict of all its fields, a pydantic model or dataclass its ``model_dump`` by alias, a ``msgspec.Struct`` what msgspec makes of it, a set a list, UUID and Decimal their str, date and time (and for JSON datetime) their ISO 8601 form, an instance of a subclass of a builtin that builtin.

    Raises:
        Unencodable: nothing stands for it. What user code raises passes through.
    """
    for _ in range(_MAX_ROUNDS):
        kind = type(value)
        if kind in _BUILTIN and not (json and kind is datetime.datetime):
            return value
        if isinstance(value, enum.Enum):
            value = value.value
        elif hasattr(kind, "__dataclass_fields__") and "__pydantic_serializer__" not in vars(kind):
            return {name: getattr(value, name) for name in _field_names(kind)}
        elif hasattr(kind, "__attrs_attrs__"):
            return {written: getattr(value, name) for name, written in attrs_names(kind).items()}
        elif isinstance(value, _loaded("msgspec", "Struct")):
            return _built(value, json)
        elif isinstance(value, datetime.datetime):
            if json:
                return str(value.isoformat())
            return datetime.datetime.combine(datetime.datetime.date(value), datetime.datetime.timetz(value))
        elif isinstance(value, (datetime.date, datetime.time)):
            return str(value.isoformat())
        # An instance exists only where its module is loaded: no need to load it for the others.
        elif isinstance(value, (_loaded("uuid", "UUID"), _loaded("decimal", "Decimal"))):
            return str(value)
        elif callable(getattr(kind, "model_dump", None)) or "__pydantic_serializer__" in vars(kind):
            value = _dumped(value, json)
        elif not json and _is_packages(kind):
            return Packed(sys.modules["msgpack"].packb(value))
        else:
            return _base(value)
    raise Unencodable(f"a value of type {type(value).__name__} does not come down to a builtin")


def _is_packages(kind: type) -> bool:
    return kind in (_loaded("msgpack", "ExtType"), _loaded("msgpack", "Timestamp"))


def _loaded(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, ())


def _base(value: Any) -> Any:
    # By the base's own methods: what a subclass overrides is for its users, not for the wire.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, _MAPS):
        return dict(value.items())  # a subclass may keep another order than dict itself (OrderedDict)
    if isinstance(value, list):
        return list.copy(value)
    if isinstance(value, tuple):
        return tuple.__getitem__(value, slice(None))
    if isinstance(value, bytearray):
        return bytearray.__getitem__(value, slice(None))
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(None))
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise Unencodable(
        f"an instance of {type(value).__name__} cannot be encoded: give a dataclass, an attrs class, "
        "a msgspec.Struct, a pydantic model or bytes instead"
    )


def plain_key(key: Any) -> Any:
    """Return a scalar for a key of a MessagePack map. Raises `Unencodable`: it has another type."""
    if isinstance(key, _KEYS) or _is_packages(type(key)):
        result = plain(key)
        if type(result) in _KEYS:
            return result
    raise Unencodable(f"a key of type {type(key).__name__} cannot be encoded")


def has_nonfinite(value: Any) -> bool:
    """Whether NaN or an infinity is in what orjson writes by itself; the rest passes through `_json_std.default`, which looks there."""
    kind = type(value)
    if kind is float:
        return not isfinite(value)
    items: Any
    if kind is dict or kind is set:  # others may change it meanwhile
        items = value.copy() if kind is set else value.copy().values()
    elif kind is list or kind is tuple or kind is frozenset:
        items = value
    elif isinstance(value, enum.Enum):
        return has_nonfinite(value.value)
    elif isinstance(value, dict):
        items = dict.copy(value).values()
    elif isinstance(value, list):
        items = list.copy(value)
    else:
        return False
    for item in items:
        kind = type(item)
        if kind is str or kind is int:
            continue
        if kind is float:
            if item - item != 0.0:
                return True
        elif kind is not bool and item is not None and has_nonfinite(item):
            return True
    return False


def _has_none(value: Any) -> bool:
    if type(value) is dict:
        return any(map(_has_none, value.values()))
    return any(map(_has_none, value)) if type(value) is list else value is None


def _built(struct: Any, json: bool) -> Any:
    kept = () if json else (bytes, bytearray, datetime.datetime)
    return sys.modules["msgspec"].to_builtins(
        struct, builtin_types=kept, enc_hook=lambda inner: plain(inner, json=json)
    )


def _dumped(model: Any, json: bool) -> Any:
    kind = type(model)
    serializer = getattr(kind, "__pydantic_serializer__", None)

    def dump(mode: str) -> Any:
        if serializer is None:  # a class that only looks like a model
            return model.model_dump(mode=mode)
        if hasattr(kind, "model_dump"):
            return model.model_dump(mode=mode, by_alias=writes_aliases(kind))
        return serializer.to_python(model, mode=mode, by_alias=writes_aliases(kind))

    if not json:
        return dump("python")
    result = dump("json")
    # by default pydantic itself writes None for NaN and infinities
    if _has_none(result) and has_nonfinite(dump("python")):
        raise Unencodable(NONFINITE)
    return result
