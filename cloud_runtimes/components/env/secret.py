"""The secret driver of the environment.

The variable of a key is the store's prefix, then the key in upper case with each ``-`` written ``__``. A key has letters, digits and single ``_`` or ``-`` between them, so a variable belongs to one store and, but for upper and lower case, to one key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from ...errors import BulkError, CloudRuntimesError, InvalidArgumentError, NotFoundError, PayloadError
from ...spi.operation import Operation
from ...spi.secret import BULK, Secret, SecretDriver
from ..config_file import secret as _  # noqa: F401  # loaded with the driver, not by a call

if TYPE_CHECKING:
    from . import EnvComponent

__all__ = ["EnvSecret"]

_KEY: Final = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*")
_VARIABLE: Final = re.compile(r"[A-Z0-9]+(?:__?[A-Z0-9]+)*")


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
        found = self._in_process(variable, key)
        if found is not None or self._component.file is None:
            return found or self._in_file(op, variable, key)
        return await self._component.executor.in_thread(partial(self._in_file, op, variable, key), op)

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        file = self._component.file
        document = None if file is None else file.load(op)
        found: dict[str, Secret] = {}
        failed: dict[str, CloudRuntimesError] = {}
        for key, variable in self._keys(document.secrets if document else ()):
            assert document is not None
            found[key] = _renamed(document.secrets[variable], key)
        for key, variable in self._keys(os.environ):
            try:
                found[key] = self._in_process(variable, key) or found[key]
            except KeyError:
                continue  # taken away just now
            except PayloadError as error:
                found.pop(key, None)
                failed[key] = error
        if failed:
            raise BulkError(
                f"{len(failed)} of {len(failed) + len(found)} secrets of {self._name!r} cannot be read",
                failed=failed,
                result=found,
            )
        return found

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
        if not _is_text(secret):
            raise PayloadError(f"secret {key!r} of {self._name!r}: the variable {variable} is not UTF-8")
        return secret

    def _in_file(self, op: Operation, variable: str, key: str) -> Secret:
        file = self._component.file
        if file is not None:
            secret = file.load(op).secrets.get(variable)
            if secret is not None:
                return _renamed(secret, key)
        raise NotFoundError(
            f"no secret {key!r} in {self._name!r}: set the variable {variable}"
            + (f", here or in {file.path}" if file is not None else "")
        )


def _renamed(secret: Secret, key: str) -> Secret:
    return Secret({key: secret.value})


def _is_text(secret: Secret) -> bool:
    """Tell whether it is UTF-8; bytes that are not stand in the environment as lone surrogates."""
    try:
        secret.value.encode()
    except UnicodeEncodeError:  # which holds it: it goes no further
        return False
    return True
