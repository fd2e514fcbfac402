"""An error → one line and an exit code.

====  ==========================================================
code  meaning
====  ==========================================================
0     done
1     any other failure
2     wrong usage, argument, setting or name of a component
3     not found
4     conflict: a condition did not hold
5     unavailable, or not in time
130   SIGINT (128 + signal; SIGTERM: 143)
141   the reader of stdout went away (128 + SIGPIPE)
====  ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ..errors import CloudRuntimesError, PayloadError

USAGE: Final = 2
NOT_FOUND: Final = 3
CLOSED_PIPE: Final = 141

_CODES: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": USAGE,
    "FAILED_PRECONDITION": USAGE,
    "NOT_FOUND": NOT_FOUND,
    "ABORTED": 4,
    "ALREADY_EXISTS": 4,
    "UNAVAILABLE": 5,
    "DEADLINE_EXCEEDED": 5,
}


_COMMANDS: Final[Mapping[str, str]] = {
    'runtime="capa"': "--runtime capa",
    "list_files": "file ls",
    "list_keys": "state list",
    "list_jobs": "schedule list",
    "client.admin.locks": "lock list",
    "client.admin.jobs": "schedule list --all",
    "client.schedule.list_runs": "schedule history",
    "content_type=": "--content-type ",
    "overwrite=False": "--no-overwrite",
    "metadata=": "--metadata ",
    "timeout=": "--timeout ",
    "etag=": "--etag ",
    "config=": "--config ",
}
"""Words of Python in messages, and what they are on the command line."""
_PYTHON: Final = "|".join(map(re.escape, _COMMANDS))


class UsageError(Exception):
    """Arguments that do not go together; found by a command, not by the parser."""


def exit_code(error: BaseException) -> int:
    """Return the code of the table above."""
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, PayloadError):  # data that somebody stored, or sent
        return 1
    return _CODES.get(error.code, 1) if isinstance(error, CloudRuntimesError) else 1


def explain(error: BaseException) -> str:
    """Return one line: what happened, without a traceback."""
    if isinstance(error, (CloudRuntimesError, UsageError)):
        text = str(error) or type(error).__name__
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    return re.sub(_PYTHON, lambda match: _COMMANDS[match[0]], " ".join(text.split()))
