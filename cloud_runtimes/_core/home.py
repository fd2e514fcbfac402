"""The home folder, which the components without a server share."""

from __future__ import annotations

import os
from typing import Final

from ..config import without_values
from ..errors import InvalidArgumentError
from .config_discovery import HOME

__all__ = ["MEMORY", "home_folder", "is_memory"]

MEMORY: Final = ":memory:"


def is_memory(home: str) -> bool:
    """Tell whether a home means "in the process": ``:memory:`` or ``:memory:NAME``."""
    return home.startswith(MEMORY)


@without_values
def home_folder(setting: str | None) -> str:
    """Return the home: the setting, ``CLOUD_RUNTIMES_HOME``, or ``.cloud_runtimes`` in the working directory."""
    home = setting or os.environ.get("CLOUD_RUNTIMES_HOME") or HOME
    if is_memory(home):
        return home
    if "\0" in home:
        raise InvalidArgumentError("the home folder's name holds a NUL byte")
    return os.path.abspath(os.path.expanduser(home))
