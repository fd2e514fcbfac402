"""Cloud Runtimes: one typed, vendor-neutral API for what a distributed application needs.

>>> from cloud_runtimes import CloudRuntimesClient
>>> client = CloudRuntimesClient()

Importing this package does no I/O, scans nothing and loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

__all__ = ["CloudRuntimesClient", "NativeStatus", "__version__", "lifespan", "native_status"]

if TYPE_CHECKING:
    from ._native import NativeStatus, native_status
    from .application import lifespan
    from .client import CloudRuntimesClient

_LAZY = {
    "CloudRuntimesClient": "client",
    "NativeStatus": "_native",
    "lifespan": "application",
    "native_status": "_native",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
