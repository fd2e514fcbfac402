"""The package's logger, made when there is something to say.

It is called ``cloud_runtimes`` and has no handler of its own. Where an application configures no logging, `logging.lastResort` writes warnings and tracebacks to stderr, so a failing handler is seen. Any handler turns that off: ``logging.getLogger("cloud_runtimes").addHandler(logging.NullHandler())``. `repeated` says the same thing at most once a minute, `once` a single time.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

_EVERY = 60.0
_MANY = 1000
_said: dict[str, tuple[float, int]] = {}
_logger: logging.Logger | None = None


def logger() -> logging.Logger:
    """Return the ``cloud_runtimes`` logger."""
    global _logger
    if _logger is None:
        import logging

        _logger = logging.getLogger("cloud_runtimes")
    return _logger


def repeated(key: str, message: str, *args: Any, exc_info: BaseException | None = None, every: float = _EVERY) -> None:
    """Log a warning, at most once in ``every`` seconds for one ``key``; the next one tells how many were kept back."""
    now = time.monotonic()
    last, kept = _said.get(key, (float("-inf"), 0))
    if now - last < every:
        _said[key] = (last, kept + 1)
        return
    if len(_said) > _MANY:  # keys name components and topics: bounded in practice, bounded here in any case
        _said.clear()
    _said[key] = (now, 0)
    suffix = f" ({kept} more like this)" if kept else ""
    logger().warning(message + suffix, *args, exc_info=exc_info)


def in_development() -> bool:
    """Return whether ``CLOUD_RUNTIMES_DEV`` asks for warnings of common mistakes."""
    return os.environ.get("CLOUD_RUNTIMES_DEV", "0") != "0"


def once(key: str, message: str, *args: Any) -> None:
    """Log a warning a single time in this process for one ``key``."""
    repeated(key, message, *args, every=float("inf"))


def kind_of(error: BaseException) -> str:
    """Return the type and the place of an error, for the key of `repeated`: another kind of failure is worth a line of its own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    location = "" if trace is None else f" {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}{location}"
