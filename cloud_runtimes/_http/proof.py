"""How caller and server of one secret show each other that they know it, before a call is sent.

On a new connection the caller sends a nonce. The server answers with a nonce of its own and HMACs over both, its name, its instance, and the place where it was reached. So a process that took over a port learns nothing and is told apart, also if it passes the question on to the real server: that one was reached elsewhere. Then the caller sends a token with its calls. The token is an HMAC over both nonces under another key, so it is this connection's, lives for `LIFETIME` seconds, and nobody can pretend to be the server with it.

A server is reached at one of three places:

* the address and port of its own socket, which the caller compares with the other end of its socket;
* the ``Host`` that the caller asked for, where the server's operator allows that name (behind a proxy, or a mapping of ports);
* any place by ``https``, where the certificate has shown whose it is.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Iterable
from time import time
from typing import Any, Final

from ..spi.rpc import Guard

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


REFUSED: Final = "refused"
"""What an answer has in `TOKEN_HEADER` where the call did not get beyond it: so it may be sent again with another token."""
LIFETIME: Final = 300.0
"""Seconds that a token is taken, by the server's wall clock; a caller renews it in half of that."""
HTTPS: Final = "https"
"""The place of whoever has shown a certificate."""
_TOKEN: Final = re.compile(r"([0-9a-f]{32,64})\.([0-9a-f]{10,12})([0-9a-f]{32})\.([0-9a-f]{64})")


def _mac(secret: bytes, *parts: str) -> str:
    return hmac.digest(secret, "\0".join(parts).encode(), hashlib.sha256).hex()


def call_token(secret: bytes, app_id: str, nonce: str, challenge: str) -> str:
    """Return what a caller sends with its calls, once the server has proved itself."""
    return f"{nonce}.{challenge}.{_mac(secret, 'cloud-runtimes rpc call 2', app_id, nonce, challenge)}"


def _proof(secret: bytes, app_id: str, instance: str, nonce: str, challenge: str, where: str) -> str:
    return _mac(secret, "cloud-runtimes rpc server 2", app_id, instance, nonce, challenge, where)


def peer(address: Any) -> str | None:
    """Return the place of a socket's address; ``None``: it has none, as of a Unix socket."""
    try:
        host, port = address[:2]
        ip = ipaddress.ip_address(str(host).partition("%")[0])
    except (TypeError, ValueError):
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return f"{ip} {port}"


def answer(guard: Guard, app_id: str, instance: str, nonce: str, addresses: Iterable[str]) -> dict[str, Any]:
    """Return the server's side of a hello; ``addresses`` are those where it was reached."""
    challenge = f"{int((time() + LIFETIME) * 1000):x}{os.urandom(16).hex()}"
    proofs = [
        _proof(secret, app_id, instance, nonce, challenge, each) for each in addresses for secret in guard.secrets
    ]
    return {"app_id": app_id, "instance": instance, "nonce": challenge, "proofs": proofs}


def proves(
    reply: Any, secret: bytes, app_id: str, instance: str | None, nonce: str, addresses: Iterable[str | None]
) -> str | None:
    """Return the token for calls where a hello's reply comes from that service, reached at one of the places; ``None``: it does not."""
    if not isinstance(reply, dict) or reply.get("app_id") != app_id:
        return None
    named, challenge, proofs = reply.get("instance"), reply.get("nonce"), reply.get("proofs")
    if not isinstance(named, str) or not isinstance(challenge, str) or not isinstance(proofs, list) or len(proofs) > 8:
        return None
    if instance is not None and named != instance:
        return None
    known = [each for each in proofs if isinstance(each, str) and each.isascii()]
    for where in addresses:
        if where is not None:
            expected = _proof(secret, app_id, named, nonce, challenge, where)
            if any(hmac.compare_digest(each, expected) for each in known):
                return call_token(secret, app_id, nonce, challenge)
    return None


def accepts(guard: Guard, app_id: str, token: str | None, sidecar: str | None = None) -> bool:
    """Return whether a caller shows a token of this server; ``sidecar`` is what came in `SIDECAR_HEADER`."""
    if guard.sidecar is not None and sidecar is not None and hmac.compare_digest(sidecar.encode(), guard.sidecar):
        return True
    match = None if token is None else _TOKEN.fullmatch(token)
    if match is None or int(match[2], 16) < time() * 1000:
        return False
    expected = [call_token(secret, app_id, match[1], match[2] + match[3]) for secret in guard.secrets]
    return sum(hmac.compare_digest(match[0], each) for each in expected) > 0  # no any(): all are compared, always
