"""The environment: secrets out of variables of the process and of a ``.env`` file. The embedded default of the secret service.

The variable of a key is the store's prefix, then the key in upper case with each ``-`` written ``__``. A key has letters, digits and single ``_`` or ``-`` between them, so a variable belongs to one store and, but for upper and lower case, to one key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from ..._core.clocks import Clocks
from ...config import setting
from ...errors import BulkError, CloudRuntimesError, InvalidArgumentError, NotFoundError, PayloadError
from ...spi.component import Component
from ...spi.operation import Operation
from ...spi.secret import BULK, Secret, SecretDriver
from ..config_file.secret import SecretFile

__all__ = ["EnvComponent", "EnvSecret", "EnvSettings", "component"]

_KEY: Final = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*")
_VARIABLE: Final = re.compile(r"[A-Z0-9]+(?:__?[A-Z0-9]+)*")


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
        given = self.settings.file
        if file is None and given != "":
            path = os.path.abspath(os.path.expanduser(given or ".env"))
            file = SecretFile(path, "dotenv", self.clocks, separator=":", multi_valued=False, optional=given is None)
            self._file = file
        return file

    def driver(self, service: str, name: str) -> EnvSecret:
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


class EnvSecret(SecretDriver):
    """Secrets in variables of one prefix. Where the process has a variable, no file is looked at."""

    features = frozenset({BULK})

    def __init__(self, component: EnvComponent, name: str, prefix: str) -> None:
        self._component = component
        self._name = name
        self._prefix = prefix

    def get(self, op: Operation, key: str, /) -> Secret:
        variable = self._variable(key)
        return self._in_process(variable, key) or self._in_file(op, variable, key)

    async def get_async(self, op: Operation, key: str, /) -> Secret:
        variable = self._variable(key)
        secret = self._in_process(variable, key)
        if secret is not None or self._component.file is None:
            return secret or self._in_file(op, variable, key)
        return await self._component.executor.in_thread(partial(self._in_file, op, variable, key), op)

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        file = self._component.file
        document = None if file is None else file.load(op)
        secrets: dict[str, Secret] = {}
        failed: dict[str, CloudRuntimesError] = {}
        for key, variable in self._keys(document.secrets if document else ()):
            assert document is not None
            secrets[key] = Secret({key: document.secrets[variable].value})
        for key, variable in self._keys(os.environ):
            try:
                secrets[key] = self._in_process(variable, key) or secrets[key]
            except KeyError:
                continue  # taken away just now
            except PayloadError as error:
                secrets.pop(key, None)
                failed[key] = error
        if failed:
            raise BulkError(
                f"{len(failed)} of {len(failed) + len(secrets)} secrets of {self._name!r} cannot be read",
                failed=failed,
                result=secrets,
            )
        return secrets

    async def get_bulk_async(self, op: Operation, /) -> dict[str, Secret]:
        if self._component.file is None:
            return self.get_bulk(op)
        return await self._component.executor.in_thread(partial(self.get_bulk, op), op)

    def _variable(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise InvalidArgumentError(
                f"the key {key!r} cannot be written as a variable: letters, digits and single '_' or '-' between them can"
            )
        return self._prefix + key.replace("-", "__").upper()

    def _keys(self, variables: Iterable[str]) -> Iterable[tuple[str, str]]:
        """Yield key and variable, of the variables that are one."""
        for variable in list(variables):
            if variable.startswith(self._prefix) and _VARIABLE.fullmatch(rest := variable[len(self._prefix) :]):
                yield rest.lower().replace("__", "-"), variable

    def _in_process(self, variable: str, key: str) -> Secret | None:
        try:
            secret = Secret({key: os.environ[variable]})
        except KeyError:
            return None
        try:
            secret.value.encode()
        except (
            UnicodeEncodeError
        ):  # a lone surrogate stands for a byte that is not UTF-8; the error, which holds the secret, goes no further
            pass
        else:
            return secret
        raise PayloadError(f"secret {key!r} of {self._name!r}: the variable {variable} is not UTF-8")

    def _in_file(self, op: Operation, variable: str, key: str) -> Secret:
        file = self._component.file
        if file is not None:
            secret = file.load(op).secrets.get(variable)
            if secret is not None:
                return Secret({key: secret.value})
        raise NotFoundError(
            f"no secret {key!r} in {self._name!r}: set the variable {variable}"
            + (f", here or in {file.path}" if file is not None else "")
        )


component = EnvComponent
