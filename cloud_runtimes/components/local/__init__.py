"""Local files: secrets out of a JSON, TOML, YAML or dotenv file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ... import _fork
from ..._clock import Clocks
from ..._operation import Method, Operation
from ..._runtime import Component
from ...config import setting
from ...errors import InvalidArgumentError

if TYPE_CHECKING:
    from ..._driver import Driver
    from .watched import WatchedFile

__all__ = ["LocalComponent", "LocalSettings", "component"]

_READY = Method("secret", "ready", repeatable=True, writes=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """Settings of the component.

    Attributes:
        path: the file of secrets: ``*.json``, ``*.toml``, ``*.yaml``, ``*.yml``, ``*.env``, ``.env``, ``.env.*``; must be given.
        separator: stands between the names of nested tables: the key ``db:password`` is ``password`` in ``db``.
        multi_valued: each table at the top is one secret of several entries, instead of one secret per entry.
    """

    path: str | None = setting(None, help="file of secrets")
    separator: str = setting(":", help="between the names of nested tables")
    multi_valued: bool = setting(False, help="a table at the top is one secret")

    def __post_init__(self) -> None:
        if not self.separator:
            raise ValueError("separator must not be empty: nested names could not be told apart")


class LocalComponent(Component):
    """Drivers over files of this machine."""

    name = "local"
    Settings = LocalSettings
    services = ("secret",)

    settings: LocalSettings
    clocks = Clocks()

    _file: WatchedFile | None = None

    @property
    def file(self) -> WatchedFile:
        """The file of secrets, read when first asked for one."""
        # two threads may both make it, which does no harm; a lock could be inherited locked by a forked child
        file = self._file
        if file is None:
            file = self._file = self._made()
        return file

    def _made(self) -> WatchedFile:
        from .document import KINDS, kind_of
        from .watched import WatchedFile

        path = self.settings.path
        if not path or "\0" in path:
            raise InvalidArgumentError('the component local needs the file of secrets: path = "secrets.json"')
        path = os.path.abspath(os.path.expanduser(path))
        kind = kind_of(path)
        if kind is None:
            raise InvalidArgumentError(f"{path}: unknown kind of file; name it {', '.join(f'*{end}' for end in KINDS)}")
        return WatchedFile(
            path,
            kind,
            self.clocks,
            separator=self.settings.separator,
            multi_valued=self.settings.multi_valued,
            optional=False,
        )

    def driver(self, service: str, name: str) -> Driver:
        from .secret import LocalSecret

        return LocalSecret(self, name)  # type: ignore[abstract]  # BlockingDriver has made its twins

    def ready(self) -> None:
        with _fork.importing:
            from . import watched  # noqa: F401
        self.file.load(Operation(_READY, self.name, 5.0))

    def close(self, timeout: float | None) -> None:
        self._file = None


component = LocalComponent
