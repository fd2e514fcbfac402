"""The operating system's keyring, by the package ``keyring``: Secret Service, KWallet, macOS Keychain, or the backend that its own configuration names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...config import setting
from ...spi.component import Component

if TYPE_CHECKING:
    from ...spi.driver import Driver

__all__ = ["KeyringComponent", "KeyringSettings", "component"]


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

    def driver(self, service: str, name: str) -> Driver:
        from .secret import KeyringSecret

        return KeyringSecret(self, name, self.settings.service or name)

    def ready(self) -> None:
        from .secret import check_backend

        check_backend()

    def close(self, timeout: float | None) -> None:
        pass


component = KeyringComponent
