"""A handler of the standard library's `logging`, loaded when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from .._native import telemetry as kernel
from .._native.telemetry_text import exception_attributes

_PLAIN: Final = len(vars(logging.makeLogRecord({})))
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# levels between two of them belong to the lower (Logs data model, "Mapping of SeverityNumber")
_SEVERITIES: Final = ((50, 21), (40, 17), (30, 13), (20, 9), (10, 5), (0, 1))
_COMMON: Final = dict(_SEVERITIES)


class TelemetryHandler(logging.Handler):
    """Records what `logging` logs: message, level, place, exception, and what was given as ``extra``."""

    def __init__(self, logger: Callable[[str], kernel.Logger], is_sender: Callable[[], bool], level: int) -> None:
        super().__init__(level)
        self._logger = logger
        self._is_sender = is_sender
        self._loggers: dict[str, kernel.Logger] = {}

    def handle(self, record: logging.LogRecord) -> bool | logging.LogRecord:  # type: ignore[override]
        """Record what passes the filters. Without the handler's lock, which what is beneath does not need."""
        if self.filters:
            passed: bool | logging.LogRecord = self.filter(record)
            if not passed:
                return passed
            if isinstance(passed, logging.LogRecord):  # Python 3.12: a filter may give another
                record = passed
        self.emit(record)
        return record

    def emit(self, record: logging.LogRecord) -> None:
        """Record; what the sender itself logs is left out, or it would never end."""
        if self._is_sender():
            return
        try:
            logger = self._loggers.get(record.name)
            if logger is None:
                if len(self._loggers) >= 1000:
                    self._loggers.clear()
                logger = self._loggers[record.name] = self._logger(record.name)
            attributes: dict[str, Any] = {
                "code.file.path": record.pathname,
                "code.function.name": record.funcName,
                "code.line.number": record.lineno,
            }
            if len(record.__dict__) > _PLAIN:
                attributes.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)
            if record.exc_info and record.exc_info[1] is not None:
                attributes.update(exception_attributes(record.exc_info[1]))
            severity = _COMMON.get(record.levelno) or _severity(record.levelno)
            logger.emit(int(record.created * 1e9), severity, record.levelname, record.getMessage(), attributes)
        except Exception:
            self.handleError(record)


def _severity(level: int) -> int:
    return next((number for least, number in _SEVERITIES if level >= least), 1)
