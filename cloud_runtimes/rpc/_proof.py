"""How caller and server of one secret show each other that they know it, before a call is sent.

On a new connection the caller asks with a nonce; the server answers with an HMAC over its name, its instance and the nonce, so that a process that took over the port learns nothing and is told apart. The caller's token is derived from the secret by another key: who sees it can call, but not pretend to be the server.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Final

from .driver import Guard

__all__ = [
    "CALLER_HEADER",
    "CONTENT_TYPE_HEADER",
    "HELLO",
    "NONCE",
    "TIMEOUT_HEADER",
    "SIDECAR_HEADER",
    "STATUS_HEADER",
    "TOKEN_HEADER",
    "accepts",
    "answer",
    "call_token",
    "proves",
]

HELLO: Final = "cloud-runtimes/hello"
TOKEN_HEADER: Final = "cloud-runtimes-token"
TIMEOUT_HEADER: Final = "cloud-runtimes-timeout"
"""Milliseconds that the caller still waits."""
CALLER_HEADER: Final = "cloud-runtimes-caller"
CONTENT_TYPE_HEADER: Final = "cloud-runtimes-content-type"
"""Of the body, empty without one: from a caller whose sidecar passes on neither content types nor any status but 200. The answer tells its own type by it, and its status by `STATUS_HEADER`."""
STATUS_HEADER: Final = "cloud-runtimes-status"
SIDECAR_HEADER: Final = "dapr-api-token"
"""What a sidecar shows that it is the application's own (Dapr, "App API token authentication")."""
NONCE: Final = re.compile(r"[0-9a-f]{32,64}")


def _mac(secret: bytes, *parts: str) -> str:
    return hmac.new(secret, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def call_token(secret: bytes) -> str:
    """Return what a caller sends with each call."""
    return _mac(secret, "cloud-runtimes rpc call 1")


def _proof(secret: bytes, app_id: str, instance: str, nonce: str) -> str:
    return _mac(secret, "cloud-runtimes rpc server 1", app_id, instance, nonce)


def answer(guard: Guard, app_id: str, instance: str, nonce: str) -> dict[str, Any]:
    """Return the server's side of a hello."""
    proofs = [_proof(secret, app_id, instance, nonce) for secret in guard.secrets]
    return {"app_id": app_id, "instance": instance, "proofs": proofs}


def proves(reply: Any, secret: bytes, app_id: str, instance: str | None, nonce: str) -> bool:
    """Tell whether a hello's reply comes from that service; ``instance`` is known where a registry named it."""
    if not isinstance(reply, dict) or reply.get("app_id") != app_id:
        return False
    named, proofs = reply.get("instance"), reply.get("proofs")
    if not isinstance(named, str) or not isinstance(proofs, list) or len(proofs) > 8:
        return False
    if instance is not None and named != instance:
        return False
    expected = _proof(secret, app_id, named, nonce)
    return any(isinstance(each, str) and each.isascii() and hmac.compare_digest(each, expected) for each in proofs)


def accepts(guard: Guard, tokens: tuple[str, ...], token: str | None, sidecar: str | None = None) -> bool:
    """Tell whether a caller is let in; ``tokens`` are those of the guard's secrets, ``sidecar`` is what came in `SIDECAR_HEADER`."""
    if guard.open:
        return True
    if guard.sidecar is not None and sidecar is not None and hmac.compare_digest(sidecar.encode(), guard.sidecar):
        return True
    if token is None or not token.isascii():
        return False
    return sum(hmac.compare_digest(token, each) for each in tokens) > 0  # no any(): all are compared, always
