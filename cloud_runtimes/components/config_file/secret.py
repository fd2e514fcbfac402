"""The secret driver of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import BulkError, NotFoundError, PayloadError
from ...spi.operation import Operation
from ...spi.secret import BULK, Secret, SecretDriver
from . import secret_file  # noqa: F401  # loaded with the driver, not by a call

if TYPE_CHECKING:
    from . import FileComponent

__all__ = ["FileSecret"]


class FileSecret(SecretDriver):
    """Secrets of one file."""

    features = frozenset({BULK})

    def __init__(self, component: FileComponent, name: str) -> None:
        self._component = component
        self._name = name
        component.secrets  # noqa: B018  # what is wrong with the settings is told before any I/O
        self.executor = component.executor

    def get(self, op: Operation, key: str, /) -> Secret:
        file = self._component.secrets
        document = file.load(op)
        if key in document.wrong:
            raise PayloadError(f"secret {key!r} of {self._name!r}: in {file.path} it {document.wrong[key]}")
        secret = document.secrets.get(key)
        if secret is None:
            raise NotFoundError(f"no secret {key!r} in {self._name!r}: add it to {file.path}")
        return secret

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        file = self._component.secrets
        document = file.load(op)
        secrets = dict(document.secrets)
        if document.wrong:
            raise BulkError(
                f"{len(document.wrong)} of {len(secrets) + len(document.wrong)} secrets of {self._name!r} cannot be read",
                failed={
                    key: PayloadError(f"secret {key!r} of {self._name!r}: in {file.path} it {problem}")
                    for key, problem in document.wrong.items()
                },
                result=secrets,
            )
        return secrets
