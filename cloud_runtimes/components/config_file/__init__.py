"""A file that others write: configuration out of TOML, JSON or YAML, secrets out of these or dotenv; followed while the program runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ..._core.clocks import Clocks
from ...config import SUFFIXES, duration, setting, without_values
from ...errors import CloudRuntimesError, InvalidArgumentError, UnavailableError
from ...spi.component import Component
from ...spi.operation import Method, Operation

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from .configuration import ConfigurationFile
    from .secret import SecretFile

__all__ = ["FileComponent", "FileSettings", "component"]

_READY: Final = {
    service: Method(service, "ready", repeatable=True, writes=False) for service in ("configuration", "secret")
}
_OF_ONE: Final = {
    "separator": "secret",
    "multi_valued": "secret",
    "watch": "configuration",
    "poll_interval": "configuration",
}
"""Settings that one of the services has a use for."""
_SEPARATOR: Final = ":"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """Settings of the component.

    Attributes:
        path: the file, or the folder; must be given. Symlinks are followed anew at every look.
        format: what is in the file, where its name does not say so by its end: ``.toml``, ``.json``, ``.yaml``, ``.yml`` (extra ``yaml``), and, for secrets, ``*.env``, ``.env``, ``.env.*``. ``"folder"``: each file of a folder is a value, and its name the key, as Kubernetes and Docker mount them.
        separator: of secrets: stands between the names of nested tables: the key ``db:password`` is ``password`` in ``db``. Default: ``:``.
        multi_valued: of secrets: each table at the top is one secret of several entries, instead of one secret per entry.
        watch: of configuration: ``"watchfiles"``: notices of the kernel shorten the wait (extra ``watch``); ``"poll"``: only looks; ``"auto"``: the first where it is installed. Default: auto.
        poll_interval: of configuration: seconds between two looks at the file of a subscription, whatever notices come. Default: 0.5.
    """

    path: str | None = setting(None, help="the file")
    format: Literal["toml", "json", "yaml", "dotenv", "folder"] | None = setting(
        None, help="toml, json, yaml, dotenv or folder"
    )
    separator: str | None = setting(None, help="between the names of nested tables")
    multi_valued: bool | None = setting(None, help="a table at the top is one secret")
    watch: Literal["auto", "poll", "watchfiles"] | None = setting(None, help="how changes are noticed")
    poll_interval: float | None = setting(None, parse=duration, help="between two looks")

    def __post_init__(self) -> None:
        if self.separator == "":
            raise ValueError("separator must not be empty: nested names could not be told apart")
        if self.format == "folder" and (self.separator is not None or self.multi_valued is not None):
            raise ValueError("separator and multi_valued are of tables, which a folder does not have")
        if self.poll_interval is not None and self.poll_interval < 0.01:
            raise ValueError("poll_interval must be at least 10ms")


class FileComponent(Component):
    """Component of one file."""

    name = "config_file"
    Settings = FileSettings
    services = ("configuration", "secret")

    settings: FileSettings
    clocks = Clocks()

    # two threads may both make one, which does no harm; a lock could be inherited locked by a forked child
    _configuration: ConfigurationFile | None = None
    _secrets: SecretFile | None = None
    _service: str | None = None

    @property
    def configuration(self) -> ConfigurationFile:
        """The file of configuration, of which nothing has been read yet at first."""
        file = self._configuration
        if file is None:
            file = self._configuration = self._configuration_file()
        return file

    @without_values
    def _configuration_file(self) -> ConfigurationFile:
        from .configuration import ConfigurationFile

        path = self._path('path = "…", a TOML, JSON or YAML file')
        suffix = f".{self.settings.format}" if self.settings.format else path.suffix.lower()
        if suffix not in (*SUFFIXES, ".folder"):
            raise InvalidArgumentError(
                "the component file: path has no end of a file that holds configuration: "
                'say format = "toml", "json", "yaml" or "folder"'
            )
        return ConfigurationFile(path, suffix, self.clocks)

    @property
    def secrets(self) -> SecretFile:
        """The file of secrets, read when first asked for one."""
        file = self._secrets
        if file is None:
            file = self._secrets = self._secret_file()
        return file

    @without_values
    def _secret_file(self) -> SecretFile:
        from .secret import SecretFile, kind_of

        path = str(self._path('the file of secrets: path = "secrets.json"'))
        kind = self.settings.format or kind_of(path)
        if kind is None:
            raise InvalidArgumentError(
                f"the component file: path has no known end; name it {', '.join(f'*{end}' for end in (*SUFFIXES, '.env'))}, "
                'or say format = "toml", "json", "yaml", "dotenv" or "folder"'
            )
        return SecretFile(
            path,
            kind,
            self.clocks,
            separator=self.settings.separator or _SEPARATOR,
            multi_valued=bool(self.settings.multi_valued),
            optional=False,
        )

    def _path(self, what: str) -> Path:
        given = self.settings.path
        if not given or "\0" in given:
            raise InvalidArgumentError(f"the component file needs {what}")
        return Path(os.path.abspath(os.path.expanduser(given)))

    def driver(self, service: str, name: str) -> Driver:
        for other, only in _OF_ONE.items():
            if only != service and getattr(self.settings, other) is not None:
                raise InvalidArgumentError(
                    f"[{service}.{name}]: the setting {other!r} of the component file is for {only} only: take it away"
                )
        self._service = service
        if service == "secret":
            from .secret import FileSecret

            return FileSecret(self, name)
        from .configuration import FileConfiguration

        return FileConfiguration(self)

    def ready(self) -> None:
        service = self._service
        if service == "secret":
            self.secrets.load(Operation(_READY[service], self.name, 5.0))
        elif service is not None:
            file = self.configuration
            try:
                file.values(Operation(_READY[service], self.name, 5.0))
            except UnavailableError:
                raise
            except CloudRuntimesError as problem:
                # it is its owner's, who may repair it
                raise UnavailableError(str(problem)) from problem

    def close(self, timeout: float | None) -> None:
        """Let go of what was read. Nothing is held open: subscriptions hold their own."""
        self._configuration = self._secrets = None


component = FileComponent
