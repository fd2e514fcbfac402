"""Functions above the kernels that the kernels call.

The modules that define them set them here when they are imported. So `_native` imports nothing above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["convert", "encode_payload", "layout", "plan", "shapes"]

convert: Callable[[Any, Any], Any]
"""Gives decoded data as a value of a type; `codec.convert` sets it, which `codec.json` and `codec.msgpack` import."""

encode_payload: Callable[[Any, str | None], tuple[bytes, str]]
"""Encodes a value by its content type; `codec.payload` sets it, which `codec.cloudevents` imports."""

layout: Callable[[Any], tuple[Any, ...] | None]
"""Returns how the compiled kernel writes the objects of a class as MessagePack, or ``None``; `codec.msgpack` sets it."""

plan: Callable[[Any], Any]
"""Returns how the compiled kernel gives decoded data as an annotation, or ``None``; `codec.json` sets it, and the next."""

shapes: Callable[[Any, dict[type, Any]], None]
"""Notes how the compiled kernel writes the objects of a class as JSON."""
