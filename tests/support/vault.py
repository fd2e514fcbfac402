"""A stub of Vault, since no real one can be had here: the calls that the component makes, answered as Vault's API documentation says."""

from __future__ import annotations

import json
import threading
import time
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.listening import Answer, HttpServer

__all__ = ["VaultStub"]


class VaultStub(HttpServer):
    """A server in a thread.

    Attributes:
        url: of it.
        kv: mount → path → versions of a secret, in the order of their numbers; ``None``: deleted.
        tokens: token → `time.monotonic` when it ends.
        leases: lease → the same.
        life: seconds of a new token and of a new lease.
        longest: seconds after which neither can be renewed.
        rusty: answer as RustyVault 0.2.1 does: lists are asked for by their verb, and of what is not there it says nothing.
        down: the status that everything is answered with.
        requests: what was asked, such as ``GET secret/data/key``.
    """

    def __init__(self) -> None:
        self.kv: dict[str, dict[str, list[dict[str, Any] | None]]] = {"secret": {}}
        self.second = {"secret"}  # mounts of version 2
        self.tokens: dict[str, float] = {}
        self.leases: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        self.revoked: list[str] = []
        self.life = 3600.0
        self.longest = float("inf")
        self.roles: dict[str, str] = {}  # role_id or role → secret_id or jwt
        self.rusty = False
        self.down = 0
        self.requests: list[str] = []
        self._issued = 0
        self._lock = threading.Lock()
        super().__init__()

    def answered(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        with self._lock:
            status, reply = self.answer(method, path, headers.get("X-Vault-Token"), json.loads(body) if body else {})
        return status, b"" if reply is None else json.dumps(reply).encode(), [("Content-Type", "application/json")]

    # -- what tests do ----------------------------------------------------

    def token(self, seconds: float = 3600.0) -> str:
        """Make a token."""
        self._issued += 1
        token = f"hvs.{self._issued}"
        self.tokens[token] = time.monotonic() + seconds
        self.begun[token] = time.monotonic()
        return token

    def put(self, path: str, entries: dict[str, Any], mount: str = "secret") -> None:
        self.kv.setdefault(mount, {}).setdefault(path, []).append(entries)

    # -- what it answers --------------------------------------------------

    def answer(self, verb: str, target: str, token: str | None, body: dict[str, Any]) -> tuple[int, Any]:
        parts = urlsplit(target)
        path = unquote(parts.path.removeprefix("/v1/"))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.requests.append(f"{verb} {path}")
        if self.down:
            return self.down, {"errors": ["Vault is sealed"]}
        if path in ("auth/approle/login", "auth/kubernetes/login"):
            role = body.get("role_id") or body.get("role") or ""
            given = body.get("secret_id") or body.get("jwt")
            if self.roles.get(role) != given:
                return 400, {"errors": ["invalid role or secret ID"]}
            return 200, self._auth(self.token(self.life))
        if token is None or self.tokens.get(token, 0.0) < time.monotonic():
            return 403, {"errors": ["permission denied"]}
        if path == "auth/token/lookup-self":
            return 200, {"data": {"ttl": 1}}
        if path == "auth/token/renew-self":
            self.tokens[token] = self._longer(token)
            return 200, self._auth(token)
        if path.startswith("sys/leases/"):
            lease = body["lease_id"]
            if path.endswith("revoke"):
                self.leases.pop(lease, None)
                self.revoked.append(lease)
                return 204, None
            if self.leases.get(lease, 0.0) < time.monotonic():
                return 400, {"errors": ["lease not found"]}
            self.leases[lease] = self._longer(lease)
            remaining = int(self.leases[lease] - time.monotonic() + 0.999)
            return 200, {"lease_id": lease, "lease_duration": remaining, "renewable": True}
        if path.startswith("database/creds/"):
            self._issued += 1
            lease = f"{path}/{self._issued}"
            self.begun[lease] = time.monotonic()
            self.leases[lease] = self._longer(lease)
            data = {"username": f"u-{self._issued}", "password": f"p-{self._issued}", "last_password": None}
            return 200, {"lease_id": lease, "lease_duration": int(self.life), "renewable": True, "data": data}
        if verb == "LIST":
            query["list"] = "true"
        elif self.rusty and "list" in query:
            return 404, None
        status, reply = self._keys(path, query)
        if self.rusty and status == 404:
            reply = {"error": "Router mount not found."} if reply["errors"] else None
        return status, reply

    def _longer(self, what: str) -> float:
        return min(time.monotonic() + self.life, self.begun[what] + self.longest)

    def _auth(self, token: str) -> dict[str, Any]:
        remaining = self.tokens[token] - time.monotonic()
        return {"auth": {"client_token": token, "lease_duration": int(remaining + 0.999), "renewable": True}}

    def _keys(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        mount, _, path = path.partition("/")
        kv = self.kv.get(mount)
        if kv is None:
            return 404, {"errors": [f'no handler for route "{mount}/{path}". route entry not found.']}
        kind = "data"
        if mount in self.second:
            kind, _, path = path.partition("/")
        if query.get("list") == "true":
            below = f"{path}/" if path else ""
            rest = [name[len(below) :] for name in kv if name.startswith(below)]
            keys = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in rest})
            return (200, {"data": {"keys": keys}}) if keys else (404, {"errors": []})
        versions = kv.get(path)
        if kind != "data" or versions is None:
            return 404, {"errors": []}
        number = int(query.get("version", len(versions))) or len(versions)
        if number > len(versions):
            return 404, {"errors": []}
        stored = versions[number - 1]
        if mount not in self.second:
            return 200, {"data": stored}
        document = {"data": {"data": stored, "metadata": {"version": number}}}
        return (404 if stored is None else 200), document
