"""The secret store of docs/how-to/write-a-secret-store.md, on the secret suite. What stands for Azure's SDK has the classes that the page uses, and keeps secrets in the process."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError, PermissionDeniedError, UnauthenticatedError, UnavailableError
from cloud_runtimes.testing import SecretHarness, SecretSuite
from cloud_runtimes.testing.canary import Canary
from tests.packaging.builds import ROOT
from tests.packaging.programs import blocks

PAGE = ROOT / "docs/how-to/write-a-secret-store.md"
IDENTITY = "class DefaultAzureCredential:\n    pass\n"
EXCEPTIONS = """
class AzureError(Exception):
    pass

class HttpResponseError(AzureError):
    def __init__(self, message, status_code=500):
        super().__init__(message)
        self.status_code = status_code

class ResourceNotFoundError(HttpResponseError):
    pass

class ClientAuthenticationError(HttpResponseError):
    pass
"""
SECRETS = """
from types import SimpleNamespace
from azure.core import exceptions

vaults = {}
fail = None

class SecretClient:
    def __init__(self, vault_url, credential):
        self._vault = vaults[vault_url]

    def get_secret(self, name, version=None, *, connection_timeout=None, read_timeout=None):
        if fail is not None:
            raise fail
        if name not in self._vault:
            raise exceptions.ResourceNotFoundError("SecretNotFound", 404)
        return SimpleNamespace(name=name, value=self._vault[name])

    def list_properties_of_secrets(self, **limits):
        return [SimpleNamespace(name=name, enabled=True) for name in self._vault]

    def close(self):
        pass
"""


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in; the package of the page is installed beside it."""
    if not PAGE.exists():
        pytest.skip("the page is not among the test's files")
    points = tomllib.loads(blocks(PAGE, "toml")[0])["project"]["entry-points"]["cloud_runtimes.components"]
    files = {
        "azure/identity.py": IDENTITY,
        "azure/core/exceptions.py": EXCEPTIONS,
        "azure/keyvault/secrets.py": SECRETS,
        "acme_key_vault/__init__.py": blocks(PAGE, "python")[0],
        "acme_key_vault-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-key-vault\nVersion: 1\n",
        "acme_key_vault-1.dist-info/entry_points.txt": "\n".join(
            ["[cloud_runtimes.components]", *(f"{name} = {value}" for name, value in points.items())]
        ),
    }
    for name, text in files.items():
        (tmp_path / "installed" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "installed" / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    import azure.keyvault.secrets

    yield azure.keyvault.secrets
    for name in [name for name in sys.modules if name.partition(".")[0] in ("azure", "acme_key_vault")]:
        del sys.modules[name]


class KeyVaultHarness(SecretHarness):
    name = "acme_key_vault"

    def __init__(self, sdk: Any) -> None:
        self._clients: list[CloudRuntimesClient] = []
        self._names = ["secret-1", "secret-2"]
        self._unused = iter(self._names)
        self._vaults = sdk.vaults
        self._vaults.update({self._url(name): {} for name in self._names})

    @staticmethod
    def _url(store: str) -> str:
        return f"https://{store}.vault.azure.net"

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        tables = {name: {"component": "acme_key_vault", "url": self._url(name)} for name in self._names}
        self._clients.append(CloudRuntimesClient(config={"secret": tables}, app_id="suite", **arguments))
        return self._clients[-1]

    def store(self, kind: str = "store") -> str:
        return next(self._unused)

    def put(self, store: str, key: str, value: str) -> None:
        self._vaults[self._url(store)][key] = value

    def remove(self, store: str, key: str) -> None:
        del self._vaults[self._url(store)][key]

    def close(self) -> None:
        for client in self._clients:
            client.close()


class TestKeyVault(SecretSuite):
    @pytest.fixture
    def harness(self, sdk: Any) -> Iterator[SecretHarness]:
        key_vault = KeyVaultHarness(sdk)
        yield key_vault
        key_vault.close()


def test_what_azure_refuses(sdk: Any, canary: Canary) -> None:
    from azure.core import exceptions

    harness = KeyVaultHarness(sdk)
    client = harness.client()
    secret = canary.value()
    for error, expected in (
        (exceptions.ClientAuthenticationError(secret, 401), UnauthenticatedError),
        (exceptions.HttpResponseError(secret, 403), PermissionDeniedError),
        (exceptions.HttpResponseError(secret, 503), UnavailableError),
        (exceptions.AzureError(secret), UnavailableError),
    ):
        sdk.fail = error
        with canary.raises(expected):
            client.secret.get_secret("secret-1", "key")
    harness.close()
    with pytest.raises(InvalidArgumentError, match='give url = "https://NAME'):
        CloudRuntimesClient(config={"secret": {"s": {"component": "acme_key_vault"}}}).secret.get_secret("s", "key")
