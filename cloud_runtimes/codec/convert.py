"""Strict conversion of decoded data into an annotated type.

An annotation is compiled once into a function of (value, path), nested ones into nested functions; the pair is kept per annotation. Nothing is guessed: a bool is no int, a str is no number, an int is a float, an unknown key of a dataclass or a TypedDict is refused.
"""

from __future__ import annotations

import collections.abc as abc
import enum
import types
import typing
from collections.abc import Callable
from typing import Any

from .._native import hooks
from ..errors import InvalidArgumentError, PayloadError
from ._classes import class_converter
from ._misfits import Converter, Path, expected, fail, short

_TOO_MANY_TYPES = 2048
_compiled: dict[Any, Converter] = {}


def convert(value: Any, type: Any, path: str = "$") -> Any:
    """Give `value`, decoded data, as a value of `type`.

    Args:
        value: what a decoder gave.
        type: None, bool, int, float, str, bytes, Any, object; list, tuple, set, frozenset, dict and their abstract kinds, bare or with parameters; unions (the first member that fits without conversion, else the first that fits), Literal, Enum, datetime, date, time, UUID, Decimal (themselves, or their str), dataclasses, attrs classes, TypedDict, NamedTuple, NewType, Annotated, type aliases, pydantic models, ``msgspec.Struct``.
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
        converter = compiled(type)
    try:
        return converter(value, path)
    except RecursionError:
        raise PayloadError(f"{path}: nested deeper than the interpreter's stack has room for") from None


def compiled(annotation: Any) -> Converter:
    """Return the converter of an annotation; while it is being made, a recursive type finds a stand-in for it."""
    try:
        key = ("ordered", structure(annotation)) if is_ordered(annotation) else annotation
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


def is_ordered(annotation: Any) -> bool:
    """Return whether an annotation is equal to one that is not the same: A | B == B | A, yet the first that fits is taken."""
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal or not arguments:
        return False
    if origin in (typing.Union, types.UnionType) and sum(each not in _LEAVES for each in arguments) > 1:
        return True
    return any(map(is_ordered, arguments))


def structure(annotation: Any) -> Any:
    """Return what tells an annotation from others that are equal to it."""
    arguments = typing.get_args(annotation)
    if not arguments or typing.get_origin(annotation) is typing.Literal:
        return annotation
    return typing.get_origin(annotation), tuple(map(structure, arguments))


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
        return compiled(annotation.__origin__ if origin is typing.Annotated else annotation.__supertype__)
    if hasattr(annotation, "__type_params__") and hasattr(annotation, "__value__"):  # TypeAliasType (PEP 695)
        return compiled(annotation.__value__)
    if origin is not None and origin in (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", None)):
        return compiled(arguments[0])
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
        return class_converter(annotation, compiled)
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
            fail(path, "an int beyond the range of a float")
    expected(path, float, value)


def _exactly(cls: type, name: str | None = None) -> Converter:
    def exactly(value: Any, path: Path) -> Any:
        if type(value) is cls:
            return value
        expected(path, name or cls, value)

    return exactly


def _union(annotation: Any, members: tuple[Any, ...]) -> Converter:
    converters = [compiled(member) for member in members]
    exact = {type(None) if member is None else member for member in members} & _LEAVES

    def union(value: Any, path: Path) -> Any:
        if type(value) in exact:
            return value
        # one that takes the value as it is goes before one that would parse or convert it
        results: list[Any] = []
        for converter in converters:
            try:
                result = converter(value, path)
            except PayloadError:
                continue
            if result is value:
                return value
            results.append(result)
        if results:
            return results[0]
        if len(converters) == 2 and type(None) in exact:  # Optional: the error of the other member has the inner path
            return converters[1 if members[0] is type(None) else 0](value, path)
        expected(path, annotation, value)

    return union


def _literal(annotation: Any, choices: tuple[Any, ...]) -> Converter:
    def literal(value: Any, path: Path) -> Any:
        for choice in choices:
            plain = choice.value if isinstance(choice, enum.Enum) else choice
            if type(value) is type(plain) and value == plain:
                return choice
        fail(path, f"expected one of {', '.join(map(repr, choices))}, got {short(value)}")

    return literal


def _sequence(make: Callable[[Any], Any], arguments: tuple[Any, ...]) -> Converter:
    item = compiled(arguments[0]) if arguments else _anything
    name = "set" if make is set else "frozenset" if make is frozenset else "list"

    def sequence(value: Any, path: Path) -> Any:
        if type(value) is not list and type(value) is not tuple:
            expected(path, name, value)
        if item is _anything and make is list:
            return value if type(value) is list else list(value)
        try:
            return make([item(each, (path, index)) for index, each in enumerate(value)])
        except TypeError as error:
            fail(path, f"expected {name}, got an item that cannot be hashed", error)

    return sequence


def _tuple(annotation: Any, arguments: tuple[Any, ...]) -> Converter:
    if not arguments and annotation in (tuple, typing.Tuple):  # noqa: UP006
        return _tuple(annotation, (Any, ...))
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _sequence(tuple, arguments[:1])
    items = [compiled(argument) for argument in arguments]

    def fixed(value: Any, path: Path) -> tuple[Any, ...]:
        if type(value) is not list and type(value) is not tuple:
            expected(path, "list", value)
        if len(value) != len(items):
            fail(path, f"expected {len(items)} items, got {len(value)}")
        return tuple([item(each, (path, index)) for index, (item, each) in enumerate(zip(items, value, strict=True))])

    return fixed


def _mapping(arguments: tuple[Any, ...]) -> Converter:
    key = _key(arguments[0]) if arguments else _anything
    item = compiled(arguments[1]) if arguments else _anything

    def mapping(value: Any, path: Path) -> dict[Any, Any]:
        if type(value) is not dict:
            expected(path, "dict", value)
        if key is _anything and item is _anything:
            return value
        return {key(name, (path, name)): item(each, (path, name)) for name, each in value.items()}

    return mapping


def _key(annotation: Any) -> Converter:
    converter = compiled(annotation)

    def key(value: Any, path: Path) -> Any:
        result = converter(value, path)
        try:
            hash(result)
        except TypeError as error:
            fail(path, "a key that cannot be hashed", error)
        return result

    return converter if annotation in _LEAVES else key


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
