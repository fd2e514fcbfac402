"""The operating system's keyring, by the package ``keyring``: Secret Service, KWallet, macOS Keychain, or the backend that its own configuration names.

A backend may ask the user to unlock it, and then answers when they do, so each question runs in a thread and the caller waits with its deadline. What a backend raises may hold what it has read: its text is not quoted and it is not chained.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Any

from ..._core import extras
from ..._core.threads import Background
from ...config import setting
from ...errors import (
    CloudRuntimesError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from ...spi.component import Component
from ...spi.operation import Operation
from ...spi.secret import Secret, SecretDriver

__all__ = ["KeyringComponent", "KeyringSecret", "KeyringSettings", "component"]

_NO_BACKEND = (
    "this machine has no keyring that could be used: start one (Secret Service, KWallet), install a backend, "
    "or name one in PYTHON_KEYRING_BACKEND"
)


def _library() -> Any:
    """Import the package; it looks for a backend then."""
    with extras.importing("component 'keyring'", "keyring"):
        import keyring
        import keyring.errors
    return keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringSettings:
    """Settings of the component.

    Attributes:
        service: the service under which the keyring holds the secrets; the key is the user's name there. Default: the store's name.
    """

    service: str | None = setting(None, help="the service in the keyring")

    def __post_init__(self) -> None:
        if self.service is not None and (not self.service or "\0" in self.service):
            raise ValueError("service must not be empty or hold a NUL")


class KeyringComponent(Component):
    """Drivers over the keyring of this user."""

    name = "keyring"
    Settings = KeyringSettings
    services = ("secret",)

    settings: KeyringSettings

    def driver(self, service: str, name: str) -> KeyringSecret:
        return KeyringSecret(self, name, self.settings.service or name)

    def ready(self) -> None:
        library = _library()
        from keyring.backends.fail import Keyring as NoKeyring

        if isinstance(library.get_keyring(), NoKeyring):
            raise UnavailableError(_NO_BACKEND, retryable=False)

    def close(self, timeout: float | None) -> None:
        pass


class KeyringSecret(SecretDriver):
    """Secrets under one service of the keyring. A keyring cannot tell what it holds, so there is no `BULK`."""

    def __init__(self, component: KeyringComponent, name: str, service: str) -> None:
        self._component = component
        self._name = name
        self._service = service

    def get(self, op: Operation, key: str, /) -> Secret:
        question = _Question(_library(), self._service, key)
        thread = Background(question.ask, "cloud-runtimes-keyring")
        thread.start()
        if not thread.join(op.remaining()):
            raise op.timed_out("the keyring, which may be asking the user to unlock it")
        return self._answer(question, key)

    async def get_async(self, op: Operation, key: str, /) -> Secret:
        executor = self._component.executor
        library = await executor.in_thread(_library, op)
        question = _Question(library, self._service, key)
        await executor.in_thread(question.ask, op)
        return self._answer(question, key)

    def _answer(self, question: _Question, key: str) -> Secret:
        if question.failed is not None:
            raise self._map_error(question.library.errors, question.failed, key)
        if question.secret is None:
            raise NotFoundError(
                f"no secret {key!r} in {self._name!r}: the keyring has none under the service {self._service!r}: "
                f"keyring set {quote(self._service)} {quote(key)}"
            )
        return question.secret

    def _map_error(self, errors: Any, failed: type[BaseException], key: str) -> CloudRuntimesError:
        what = f"secret {key!r} of {self._name!r}"
        if issubclass(failed, InvalidArgumentError):
            return PayloadError(f"{what}: what the keyring holds is no text")
        if issubclass(failed, errors.NoKeyringError):
            return UnavailableError(_NO_BACKEND, retryable=False)
        if issubclass(failed, errors.KeyringLocked):
            return PermissionDeniedError(f"{what}: the keyring is locked: unlock it")
        return UnavailableError(f"{what}: the keyring failed ({failed.__name__})", retryable=False)

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        raise UnsupportedError("a keyring cannot tell what it holds")


class _Question:
    """Query to the keyring and its answer: the secret, or the class of the exception."""

    def __init__(self, library: Any, service: str, key: str) -> None:
        self.library = library
        self._get = partial(library.get_password, service, key)
        self._key = key
        self.secret: Secret | None = None
        self.failed: type[BaseException] | None = None

    def ask(self) -> None:
        try:
            value = self._get()
            self.secret = None if value is None else Secret({self._key: value})
        except BaseException as error:
            self.failed = type(error)


component = KeyringComponent
