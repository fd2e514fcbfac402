"""Secrets of HashiCorp Vault and OpenBao, over their HTTP API."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ...spi.component import Component
from ...spi.operation import Method, Operation
from .settings import VaultSettings

if TYPE_CHECKING:
    from ...spi.secret import SecretDriver
    from .client import VaultClient
    from .leases import Leases

__all__ = ["VaultComponent", "VaultSettings", "component"]

_READY = Method("secret", "wait_ready", repeatable=True, writes=False)


class VaultComponent(Component):
    """Drivers over one server."""

    name = "vault"
    Settings = VaultSettings
    services = ("secret",)

    settings: VaultSettings

    @cached_property
    def client(self) -> VaultClient:
        """The connections and the token."""
        from .client import VaultClient

        return VaultClient(self.settings, self.context.app_id)

    @cached_property
    def leases(self) -> Leases:
        """The credentials that are held."""
        from .leases import Leases

        return Leases(self.client)

    def driver(self, service: str, name: str) -> SecretDriver:
        if self.settings.engine == "dynamic":
            from .leases import DynamicSecret

            return DynamicSecret(self, name)
        from .secret import VaultSecret

        return VaultSecret(self, name)

    def ready(self) -> None:
        """Log in, where that is how it gets a token, and have the token looked at."""
        self.client.run(Operation(_READY, self.name, 5.0), self.client.ask("GET", "auth/token/lookup-self"))

    def close(self, timeout: float | None) -> None:
        if "leases" in vars(self):
            self.leases.close(timeout)
        if "client" in vars(self):
            self.client.close()


component = VaultComponent
