"""A file that others change, as configuration: TOML, JSON or YAML, followed while the program runs."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ... import _fork
from ..._clock import Clocks
from ..._runtime import Component
from ...config import SUFFIXES, ClientSettings, duration, setting
from ...errors import InvalidArgumentError, UnavailableError

if TYPE_CHECKING:
    from ..._bridge import Bridge
    from ..._driver import Driver
    from .watched import Watched

__all__ = ["FileComponent", "FileSettings", "component"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """Settings of the component.

    Attributes:
        path: the file; must be given. Symlinks are followed anew at every look.
        format: ``"toml"``, ``"json"`` or ``"yaml"`` (extra ``yaml``), where the file's name does not end so.
        watch: ``"watchfiles"``: notices of the kernel shorten the wait (extra ``watch``); ``"poll"``: only looks; ``"auto"``: the first where it is installed.
        poll_interval: seconds between two looks at the file of a subscription, whatever notices come.
    """

    path: str | None = setting(None, help="the file")
    format: Literal["toml", "json", "yaml"] | None = setting(None, help="toml, json or yaml")
    watch: Literal["auto", "poll", "watchfiles"] = setting("auto", help="how changes are noticed")
    poll_interval: float = setting(0.5, parse=duration, help="between two looks")

    def __post_init__(self) -> None:
        if self.poll_interval < 0.01:
            raise ValueError("poll_interval must be at least 10ms")


class FileComponent(Component):
    """One file."""

    name = "file"
    Settings = FileSettings
    services = ("configuration",)

    settings: FileSettings
    clocks = Clocks()

    def __init__(self, settings: FileSettings, context: ClientSettings, bridge: Bridge) -> None:
        super().__init__(settings, context, bridge)
        self._lock = threading.RLock()
        self._watched: Watched | None = None
        _fork.register(self)

    def forked(self) -> None:
        """In a forked child: nobody is in here."""
        self._lock = threading.RLock()

    @property
    def watched(self) -> Watched:
        """The file, of which nothing has been read yet at first."""
        if self._watched is None:
            from .watched import Watched

            with self._lock:
                if self._watched is None:
                    path, suffix = self._file()
                    self._watched = Watched(path, suffix, self.clocks)
        return self._watched

    def _file(self) -> tuple[Path, str]:
        given = self.settings.path
        if not given or "\0" in given:
            raise InvalidArgumentError('the component "file" needs path = "…", a TOML, JSON or YAML file')
        path = Path(os.path.abspath(os.path.expanduser(given)))
        suffix = f".{self.settings.format}" if self.settings.format else path.suffix.lower()
        if suffix not in SUFFIXES:
            raise InvalidArgumentError(
                f'{path}: its name tells of no kind of configuration: say format = "toml", "json" or "yaml"'
            )
        return path, suffix

    def driver(self, service: str, name: str) -> Driver:
        from .configuration import FileConfiguration

        return FileConfiguration(self)  # type: ignore[abstract]  # the bridge gives it the other face

    def ready(self) -> None:
        found, _ = self.watched.look()
        if found is None:
            problem = self.watched.problem()
            raise UnavailableError(str(problem) if problem else f"{self.watched.path} is being written") from problem

    def close(self, timeout: float | None) -> None:
        """Nothing is held open: subscriptions hold their own."""


component = FileComponent
