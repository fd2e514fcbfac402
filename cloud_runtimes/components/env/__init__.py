"""The environment: secrets out of variables of the process and of a ``.env`` file. The embedded default of the secret service."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..._core.clocks import Clocks
from ...config import setting
from ...errors import InvalidArgumentError
from ...spi.component import Component

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from ..config_file.secret import SecretFile

__all__ = ["EnvComponent", "EnvSettings", "component"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSettings:
    """Settings of the component.

    Attributes:
        prefix: with which the variables of the store begin, instead of ``CLOUD_RUNTIMES_SECRET_<STORE>_``; must not be empty, so that a store is never the whole environment.
        file: a dotenv file for what the process's environment does not have; must exist. Default: ``.env``, if there is one; ``""``: none.
    """

    prefix: str | None = setting(None, help="with which the variables begin")
    file: str | None = setting(None, help="a dotenv file")

    def __post_init__(self) -> None:
        if self.prefix is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", self.prefix):
            raise ValueError(
                "prefix must be 1 to 255 letters, digits and '_', no digit first: a store is never the whole environment"
            )
        if self.file is not None and "\0" in self.file:
            raise ValueError("file holds a NUL")


class EnvComponent(Component):
    """Drivers over the environment."""

    name = "env"
    Settings = EnvSettings
    services = ("secret",)

    settings: EnvSettings
    clocks = Clocks()

    _file: SecretFile | None = None

    @property
    def file(self) -> SecretFile | None:
        """The dotenv file, read when first asked for what the process does not have; ``None``: there is to be none."""
        # without a lock, as in `FileComponent.secrets`
        file = self._file
        if file is None and self.settings.file != "":
            file = self._file = self._made()
        return file

    def _made(self) -> SecretFile:
        from ..config_file.secret import SecretFile

        given = self.settings.file
        path = os.path.abspath(os.path.expanduser(given or ".env"))
        return SecretFile(path, "dotenv", self.clocks, separator=":", multi_valued=False, optional=given is None)

    def driver(self, service: str, name: str) -> Driver:
        from .secret import EnvSecret

        prefix = self.settings.prefix
        if prefix is None:
            # one way to write a variable for each name: else two stores could read each other's
            if not re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", name):
                raise InvalidArgumentError(
                    f"the store {name!r} has no variables of its own: a name of lower-case letters, digits and single '-' inside has; "
                    f'or declare [secret.{name}] with component = "env" and prefix = "…"'
                )
            prefix = f"CLOUD_RUNTIMES_SECRET_{name.replace('-', '__').upper()}_"
        return EnvSecret(self, name, prefix)

    def close(self, timeout: float | None) -> None:
        self._file = None


component = EnvComponent
