"""Secrets of HashiCorp Vault and OpenBao, over their HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ...config import duration, setting
from ...spi.component import Component
from ...spi.operation import Method, Operation

if TYPE_CHECKING:
    from ...spi.secret import SecretDriver
    from .client import VaultClient
    from .leases import Leases

__all__ = ["VaultComponent", "VaultSettings", "component"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """Settings of the component.

    It logs in by the first of these that it has: ``token``, ``token_file``, ``role_id``, ``kubernetes_role``, the variable ``VAULT_TOKEN``, and ``~/.vault-token``, which ``vault login`` writes.

    Attributes:
        url: of the server; default: the variable ``VAULT_ADDR``.
        engine: what stands at ``mount``: ``"kv2"`` and ``"kv1"``: the key-value engine in version 2 or 1; ``"dynamic"``: an engine that makes credentials when they are read, such as ``database`` or ``aws``. Their leases are renewed while the client is open, and revoked when it closes.
        mount: where the engine is mounted.
        path: what a key begins with there; ``{name}`` is the name of the store. With ``""`` a key is the whole path. Default: ``"{name}"``, of an engine that makes credentials ``"creds"``.
        namespace: of Vault Enterprise or OpenBao; default: the variable ``VAULT_NAMESPACE``.
        token: to ask with. One that is given is not renewed: a login, or Vault Agent and ``token_file``, give one that does not end.
        token_file: a file with the token, as Vault Agent writes it; it is read again when Vault refuses the token.
        role_id: of AppRole; with ``secret_id`` or ``secret_id_file``, unless the role needs none.
        secret_id: of AppRole.
        secret_id_file: a file with it.
        kubernetes_role: of the login by the service account of a pod.
        kubernetes_token_file: the account's token.
        auth_mount: where the login is mounted; default: ``approle`` or ``kubernetes``.
        ca_file: certificates that sign the server's; default: the variable ``VAULT_CACERT``, else those of the system.
        cache: seconds for which a secret of the key-value engine may be served again without asking; of the 1,000 that were read last.
    """

    url: str | None = setting(None, help="of the server")
    engine: Literal["kv2", "kv1", "dynamic"] = setting("kv2", help="the secrets engine")
    mount: str = setting("secret", help="where the engine is mounted")
    path: str | None = setting(None, help="what a key begins with")
    namespace: str | None = setting(None, help="of Vault Enterprise or OpenBao")
    token: str | None = setting(None, help="to ask with")
    token_file: str | None = setting(None, help="a file with the token")
    role_id: str | None = setting(None, help="of AppRole")
    secret_id: str | None = setting(None, help="of AppRole")
    secret_id_file: str | None = setting(None, help="a file with the secret_id")
    kubernetes_role: str | None = setting(None, help="of a login by a pod's account")
    kubernetes_token_file: str = setting(
        "/var/run/secrets/kubernetes.io/serviceaccount/token", help="the account's token"
    )
    auth_mount: str | None = setting(None, help="where the login is mounted")
    ca_file: str | None = setting(None, help="certificates that sign the server's")
    cache: float = setting(0.0, parse=duration, help="how long a secret is served again")

    def __post_init__(self) -> None:
        given = [
            name for name in ("token", "token_file", "role_id", "kubernetes_role") if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ValueError(f"give one way to log in, not {' and '.join(given)}")
        if self.role_id is None and (self.secret_id is not None or self.secret_id_file is not None):
            raise ValueError("secret_id belongs to a role_id")
        if self.secret_id is not None and self.secret_id_file is not None:
            raise ValueError("give secret_id or secret_id_file")
        for name in ("mount", "path", "auth_mount"):
            parts = (getattr(self, name) or "x").split("/")
            if any(part in ("", ".", "..") for part in parts):
                raise ValueError(f"{name} must be names with / between them")
        for text in (self.token, self.namespace):
            if text is not None and not (text and text.isascii() and text.isprintable()):
                raise ValueError("token and namespace must be printable ASCII")
        if self.cache > 3600:
            raise ValueError("cache must be at most an hour")

    def prefix(self, name: str) -> str:
        """Return what the keys of a store begin with."""
        path = ("creds" if self.engine == "dynamic" else "{name}") if self.path is None else self.path
        return path.replace("{name}", name)


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
