"""Names of a pydantic model's fields, as it writes them and as it reads them.

A model with a ``validation_alias`` or a ``serialization_alias`` need not read what it writes. Keys of its own data are renamed before pydantic validates them.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from .._native.plain import model_config, writes_aliases

_Names: TypeAlias = "dict[Any, dict[str, tuple[str, Any]]]"
"""For each model and written name the one that is read, and the field's annotation."""


def readable(cls: Any) -> Callable[[Any], Any] | None:
    """Return what renames the keys of data that ``cls`` has written to those that it reads; ``None`` where they are the same."""
    if not getattr(cls, "__pydantic_complete__", True) and hasattr(cls, "model_rebuild"):
        cls.model_rebuild(raise_errors=False)  # it names classes that stand below it
    by_alias = writes_aliases(cls)
    names = {each: _names(each, by_alias) for each in _models(cls, set())}
    if all(written == read for fields in names.values() for written, (read, _) in fields.items()):
        return None
    return lambda value: _renamed(value, cls, names)


def _models(annotation: Any, seen: set[Any]) -> Iterator[Any]:
    """Yield the models in an annotation, and those in their fields."""
    fields = getattr(annotation, "__pydantic_fields__", None)
    if fields is None:
        inner = list(typing.get_args(annotation))
    elif annotation in seen:
        return
    else:
        seen.add(annotation)
        yield annotation
        inner = [field.annotation for field in fields.values()]
    for each in inner:
        yield from _models(each, seen)


def _names(cls: Any, by_alias: bool) -> dict[str, tuple[str, Any]]:
    config = model_config(cls)
    reads_aliases = config.get("validate_by_alias") is not False
    reads_names = config.get("validate_by_name") or config.get("populate_by_name")
    names = {}
    for name, field in cls.__pydantic_fields__.items():
        read = []
        if reads_aliases:
            choices = getattr(field.validation_alias, "choices", [field.validation_alias])
            paths = [getattr(choice, "path", [choice]) for choice in choices]
            read = [path[0] for path in paths if len(path) == 1 and isinstance(path[0], str)]
        if reads_names or not reads_aliases or field.validation_alias is None:
            read.append(name)
        written = (by_alias and field.serialization_alias) or name
        names[written] = (written if written in read or not read else read[0]), field.annotation
    return names


def _renamed(value: Any, annotation: Any, names: _Names) -> Any:
    kind = typing.get_origin(annotation) or annotation
    arguments = typing.get_args(annotation)
    if getattr(kind, "__pydantic_root_model__", False):
        return _renamed(value, kind.__pydantic_fields__["root"].annotation, names)
    if kind is typing.Annotated:
        return _renamed(value, arguments[0], names)
    if kind is typing.Union or kind is types.UnionType:
        results = (_renamed(value, argument, names) for argument in arguments)
        return next((result for result in results if result != value), value)
    if type(value) is dict and kind in names:
        result = {}
        for key, item in value.items():
            read, inner = names[kind].get(key, (key, Any))
            result[key if read in value else read] = _renamed(item, inner, names)
        return result
    if type(value) is dict and len(arguments) == 2:
        return {key: _renamed(item, arguments[1], names) for key, item in value.items()}
    if type(value) is list and arguments:
        return [_renamed(item, arguments[0], names) for item in value]
    return value
