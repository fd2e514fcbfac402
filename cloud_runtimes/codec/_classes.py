"""Strict conversion into classes: dataclasses, attrs classes, TypedDict, NamedTuple, enums, pydantic models, msgspec's structs, and what a str is parsed into."""

from __future__ import annotations

import datetime
import enum
import sys
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from .._native.plain import Unencodable, attrs_names, plain
from ..errors import InvalidArgumentError
from ._aliases import readable
from ._misfits import Converter, Path, expected, fail, name_of, short

Compile: TypeAlias = "Callable[[Any], Converter]"
"""Makes the converter of an annotation."""


def type_hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise InvalidArgumentError(f"type={name_of(cls)}: its annotations cannot be resolved ({error})") from error


def class_converter(cls: Any, compile: Compile) -> Converter:
    """The converter into a class that is no builtin. Raises `InvalidArgumentError`: the class is not supported."""
    if issubclass(cls, enum.Enum):
        return _enum(cls)
    if callable(getattr(cls, "model_validate", None)):
        return _model(cls, cls.model_validate)
    if "__pydantic_validator__" in vars(cls):  # a dataclass
        return _model(cls, cls.__pydantic_validator__.validate_python)
    if "__required_keys__" in vars(cls):
        return _typed_dict(cls, compile)
    if hasattr(cls, "__dataclass_fields__"):
        return _dataclass(cls, compile)
    if hasattr(cls, "__attrs_attrs__"):
        return _attrs(cls, compile)
    if hasattr(cls, "__struct_config__"):
        return _struct(cls, compile)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple(cls, compile)
    if cls in (datetime.datetime, datetime.date, datetime.time):
        return _parsed(cls, cls.fromisoformat)
    if cls.__module__ in ("uuid", "decimal", "_decimal", "_pydecimal") and cls.__name__ in ("UUID", "Decimal"):
        return _parsed(cls, cls)
    raise InvalidArgumentError(f"type={name_of(cls)} is not supported")


def _parsed(cls: type, parse: Callable[[str], Any]) -> Converter:
    def parsed(value: Any, path: Path) -> Any:
        if type(value) is cls:
            return value
        if type(value) is not str:
            expected(path, cls, value)
        try:
            return parse(value)
        except (ValueError, ArithmeticError) as error:  # decimal.InvalidOperation is an ArithmeticError
            fail(path, f"expected {cls.__name__}, got a str that is none", error)

    return parsed


def _enum(cls: type[enum.Enum]) -> Converter:
    # 1, True and 1.0 are equal and not the same, so the type is compared too
    members: list[tuple[Any, enum.Enum]] = []
    for each in cls:
        members.append((each.value, each))
        try:
            members.append((plain(each.value, json=True), each))
        except Unencodable:
            pass

    def member(value: Any, path: Path) -> Any:
        if type(value) is cls:
            return value
        content = tuple(value) if type(value) is list else value
        for known, result in members:
            if type(content) is type(known) and content == known:
                return result
        if issubclass(cls, enum.Flag) and type(value) is int:
            try:
                instance = cls(value)
            except ValueError as error:
                fail(path, f"expected {cls.__name__}, got {value}", error)
            if instance.value == value:  # else bits that it does not have were dropped, as Python < 3.11.4 does unasked
                return instance
        fail(path, f"expected {cls.__name__}, got {short(value)}")

    return member


def _typed_dict(cls: Any, compile: Compile) -> Converter:
    hints = type_hints(cls)
    required = set(cls.__required_keys__)
    for key, hint in hints.items():
        # under `from __future__ import annotations` the class itself has not seen these two
        origin = typing.get_origin(hint)
        if origin is typing.Required:
            required.add(key)
        elif origin is typing.NotRequired:
            required.discard(key)
    return _record(cls, {key: compile(hint) for key, hint in hints.items()}, frozenset(required), dict)


def _dataclass(cls: type, compile: Compile) -> Converter:
    import dataclasses

    hints = type_hints(cls)
    parts: dict[str, Converter] = {}
    late: set[str] = set()
    required: set[str] = set()
    for field in dataclasses.fields(cls):
        parts[field.name] = compile(hints[field.name])
        if not field.init:
            late.add(field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.add(field.name)

    def make(values: dict[str, Any]) -> Any:
        # a field with init=False is computed by the class: what was encoded for it is checked and left
        return cls(**{name: each for name, each in values.items() if name not in late} if late else values)

    return _record(cls, parts, frozenset(required), make)


def _attrs(cls: Any, compile: Compile) -> Converter:
    hints = type_hints(cls)
    fields = cls.__attrs_attrs__
    written = attrs_names(cls)
    parts = {written[field.name]: compile(hints.get(field.name, field.type or Any)) for field in fields}
    # a private field has another name as an argument; one without an argument is computed by the class
    arguments = {written[field.name]: field.alias for field in fields if field.init}
    nothing = sys.modules["attr"].NOTHING
    required = frozenset(written[field.name] for field in fields if field.init and field.default is nothing)

    def make(values: dict[str, Any]) -> Any:
        return cls(**{arguments[name]: each for name, each in values.items() if name in arguments})

    names = [(each, written[field.name]) for field in fields if field.init for each in (field.name, field.alias)]
    renamed = {name: other for name, other in names if name not in parts}
    return _record(cls, parts, required, make, renamed)


def _struct(cls: Any, compile: Compile) -> Converter:
    msgspec = sys.modules["msgspec"]

    def struct(value: Any, path: Path) -> Any:
        if type(value) is cls:
            return value
        try:
            return msgspec.convert(value, cls, dec_hook=lambda kind, inner: compile(kind)(inner, "$"))
        except Exception as error:
            fail(path, f"{cls.__name__}: {error}", error)

    return struct


def _record(
    cls: type,
    parts: dict[str, Converter],
    required: frozenset[str],
    make: Callable[[dict[str, Any]], Any],
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Converter:
    """Return the converter of a mapping with known keys; ``renamed`` has those that stand for another one."""

    def record(value: Any, path: Path) -> Any:
        if type(value) is not dict:
            if type(value) is cls:
                return value
            expected(path, cls, value)
        values: dict[str, Any] = {}
        for key, each in value.items():
            part = parts.get(key)
            if part is None:
                if renamed.get(key, key) in value:
                    fail((path, key), f"{cls.__name__} has no such field")
                key = renamed[key]
                part = parts[key]
            values[key] = part(each, (path, key))
        if not required <= values.keys():
            missing = next(name for name in parts if name in required and name not in values)
            fail((path, missing), "missing")
        try:
            return make(values)
        except Exception as error:
            fail(path, f"{cls.__name__}: {error}", error)

    return record


def _named_tuple(cls: Any, compile: Compile) -> Converter:
    hints = type_hints(cls)
    parts = {name: compile(hints.get(name, Any)) for name in cls._fields}
    fewest = len(parts) - len(cls._field_defaults)

    def named(value: Any, path: Path) -> Any:
        if type(value) is not list and type(value) is not tuple:
            expected(path, cls, value)
        if not fewest <= len(value) <= len(parts):
            fail(path, f"expected {len(parts)} items, got {len(value)}")
        items = zip(parts.items(), value, strict=False)
        return cls(*[part(each, (path, name)) for (name, part), each in items])

    return named


def _model(cls: Any, validate: Callable[[Any], Any]) -> Converter:
    rename = readable(cls)

    def model(value: Any, path: Path) -> Any:
        if type(value) is cls:
            return value
        if type(value) is not dict and not getattr(cls, "__pydantic_root_model__", False):
            expected(path, cls, value)
        try:
            return validate(value if rename is None else rename(value))
        except Exception as error:
            location: Path = path
            reason = f"{cls.__name__}: {error}"
            if type(error).__name__ == "ValidationError":
                first = error.errors(include_url=False, include_input=False)[0]  # type: ignore[attr-defined]
                reason = first["msg"]
                for step in first["loc"]:
                    location = (location, step)
            fail(location, reason, error)

    return model
