"""Strict conversion of decoded data into an annotated type.

An annotation is compiled once into a function of (value, path), nested ones into nested functions; the pair is kept per annotation. Nothing is guessed: a bool is no int, a str is no number, an int is a float, an unknown key of a dataclass or a TypedDict is refused. A path is a linked pair (outer path, step) and is only rendered for an error.
"""

from __future__ import annotations

import collections.abc as abc
import datetime
import enum
import types
import typing
from collections.abc import Callable
from typing import Any, TypeAlias

from .._native import hooks
from .._native.plain import Refused, plain, render_path
from ..errors import InvalidArgumentError, PayloadError

__all__ = ["convert"]

Path: TypeAlias = "tuple[Any, Any] | str"
Converter: TypeAlias = "Callable[[Any, Path], Any]"
_TOO_MANY_TYPES = 2048
_compiled: dict[Any, Converter] = {}


def convert(value: Any, type: Any, path: str = "$") -> Any:
    """Give `value`, decoded data, as a value of `type`.

    Args:
        value: what a decoder gave.
        type: None, bool, int, float, str, bytes, Any, object; list, tuple, set, frozenset, dict and their abstract kinds, bare or with parameters; unions (the first member that fits without conversion, else the first that fits), Literal, Enum, datetime, date, time, UUID, Decimal (themselves, or their str), dataclasses, TypedDict, NamedTuple, NewType, Annotated, type aliases, pydantic models.
        path: what stands for the value in messages.

    Raises:
        PayloadError: the value does not fit, e.g. ``$.items[3].qty: expected int, got str``.
        InvalidArgumentError: the annotation is not supported.
    """
    try:
        converter = _compiled.get(type)
    except TypeError:  # an annotation that cannot be hashed, such as Literal[[]]
        converter = None
    if converter is None:
        converter = _compile(type)
    try:
        return converter(value, path)
    except RecursionError:
        raise PayloadError(f"{path}: nested deeper than the interpreter's stack has room for") from None


def _compile(annotation: Any) -> Converter:
    """The converter of an annotation; while it is being made, a recursive type finds a stand-in for it."""
    try:
        key = ("ordered", _structure(annotation)) if _is_ordered(annotation) else annotation
        known = _compiled.get(key)
    except TypeError:  # cannot be hashed
        return _build(annotation)
    if known is not None:
        return known
    if len(_compiled) >= _TOO_MANY_TYPES:
        _compiled.clear()
    inner: list[Converter] = []

    def stand_in(value: Any, path: Path) -> Any:
        # another thread may come by before the build is done
        return (inner[0] if inner else _build(annotation))(value, path)

    _compiled[key] = stand_in
    try:
        built = _build(annotation)
    except BaseException:
        _compiled.pop(key, None)
        raise
    inner.append(built)
    _compiled[key] = built
    return built


def _is_ordered(annotation: Any) -> bool:
    # A | B == B | A, yet the first that fits is taken: such annotations need a key that tells them apart
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal or not arguments:
        return False
    if origin in (typing.Union, types.UnionType) and sum(each not in _LEAVES for each in arguments) > 1:
        return True
    return any(map(_is_ordered, arguments))


def _structure(annotation: Any) -> Any:
    arguments = typing.get_args(annotation)
    if not arguments or typing.get_origin(annotation) is typing.Literal:
        return annotation
    return typing.get_origin(annotation), tuple(map(_structure, arguments))


def _build(annotation: Any) -> Converter:
    if annotation is None or annotation is type(None):
        return _exactly(type(None), "None")
    if annotation is Any or annotation is object:
        return _anything
    if annotation is float:
        return _float
    if annotation in (bool, int, str, bytes):
        return _exactly(annotation)
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated or isinstance(annotation, typing.NewType):
        return _compile(annotation.__origin__ if origin is typing.Annotated else annotation.__supertype__)
    if hasattr(annotation, "__type_params__") and hasattr(annotation, "__value__"):  # TypeAliasType (PEP 695)
        return _compile(annotation.__value__)
    if origin is not None and origin in (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", None)):
        return _compile(arguments[0])
    if origin is typing.Union or origin is types.UnionType:
        return _union(annotation, arguments)
    if origin is typing.Literal:
        return _literal(annotation, arguments)
    kind = annotation if origin is None else origin
    if type(kind).__hash__ is None:  # such as []
        raise InvalidArgumentError(f"type={annotation!r} is not supported")
    if kind in _SEQUENCES:
        return _sequence(_SEQUENCES[kind], arguments)
    if kind is tuple:
        return _tuple(annotation, arguments)
    if kind in _MAPPINGS:
        return _mapping(arguments)
    if isinstance(annotation, type):
        return _class_converter(annotation)
    raise InvalidArgumentError(f"type={annotation!r} is not supported")


def _anything(value: Any, path: Path) -> Any:
    return value


def _float(value: Any, path: Path) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            _fail(path, "an int beyond the range of a float")
    _expected(path, float, value)


def _exactly(cls: type, name: str | None = None) -> Converter:
    def exactly(value: Any, path: Path) -> Any:
        if type(value) is cls:
            return value
        _expected(path, name or cls, value)

    return exactly


def _union(annotation: Any, members: tuple[Any, ...]) -> Converter:
    converters = [_compile(member) for member in members]
    exact = {type(None) if member is None else member for member in members} & _LEAVES

    def union(value: Any, path: Path) -> Any:
        if type(value) in exact:
            return value
        # one that takes the value as it is goes before one that would parse or convert it
        found: list[Any] = []
        for converter in converters:
            try:
                result = converter(value, path)
            except PayloadError:
                continue
            if result is value:
                return value
            found.append(result)
        if found:
            return found[0]
        if len(converters) == 2 and type(None) in exact:  # Optional: the error of the other member has the inner path
            return converters[1 if members[0] is type(None) else 0](value, path)
        _expected(path, annotation, value)

    return union


def _literal(annotation: Any, choices: tuple[Any, ...]) -> Converter:
    def literal(value: Any, path: Path) -> Any:
        for choice in choices:
            plain = choice.value if isinstance(choice, enum.Enum) else choice
            if type(value) is type(plain) and value == plain:
                return choice
        _fail(path, f"expected one of {', '.join(map(repr, choices))}, got {_short(value)}")

    return literal


def _sequence(make: Callable[[Any], Any], arguments: tuple[Any, ...]) -> Converter:
    item = _compile(arguments[0]) if arguments else _anything
    name = "set" if make is set else "frozenset" if make is frozenset else "list"

    def sequence(value: Any, path: Path) -> Any:
        if type(value) is not list and type(value) is not tuple:
            _expected(path, name, value)
        if item is _anything and make is list:
            return value if type(value) is list else list(value)
        try:
            return make([item(each, (path, index)) for index, each in enumerate(value)])
        except TypeError as error:
            _fail(path, f"expected {name}, got an item that cannot be hashed", error)

    return sequence


def _tuple(annotation: Any, arguments: tuple[Any, ...]) -> Converter:
    if not arguments and annotation in (tuple, typing.Tuple):  # noqa: UP006
        return _tuple(annotation, (Any, ...))
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _sequence(tuple, arguments[:1])
    items = [_compile(argument) for argument in arguments]

    def fixed(value: Any, path: Path) -> tuple[Any, ...]:
        if type(value) is not list and type(value) is not tuple:
            _expected(path, "list", value)
        if len(value) != len(items):
            _fail(path, f"expected {len(items)} items, got {len(value)}")
        return tuple([item(each, (path, index)) for index, (item, each) in enumerate(zip(items, value, strict=True))])

    return fixed


def _mapping(arguments: tuple[Any, ...]) -> Converter:
    key = _key(arguments[0]) if arguments else _anything
    item = _compile(arguments[1]) if arguments else _anything

    def mapping(value: Any, path: Path) -> dict[Any, Any]:
        if type(value) is not dict:
            _expected(path, "dict", value)
        if key is _anything and item is _anything:
            return value
        return {key(name, (path, name)): item(each, (path, name)) for name, each in value.items()}

    return mapping


def _key(annotation: Any) -> Converter:
    converter = _compile(annotation)

    def key(value: Any, path: Path) -> Any:
        result = converter(value, path)
        try:
            hash(result)
        except TypeError as error:
            _fail(path, "a key that cannot be hashed", error)
        return result

    return converter if annotation in _LEAVES else key


# ---- classes: dataclasses, TypedDict, NamedTuple, enums, pydantic models, and what a str is parsed into ----


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise InvalidArgumentError(f"type={_name_of(cls)}: its annotations cannot be resolved ({error})") from error


def _class_converter(cls: Any) -> Converter:
    """The converter into a class that is no builtin. Raises `InvalidArgumentError`: the class is not supported."""
    if issubclass(cls, enum.Enum):
        return _enum(cls)
    if callable(getattr(cls, "model_validate", None)):
        return _model(cls)
    if "__required_keys__" in vars(cls):
        return _typed_dict(cls)
    if hasattr(cls, "__dataclass_fields__"):
        return _dataclass(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple(cls)
    if cls in (datetime.datetime, datetime.date, datetime.time):
        return _parsed(cls, cls.fromisoformat)
    if cls.__module__ in ("uuid", "decimal", "_decimal", "_pydecimal") and cls.__name__ in ("UUID", "Decimal"):
        return _parsed(cls, cls)
    raise InvalidArgumentError(f"type={_name_of(cls)} is not supported")


def _parsed(cls: type, parse: Callable[[str], Any]) -> Converter:
    def parsed(value: Any, path: Path) -> Any:
        if type(value) is cls:
            return value
        if type(value) is not str:
            _expected(path, cls, value)
        try:
            return parse(value)
        except (ValueError, ArithmeticError) as error:  # decimal.InvalidOperation is an ArithmeticError
            _fail(path, f"expected {cls.__name__}, got a str that is none", error)

    return parsed


def _enum(cls: type[enum.Enum]) -> Converter:
    # 1, True and 1.0 are equal and not the same, so the type is compared too
    members: list[tuple[Any, enum.Enum]] = []
    for each in cls:
        members.append((each.value, each))
        try:
            members.append((plain(each.value, json=True), each))
        except Refused:
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
                made = cls(value)
            except ValueError as error:
                _fail(path, f"expected {cls.__name__}, got {value}", error)
            if made.value == value:  # else bits that it does not have were dropped, as Python < 3.11.4 does unasked
                return made
        _fail(path, f"expected {cls.__name__}, got {_short(value)}")

    return member


def _typed_dict(cls: Any) -> Converter:
    hints = _hints(cls)
    required = set(cls.__required_keys__)
    for key, hint in hints.items():
        # under `from __future__ import annotations` the class itself has not seen these two
        origin = typing.get_origin(hint)
        if origin is typing.Required:
            required.add(key)
        elif origin is typing.NotRequired:
            required.discard(key)
    return _record(cls, {key: _compile(hint) for key, hint in hints.items()}, frozenset(required), dict)


def _dataclass(cls: type) -> Converter:
    import dataclasses

    hints = _hints(cls)
    parts: dict[str, Converter] = {}
    late: set[str] = set()
    required: set[str] = set()
    for field in dataclasses.fields(cls):
        parts[field.name] = _compile(hints[field.name])
        if not field.init:
            late.add(field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.add(field.name)

    def make(found: dict[str, Any]) -> Any:
        # a field with init=False is computed by the class: what was encoded for it is checked and left
        return cls(**{name: each for name, each in found.items() if name not in late} if late else found)

    return _record(cls, parts, frozenset(required), make)


def _record(
    cls: type, parts: dict[str, Converter], required: frozenset[str], make: Callable[[dict[str, Any]], Any]
) -> Converter:
    def record(value: Any, path: Path) -> Any:
        if type(value) is not dict:
            if type(value) is cls:
                return value
            _expected(path, cls, value)
        found: dict[str, Any] = {}
        for key, each in value.items():
            part = parts.get(key)
            if part is None:
                _fail((path, key), f"{cls.__name__} has no such field")
            found[key] = part(each, (path, key))
        if not required <= found.keys():
            missing = next(name for name in parts if name in required and name not in found)
            _fail((path, missing), "missing")
        try:
            return make(found)
        except Exception as error:
            _fail(path, f"{cls.__name__}: {error}", error)

    return record


def _named_tuple(cls: Any) -> Converter:
    hints = _hints(cls)
    parts = {name: _compile(hints.get(name, Any)) for name in cls._fields}
    fewest = len(parts) - len(cls._field_defaults)

    def named(value: Any, path: Path) -> Any:
        if type(value) is not list and type(value) is not tuple:
            _expected(path, cls, value)
        if not fewest <= len(value) <= len(parts):
            _fail(path, f"expected {len(parts)} items, got {len(value)}")
        items = zip(parts.items(), value, strict=False)
        return cls(*[part(each, (path, name)) for (name, part), each in items])

    return named


def _model(cls: Any) -> Converter:
    def model(value: Any, path: Path) -> Any:
        if type(value) is cls:
            return value
        if type(value) is not dict and not getattr(cls, "__pydantic_root_model__", False):
            _expected(path, cls, value)
        try:
            return cls.model_validate(value)
        except Exception as error:
            place: Path = path
            reason = f"{cls.__name__}: {error}"
            if type(error).__name__ == "ValidationError":
                first = error.errors(include_url=False, include_input=False)[0]  # type: ignore[attr-defined]
                reason = first["msg"]
                for step in first["loc"]:
                    place = (place, step)
            _fail(place, reason, error)

    return model


# ---- failures, with their path ----


def _fail(path: Path, reason: str, cause: Exception | None = None) -> typing.NoReturn:
    steps = []
    while isinstance(path, tuple):
        path, step = path
        steps.append(step)
    raise PayloadError(f"{path}{render_path(reversed(steps))[1:]}: {reason}") from cause


def _name_of(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)


def _expected(path: Path, annotation: Any, value: Any) -> typing.NoReturn:
    got = repr(value) if value is None or type(value) is bool else type(value).__name__
    _fail(path, f"expected {_name_of(annotation)}, got {got}")


def _short(value: Any) -> str:
    text = repr(value) if type(value) in (str, int, float, bool, type(None)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


_LEAVES = frozenset([type(None), bool, int, float, str, bytes])
_SEQUENCES: dict[Any, Callable[[Any], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Collection: list,
    abc.Iterable: list,
    abc.Set: set,
    abc.MutableSet: set,
}
_MAPPINGS = frozenset([dict, abc.Mapping, abc.MutableMapping])

hooks.convert = convert
