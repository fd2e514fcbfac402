"""The type of Vault."""

from __future__ import annotations

from typing import Final

from ..types import ComponentType, is_true


def _no_prefix(text: str) -> str:
    if is_true(text):
        raise ValueError("leave it out")
    return ""


TYPES: Final = {
    "secretstores.hashicorp.vault": ComponentType(
        "secret",
        "vault",
        {
            "cacert": ("ca_file", str),
            "enginepath": ("mount", str),
            "vaultaddr": ("url", str),
            "vaultkvprefix": ("path", str),
            "vaultkvuseprefix": ("path", _no_prefix),
            "vaulttoken": ("token", str),
            "vaulttokenmountpath": ("token_file", str),
        },
        settings={"path": "dapr"},
        refused={
            **dict.fromkeys(("capath", "capem"), "give caCert, the name of a file"),
            "skipverify": "give caCert, by which the server's certificate is checked",
            "tlsservername": "let vaultAddr have the name of the certificate",
            "vaultvaluetype": "leave it out: a secret has its entries",
        },
    )
}
