"""Plans by which the compiled kernels read JSON and MessagePack straight into a type, and write objects straight to them.

A plan only has what is sure to give what `convert` and `plain` give. Anything else is left out of it, and goes their way.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime
import enum
import inspect
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any, Final

from .._native import msgpack, payload
from .._native.plain import attrs_names, model_config, writes_aliases
from ..errors import CloudRuntimesError
from ._classes import type_hints
from .convert import compiled, is_ordered, structure

_kernel: Any = payload  # the twin has no plans, and asks for none
_FIELDS: Final = 64
_TOO_MANY_TYPES: Final = 2048
_ordered: dict[Any, Any] = {}
"""Plans of annotations that are equal to others and not the same, by their structure."""
_MISSING: Final = dataclasses.MISSING
_INIT_ONLY: Final = getattr(dataclasses, "_FIELD_INITVAR")  # noqa: B009  # the standard library does not name it
_ARRAYS: Final[dict[Any, str]] = {
    **dict.fromkeys((list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable), "list"),
    **dict.fromkeys((set, abc.Set, abc.MutableSet), "set"),
    frozenset: "frozenset",
}
_MAPPINGS: Final = frozenset([dict, abc.Mapping, abc.MutableMapping])
_MOMENTS: Final = (datetime.datetime, datetime.date, datetime.time)


def plan(annotation: Any) -> Any:
    """Return the kernel's plan to read an annotation; ``None``: all of it goes the long way."""
    try:
        if isinstance(annotation, type) or not is_ordered(annotation):
            return _made(annotation)
        key = structure(annotation)
        if key not in _ordered:
            if len(_ordered) >= _TOO_MANY_TYPES:
                _ordered.clear()
            _ordered[key] = _made(annotation)
        node = _ordered[key]
    except Exception:  # what is wrong with it, the long way says
        return None
    if node is not None:
        node.annotation = annotation
    return node


def _made(annotation: Any) -> Any:
    node, python = _Planner().plan(annotation)
    return None if python else node


class _Planner:
    """Makes the nodes of one annotation; a class that has itself in it finds its own node."""

    def __init__(self) -> None:
        self._classes: dict[type, Any] = {}
        self._aliases: list[Any] = []

    def plan(self, annotation: Any) -> tuple[Any, bool]:
        """Return a node, and whether it only calls a converter."""
        node = self._native(annotation)
        if node is not None:
            return node, False
        convert = compiled(annotation)
        return _kernel.Node("python", call=lambda value: convert(value, "$")), True

    def _node(self, annotation: Any) -> Any:
        return self.plan(annotation)[0]

    def _native(self, annotation: Any) -> Any:
        leaf = _leaf(annotation)
        if leaf is not None:
            return _kernel.Node("leaves", leaves=leaf)
        if annotation is Any or annotation is object:
            return _kernel.Node("any")
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated or isinstance(annotation, typing.NewType):
            return self._node(annotation.__origin__ if origin is typing.Annotated else annotation.__supertype__)
        if hasattr(annotation, "__type_params__") and hasattr(annotation, "__value__"):
            return self._alias(annotation)
        if origin is not None and origin in (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", None)):
            return self._node(arguments[0])
        if origin is typing.Union or origin is types.UnionType:
            return self._union(arguments)
        if origin is typing.Literal:
            return _lookup({choice: choice for choice in arguments}, len(arguments))
        kind = annotation if origin is None else origin
        if kind in _ARRAYS:
            if not arguments and _ARRAYS[kind] == "list":
                return _kernel.Node("any", leaves=ord("["))
            return _kernel.Node(_ARRAYS[kind], items=[self._node(arguments[0] if arguments else Any)])
        if kind is tuple:
            return self._tuple(annotation, arguments)
        if kind in _MAPPINGS:
            return self._mapping(arguments)
        return self._class(annotation) if isinstance(annotation, type) else None

    def _alias(self, alias: Any) -> Any:
        if alias in self._aliases:  # it has itself in it: a converter goes on from here
            return None
        self._aliases.append(alias)
        try:
            return self._node(alias.__value__)
        finally:
            self._aliases.pop()

    def _union(self, members: Sequence[Any]) -> Any:
        leaves = list(map(_leaf, members))
        if None not in leaves:
            return _kernel.Node("leaves", leaves=sum({*leaves}))
        rest = [each for each, leaf in zip(members, leaves, strict=True) if leaf != _kernel.LEAVES[type(None)]]
        if len(members) == 2 and len(rest) == 1:
            return _kernel.Node("optional", items=[self._node(rest[0])])
        nodes = [self.plan(each) for each in members]
        if all(python for _, python in nodes):
            return None
        return _kernel.Node("union", leaves=sum({*filter(None, leaves)}), items=[node for node, _ in nodes])

    def _tuple(self, annotation: Any, arguments: Sequence[Any]) -> Any:
        if not arguments and annotation in (tuple, typing.Tuple):  # noqa: UP006
            arguments = (Any, ...)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _kernel.Node("tuple", items=[self._node(arguments[0])])
        return _kernel.Node("fixed", items=map(self._node, arguments))

    def _mapping(self, arguments: Sequence[Any]) -> Any:
        if not arguments:
            return _kernel.Node("any", leaves=ord("{"))
        return _kernel.Node("dict", items=[self._node(arguments[1])]) if arguments[0] in (str, Any) else None

    def _class(self, cls: Any) -> Any:
        if issubclass(cls, enum.Enum):
            members = list(cls)
            return None if issubclass(cls, enum.Flag) else _lookup({each.value: each for each in members}, len(members))
        if cls in _MOMENTS:
            return _kernel.Node("parsed", call=cls.fromisoformat, cls=cls)
        if _is_parsed(cls):
            return _kernel.Node("parsed", call=cls, cls=cls)
        if _is_pydantic(cls):
            return None
        known = self._classes.get(cls)
        if known is not None:
            return known
        if issubclass(cls, tuple):
            return self._named_tuple(cls) if hasattr(cls, "_fields") and not _has_fields(cls) else None
        describe = _record_of(cls)
        if describe is None or len(describe[1]) > _FIELDS:
            return None
        make, fields, required = describe
        node = self._classes[cls] = _kernel.Node("record")
        node.record(
            make,
            cls,
            [field.key for field in fields],
            [field.name for field in fields],
            [field.slot for field in fields],
            [index for index, field in enumerate(fields) if field.key in required],
            [field.default for field in fields],
            [index for index, field in enumerate(fields) if field.is_made],
            [index for index, field in enumerate(fields) if field.is_ignored],
            not hasattr(cls, "__dataclass_fields__") and make != "dict",
        )
        node.fill([self._node(field.annotation) for field in fields])
        return node

    def _named_tuple(self, cls: Any) -> Any:
        hints, names = type_hints(cls), cls._fields
        node = self._classes[cls] = _kernel.Node("fixed", call=cls, fewest=len(names) - len(cls._field_defaults))
        node.fill([self._node(hints.get(name, Any)) for name in names])
        return node


class _Field(typing.NamedTuple):
    """A field of a record.

    Attributes:
        key: in the document.
        name: of the attribute or the argument.
        annotation: of its value.
        slot: where it lies in the object; -1: it is an attribute.
        default: a value, or what makes one.
        is_made: whether the default is called.
        is_ignored: whether the constructor does not take it.
    """

    key: str
    name: str
    annotation: Any
    slot: int = -1
    default: Any = None
    is_made: bool = False
    is_ignored: bool = False


def _record_of(cls: Any) -> tuple[str, list[_Field], frozenset[str]] | None:
    """Return how a class with fields is made, its fields, and the keys that must be there."""
    if "__required_keys__" in vars(cls):
        hints = type_hints(cls)
        required = set(cls.__required_keys__)
        for key, hint in hints.items():
            origin = typing.get_origin(hint)
            required = (
                required | {key}
                if origin is typing.Required
                else required - {key} if origin is typing.NotRequired else required
            )
        return "dict", [_Field(key, key, hint) for key, hint in hints.items()], frozenset(required)
    if hasattr(cls, "__dataclass_fields__"):
        return _dataclass(cls)
    if hasattr(cls, "__attrs_attrs__"):
        hints, nothing, written = type_hints(cls), sys.modules["attr"].NOTHING, attrs_names(cls)
        fields = cls.__attrs_attrs__
        missing = frozenset(written[each.name] for each in fields if each.init and each.default is nothing)
        rows = [
            _Field(
                written[each.name], each.alias or "", hints.get(each.name, each.type or Any), is_ignored=not each.init
            )
            for each in fields
        ]
        return "call", rows, missing
    return _struct(cls) if hasattr(cls, "__struct_config__") else None


def _has_fields(cls: Any) -> bool:
    """Return whether a class is one of those that are read by their fields before all else."""
    return "__required_keys__" in vars(cls) or any(
        hasattr(cls, name) for name in ("__dataclass_fields__", "__attrs_attrs__", "__struct_config__")
    )


def _struct(cls: Any) -> tuple[str, list[_Field], frozenset[str]] | None:
    """Return the fields of a ``msgspec.Struct`` if msgspec takes for each of them whatever is taken here, and the same comes of it."""
    msgspec, config = sys.modules["msgspec"], cls.__struct_config__
    base = msgspec.Struct
    if config.tag is not None or config.array_like or type(cls) is not type(base):
        return None
    if cls.__init__ is not base.__init__ or cls.__new__ is not base.__new__:
        return None
    fields = msgspec.structs.fields(cls)
    if not all(_is_plain(each.type) for each in fields):
        return None
    rows = [_Field(each.encode_name, each.name, each.type) for each in fields]
    return "call", rows, frozenset(each.encode_name for each in fields if each.required)


def _is_plain(annotation: Any) -> bool:
    """Return whether an annotation consists of scalars, lists, dicts and structs, which mean the same to msgspec."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Union or origin is types.UnionType:
        return sum(_leaf(each) is None for each in arguments) < 2 and all(map(_is_plain, arguments))
    if origin is list or origin is dict:
        return all(map(_is_plain, arguments))
    return _leaf(annotation) is not None or annotation in (Any, list, dict) or hasattr(annotation, "__struct_config__")


def _dataclass(cls: Any) -> tuple[str, list[_Field], frozenset[str]]:
    hints = type_hints(cls)
    fields = dataclasses.fields(cls)
    slots = _slots(cls, [field.name for field in fields]) if _only_sets_fields(cls) else None
    rows = [
        _Field(
            field.name,
            field.name,
            hints[field.name],
            -1 if slots is None else slots[index],
            field.default if field.default is not _MISSING else field.default_factory,
            field.default_factory is not _MISSING,
            not field.init,
        )
        for index, field in enumerate(fields)
    ]
    required = (each.name for each in fields if each.init and each.default is _MISSING is each.default_factory)
    return "call" if slots is None else "fields", rows, frozenset(required)


def _only_sets_fields(cls: Any) -> bool:
    """Return whether the constructor of a dataclass is the generated one, and sets the fields and nothing else."""
    parameters = vars(cls).get("__dataclass_params__")
    made = getattr(vars(cls).get("__init__"), "__code__", None)
    return (
        parameters is not None
        and parameters.init
        and made is not None
        and made.co_filename == "<string>"
        and not hasattr(cls, "__post_init__")
        and cls.__new__ is object.__new__
        and type(cls).__call__ is type.__call__
        and (parameters.frozen or cls.__setattr__ is object.__setattr__)
        and not inspect.isabstract(cls)
        # else there are fields that are no arguments, or arguments that are no fields
        and all(each.init for each in dataclasses.fields(cls))
        and not any(each._field_type is _INIT_ONLY for each in cls.__dataclass_fields__.values())
    )


def _slots(cls: type, names: Sequence[str]) -> list[int] | None:
    """Return where fields lie in an object, -1 for a plain attribute; ``None``: one of them is more than that."""
    slots = []
    for name in names:
        found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        slot = _kernel.slot_of(found)
        kind = type(found)
        if slot < 0 and (hasattr(kind, "__get__") or hasattr(kind, "__set__") or not cls.__dictoffset__):
            return None
        slots.append(slot)
    return slots


def _lookup(members: dict[Any, Any], count: int) -> Any:
    kinds = {type(each) for each in members}
    if len(members) != count or len(kinds) != 1 or not kinds <= {str, int}:
        return None
    return _kernel.Node("lookup", members=members, by_int=kinds == {int})


def _leaf(annotation: Any) -> Any:
    """Return the kernel's bit of a leaf, or ``None``."""
    cls = type(None) if annotation is None else annotation
    return _kernel.LEAVES.get(cls) if isinstance(cls, type) else None


def _is_parsed(cls: Any) -> bool:
    return cls.__module__ in ("uuid", "decimal", "_decimal") and cls.__name__ in ("UUID", "Decimal")


def _is_pydantic(cls: Any) -> bool:
    return callable(getattr(cls, "model_validate", None)) or "__pydantic_validator__" in vars(cls)


# -- writing ------------------------------------------------------------------


def shapes(cls: Any, known: dict[type, Any]) -> None:
    """Note how the objects of a class are written: a shape of the kernel's, or ``None``."""
    try:
        known[cls] = _shape(cls)
    except (CloudRuntimesError, TypeError, ValueError, AttributeError):
        known[cls] = None


def _shape(cls: Any) -> Any:
    if issubclass(cls, enum.Enum):
        return _kernel.Shape("value", names=("_value_",)) if _has_value(cls) else None
    if cls is datetime.datetime or cls is datetime.date:
        return _kernel.Shape(cls.__name__)
    if _is_parsed(cls) and cls.__name__ == "UUID":
        slot = _kernel.slot_of(vars(cls).get("int"))
        return None if slot < 0 else _kernel.Shape("uuid", [b""], ["int"], [slot])
    if _is_parsed(cls):
        # the decimals of a Python without its C library would run code while others' references are borrowed
        return None if inspect.isfunction(cls.__str__) else _kernel.Shape("text")
    if _is_pydantic(cls) or "__pydantic_serializer__" in vars(cls):
        return _model(cls)
    if issubclass(cls, tuple) and not _has_fields(cls):
        return _kernel.Shape("tuple")
    fields = _fields(cls)
    if fields is None or len(fields[0]) > _FIELDS:
        return None
    names, keys, slots, plain = fields
    return _kernel.Shape("fields", [_kernel.encode_json(key) + b":" for key in keys], names, slots, plain=plain)


def layout(cls: Any) -> tuple[Any, ...] | None:
    """Return how MessagePack writes the objects of a class: their keys, attributes and slots; without keys one value stands for the object."""
    try:
        if issubclass(cls, enum.Enum):
            return (None, ("_value_",), (-1,)) if _has_value(cls) else None
        fields = None if _is_pydantic(cls) or "__pydantic_serializer__" in vars(cls) else _fields(cls)
    except Exception:  # as above
        return None
    if fields is None or fields[3]:
        return None
    names, keys, slots, _ = fields
    return tuple(map(msgpack.encode, keys)), tuple(names), tuple(slots)


def _fields(cls: Any) -> tuple[Sequence[str], Sequence[str], list[int], bool] | None:
    """Return what `_written` does, with the slots; ``None``: reading the attributes may run code, or there are none."""
    names, keys, plain = _written(cls) if _reads_fields(cls) else (None, (), False)
    slots = None if names is None else _slots(cls, names)
    return None if names is None or slots is None else (names, keys, slots, plain)


def _has_value(cls: Any) -> bool:
    """Return whether the value of an enum's members is the one that they have, which an overridden `value` may change."""
    usual = next(base for base in cls.__mro__ if "value" in vars(base)) is enum.Enum
    return usual and _reads_fields(cls)


def _reads_fields(cls: Any) -> bool:
    return bool(cls.__getattribute__ is object.__getattribute__)


def _written(cls: Any) -> tuple[Sequence[str] | None, Sequence[str], bool]:
    """Return the attributes of a class that are written, the keys that they are written under, and whether all else in it must be plain."""
    if hasattr(cls, "__dataclass_fields__"):
        names = [field.name for field in dataclasses.fields(cls)]
        return names, names, False
    if hasattr(cls, "__attrs_attrs__"):
        written = attrs_names(cls)
        return list(written), list(written.values()), False
    config = getattr(cls, "__struct_config__", None)
    if config is None or config.tag is not None or config.array_like or config.omit_defaults:
        return None, (), False
    return cls.__struct_fields__, cls.__struct_encode_fields__, True


def _model(cls: Any) -> Any:
    """Return the shape of a pydantic model that pydantic writes as `plain` does."""
    serializer = vars(cls).get("__pydantic_serializer__")
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if serializer is None or base is None or getattr(cls, "model_dump", base.model_dump) is not base.model_dump:
        return None
    if model_config(cls).get("ser_json_inf_nan", "null") != "null":
        return None
    by_alias = writes_aliases(cls)
    return _kernel.Shape("call", call=lambda model: serializer.to_json(model, by_alias=by_alias))
