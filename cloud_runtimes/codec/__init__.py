"""JSON, MessagePack and CloudEvents: what turns values into bytes and back.

``json`` and ``msgpack`` have ``encode(value) -> bytes`` and ``decode(data, *, type) -> value``. Each module loads when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["cloudevents", "json", "msgpack"]

if TYPE_CHECKING:
    from . import cloudevents, json, msgpack


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return import_module(f"{__name__}.{name}")  # binds the name here, so this runs once
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
