"""Chooses the kernels, once and loudly: compiled ones or their Python twins, never a mixture.

``CLOUD_RUNTIMES_NATIVE`` is ``auto`` (the default), ``off`` (the twins) or ``require`` (an error where the compiled kernels cannot be loaded). The twins are the reference: a kernel does what its twin does, byte for byte and error for error. Kernels are named `msgpack`, `events`, `batch`, `payload` and `telemetry` here, and other modules take them from here. A helper that is no kernel, such as `otlp_py.varint`, is imported by its own path, and so are twins for annotations. Nothing here imports anything above but `errors`: see `hooks.py`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidArgumentError

__all__ = [
    "NativeStatus", "batch", "events", "forked", "json_backend", "msgpack", "native_status", "payload", "telemetry"
]  # fmt: skip


class NativeStatus(NamedTuple):
    """Which kernels run, and why.

    Attributes:
        native: whether the compiled kernels are in use.
        reason: one sentence.
    """

    native: bool
    reason: str


def _choose() -> NativeStatus:
    mode = os.environ.get("CLOUD_RUNTIMES_NATIVE", "auto").strip().lower() or "auto"
    if mode not in ("auto", "off", "require"):
        raise InvalidArgumentError(f"CLOUD_RUNTIMES_NATIVE={mode!r}: give auto, off or require")
    if mode == "off":
        return NativeStatus(False, "switched off by CLOUD_RUNTIMES_NATIVE=off")
    try:
        for kernel in ("_batch", "_events", "_msgpack", "_payload", "_telemetry"):
            import_module(f"{__name__}.{kernel}")
    except ImportError as error:
        if mode == "require":
            raise ImportError(
                f"CLOUD_RUNTIMES_NATIVE=require, but the compiled kernels cannot be loaded: {error}"
            ) from error
        return NativeStatus(False, f"the compiled kernels cannot be loaded ({error})")
    return NativeStatus(True, "compiled kernels loaded")


_status = _choose()

if TYPE_CHECKING or not _status.native:
    from . import batch_py as batch
    from . import events_py as events
    from . import msgpack_py as msgpack
    from . import payload_py as payload
    from . import telemetry_py as telemetry
else:
    from . import _batch as batch
    from . import _events as events
    from . import _msgpack as msgpack
    from . import _payload as payload
    from . import _telemetry as telemetry


_pid = os.getpid()


def forked() -> None:
    """Forget, once in a forked child, the counter and the random bytes drawn in advance that ids come from: they are the parent's."""
    global _pid
    if os.getpid() != _pid:
        _pid = os.getpid()
        events.reseed()
        telemetry.reseed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forked)


def json_backend() -> str:
    """Tell who reads and writes JSON."""
    try:
        import orjson
    except ImportError:
        return "the standard library (orjson is not installed)"
    return f"orjson {orjson.__version__}"


def native_status() -> NativeStatus:
    """Return whether the compiled kernels are in use, and why or why not; whether JSON goes through orjson, and who does MessagePack where they are not."""
    reason = f"{_status.reason}; JSON by {json_backend()}"
    return _status._replace(reason=reason if _status.native else f"{reason}; MessagePack by {msgpack.backend}")
