"""Requests to Vault: logging in, asking again with a new token, and what its answers mean."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn
from urllib.parse import quote

from ..._http.client import HttpClient
from ...codec import json
from ...codec.payload import JSON
from ...errors import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from ...rpc.peers import endpoint
from ...spi.rpc import RpcCall, RpcReply
from .._net.http import Flow, FlowClient, document, tls

if TYPE_CHECKING:
    from . import VaultSettings

_EARLY: Final = 2 / 3
"""Of its life, after which a token or a lease is renewed."""
_WAYS: Final = "set token, token_file, role_id or kubernetes_role, the variable VAULT_TOKEN, or run vault login"


class Lease(NamedTuple):
    """How long something is good for."""

    id: str
    seconds: float
    renewable: bool
    renew_at: float  # of `time.monotonic`
    ends_at: float

    @classmethod
    def of(cls, id: str, seconds: float, renewable: bool) -> Lease:
        now = monotonic()
        endless = not seconds
        return cls(
            id,
            seconds,
            renewable,
            float("inf") if endless else now + seconds * _EARLY,
            float("inf") if endless else now + seconds,
        )

    def __repr__(self) -> str:
        return f"<Lease of {self.seconds:g} s>"  # a token's id is the token


class VaultClient(FlowClient):
    """The connections to one server, and the token."""

    def __init__(self, settings: VaultSettings, app_id: str) -> None:
        url = settings.url or os.environ.get("VAULT_ADDR")
        if not url:
            raise InvalidArgumentError('vault: give url = "https://vault.example.com:8200", or set VAULT_ADDR')
        super().__init__(app_id)
        self._settings = settings
        self._endpoint = endpoint(url, "vault: url")
        self.where = f"vault {self._endpoint.authority}"
        self._namespace = settings.namespace or os.environ.get("VAULT_NAMESPACE")
        self.token: Lease | None = None
        self.login = 0  # counts them
        self._http = HttpClient(tls(settings.ca_file or os.environ.get("VAULT_CACERT"), "vault: ca_file"))

    # -- calls ------------------------------------------------------------

    def ask(
        self, verb: str, path: str, *, query: str = "", body: Mapping[str, Any] | None = None, absent: bool = False
    ) -> Flow[bytes | None]:
        """Make a request and return the answer, ``None`` where there is nothing (only with ``absent``); a token that is refused is replaced once."""
        fresh = yield from self.logged_in()
        while True:
            reply = yield self._request(verb, path, query, body)
            if reply.status in (200, 204):
                return reply.data
            if reply.status != 403 or fresh or not self._other_token():
                break
            fresh = yield from self.logged_in()
        if reply.status == 404 and absent and not _has_reason(reply):
            return None
        self._refuse(reply, path)

    def _request(self, verb: str, path: str, query: str, body: Mapping[str, Any] | None) -> RpcCall:
        """Return a request with the token, if there is one."""
        more = {} if self.token is None else {"x-vault-token": self.token.id}
        if self._namespace is not None:
            more["x-vault-namespace"] = self._namespace
        more["x-vault-request"] = "true"
        data = b"" if body is None else json.encode(body)
        path = f"v1/{quote(path, safe='/')}"
        return RpcCall(path, path, verb, data, None if body is None else JSON, more, query)

    def _refuse(self, reply: RpcReply, path: str) -> NoReturn:
        status = reply.status
        if status == 403:
            raise PermissionDeniedError(
                f"{self.where}: the token may not use {path!r}, or there is no such mount: look at its policies"
            )
        if status == 404:
            raise NotFoundError(f"{self.where}: there is no {path!r}: look at mount, engine and path")
        if status == 429:
            raise ResourceExhaustedError(f"{self.where}: more requests than its quota allows", retryable=True)
        if status in (412, 502, 503, 504):
            raise UnavailableError(f"{self.where}: it is sealed, starting or a standby (status {status})")
        if status in (400, 405):
            raise InvalidArgumentError(
                f"{self.where}: it refuses a request for {path!r} (status {status}): look at mount, engine and path"
            )
        raise InternalError(f"{self.where}: it answered with the status {status}")

    # -- tokens -----------------------------------------------------------

    def logged_in(self) -> Flow[bool]:
        """Have a token, and renew one that nears its end; returns whether it is a new one."""
        if self.token is not None and (monotonic() < self.token.renew_at or (yield from self._renewed())):
            return False
        self.login += 1
        settings = self._settings
        if settings.role_id is None and settings.kubernetes_role is None:
            self.token = Lease.of(self._given(), 0, False)
            return True
        self.token = None  # a login takes none
        mount = settings.auth_mount or ("kubernetes" if settings.role_id is None else "approle")
        reply = yield self._login(f"auth/{mount}/login")
        if reply.status == 200:
            self.token = _login_lease(reply.data)
        if self.token is None:
            if reply.status in (400, 401, 403, 404):
                raise UnauthenticatedError(
                    f"{self.where}: the login at auth/{mount} is refused (status {reply.status}): "
                    "look at the role, its secret, and auth_mount"
                )
            self._refuse(reply, f"auth/{mount}/login")
        return True

    def _login(self, path: str) -> RpcCall:
        settings = self._settings
        if settings.role_id is None:
            jwt = {"jwt": self._read(settings.kubernetes_token_file)}
            return self._request("POST", path, "", {"role": settings.kubernetes_role, **jwt})
        secret = settings.secret_id
        if settings.secret_id_file is not None:
            secret = self._read(settings.secret_id_file)
        given = {} if secret is None else {"secret_id": secret}
        return self._request("POST", path, "", {"role_id": settings.role_id, **given})

    def _given(self) -> str:
        settings = self._settings
        if settings.token is not None:
            return settings.token
        if settings.token_file is not None:
            return self._read(settings.token_file)
        if (token := os.environ.get("VAULT_TOKEN", "")) and token.isascii() and token.isprintable():
            return token
        mine = Path("~/.vault-token").expanduser()
        if mine.exists():
            return self._read(str(mine))
        raise UnauthenticatedError(f"{self.where}: there is no token: {_WAYS}")

    def _read(self, path: str) -> str:
        try:
            text = Path(path).read_text("ascii").strip()
            if text and text.isprintable():
                return text
            why: object = "it is no line of text"
            del text
        except OSError as error:
            why = error.strerror
        except UnicodeDecodeError:
            why = "it is no text"
        raise UnauthenticatedError(f"{self.where}: cannot read {path}: {why}")

    def _other_token(self) -> bool:
        """Forget a token that is refused; returns whether there may be another."""
        settings, token = self._settings, self.token
        self.token = None
        if settings.role_id is None and settings.kubernetes_role is None:
            return token is None or self._given() != token.id
        return True

    def _renewed(self) -> Flow[bool]:
        """Have the token live longer, and with it the leases that were made by it; returns whether it does."""
        token = self.token
        if token is None or not token.renewable:
            return False
        reply = yield self._request("POST", "auth/token/renew-self", "", {})
        renewed = _login_lease(reply.data) if reply.status == 200 else None
        if renewed is None or renewed.seconds < token.seconds / 2:
            return False  # it nears the end that it has in any case
        self.token = renewed
        return True


def _has_reason(reply: RpcReply) -> bool:
    """Return whether a refusal says why; of a secret that is not there it says nothing, of a mount that is not it does. RustyVault says ``error``, or sends an empty body."""
    body = document(reply.data or b"{}")
    return not isinstance(body, dict) or bool(body.get("errors") or body.get("error"))


def _login_lease(data: bytes) -> Lease | None:
    body = document(data)
    try:
        auth = body["auth"]
        return Lease.of(str(auth["client_token"]), float(auth["lease_duration"]), bool(auth["renewable"]))
    except (KeyError, TypeError, ValueError):
        return None
