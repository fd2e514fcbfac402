"""JSON, MessagePack and CloudEvents: what turns values into bytes and back.

``json`` and ``msgpack`` have ``encode(value) -> bytes`` and ``decode(data, *, type) -> value``. ``limits`` says how much a document that is decoded may hold. Each module loads when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["Limits", "cloudevents", "json", "limits", "msgpack"]

if TYPE_CHECKING:
    from .._native.limits import Limits
    from . import cloudevents, json, msgpack
    from ._limits import limits


def __getattr__(name: str) -> Any:
    if name in ("Limits", "limits"):
        value = globals()[name] = getattr(import_module(f"{__name__}._limits"), name)
        return value
    if name in __all__:
        return import_module(f"{__name__}.{name}")  # binds the name here, so this runs once
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
