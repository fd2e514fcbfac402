"""Zstandard (RFC 8878): of the standard library from Python 3.14 on, else of its backport (extra ``zstd``)."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any, Final

from . import extras

_LEVEL: Final = 1
_WINDOW_LOG: Final = 24
"""Of what is unpacked: 16 MiB, since a frame may ask for any memory."""


def load(what: str) -> Any:
    """Return the module that compresses.

    Args:
        what: needs it, for the error.

    Raises:
        UnsupportedError: there is none.
    """
    with extras.importing(what, "zstd"):
        return import_module("compression.zstd" if extras.installed("_zstd") else "backports.zstd")


def compress(module: Any, data: bytes) -> bytes:
    """Return data as a frame."""
    return bytes(module.compress(data, _LEVEL))


def unpack(module: Any, data: bytes, limit: int) -> bytes:
    """Return the content of frames, no more than the first ``limit`` bytes of it.

    Raises:
        ValueError: they are none, or cut off.
    """
    options = {module.DecompressionParameter.window_log_max: _WINDOW_LOG}
    try:
        return bytes(module.ZstdFile(io.BytesIO(data), options=options).read(limit))
    except (EOFError, module.ZstdError) as error:
        raise ValueError(str(error)) from error
