"""Credentials that an engine makes when they are read. Each is a lease: renewed by a thread while the client is open, and revoked when it closes.

A credential is handed out again while it lives. One that cannot be renewed any more is replaced by the next read before it ends.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..._core import fork
from ..._core.logs import logger
from ..._core.threads import Mutex
from ...errors import CloudRuntimesError, PayloadError, UnsupportedError
from ...spi.operation import Method, Operation
from ...spi.secret import Secret, SecretDriver
from .._net.http import Flow, document
from .client import Lease, VaultClient
from .secret import entries, path_of

if TYPE_CHECKING:
    from . import VaultComponent

_RENEW: Final = Method("secret", "renew", repeatable=True, writes=False)
_LIMIT: Final = 10.0
"""Seconds for one renewal."""
_AGAIN: Final = 5.0
"""Seconds until a renewal that failed is tried again."""
_LEFT: Final = 1 / 6
"""Of its life, which a credential has at least when it is handed out again."""


class _Held(NamedTuple):
    secret: Secret
    lease: Lease
    login: int  # with which it was made: when that token ends, the lease does

    def lives(self, login: int) -> bool:
        return self.login == login and monotonic() < self.lease.ends_at - self.lease.seconds * _LEFT


class Leases:
    """Leases that this process holds at one server."""

    def __init__(self, client: VaultClient) -> None:
        self._client = client
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: the leases are the parent's, which revokes them."""
        self._held: dict[str, _Held] = {}
        self._mutex = Mutex()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def get(self, op: Operation, path: str, what: str) -> Secret:
        """Return the credential of a path; ``what`` it is, for messages."""
        with self._mutex:  # two at once would make two users of a database
            held = self._held.get(path)
            if held is None or not held.lives(self._client.login):
                held = self._client.run(op, self._issue(path, what))
                if held.lease.id:
                    self._held[path] = held
                    self._start()
            return held.secret

    def _issue(self, path: str, what: str) -> Flow[_Held]:
        result = _read((yield from self._client.ask("GET", path)))
        if isinstance(result, str):
            raise PayloadError(f"{what}: {result}")
        return _Held(*result, self._client.login)

    def close(self, timeout: float | None) -> None:
        """Revoke what is held; what is not within the time ends by itself."""
        self._closed = True
        self._wake.set()
        op = Operation(_RENEW, "vault", _LIMIT if timeout is None else min(timeout, _LIMIT))
        for held in self._held.values():
            self._try(op, self._lease("revoke", held.lease))
        self._held.clear()

    # -- renewing ---------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew, name="cloud-runtimes-vault", daemon=True)
            self._thread.start()
        self._wake.set()

    def _renew(self) -> None:
        while not self._closed:
            leases = [held.lease for held in list(self._held.values()) if held.lease.renewable]
            if self._client.token is not None:
                leases.append(self._client.token)
            soonest = min(lease.renew_at for lease in leases) if leases else float("inf")
            if self._wake.wait(min(max(0.0, soonest - monotonic()), threading.TIMEOUT_MAX)):
                self._wake.clear()
            elif not self._renewed():
                self._wake.wait(_AGAIN)

    def _renewed(self) -> bool:
        """Renew what is due; returns whether all is well."""
        with self._mutex:  # two logins at once would part a credential from its token
            well = self._try(Operation(_RENEW, "vault", _LIMIT), self._client.logged_in()) is not None
        for path, held in list(self._held.items()):
            if not held.lease.renewable or monotonic() < held.lease.renew_at or held.login != self._client.login:
                continue
            data = self._try(Operation(_RENEW, "vault", _LIMIT), self._lease("renew", held.lease))
            if data is None:
                well = False
                continue
            seconds = _seconds(data)
            # one that nears its end gets less than it asks for
            longer = Lease.of(held.lease.id, seconds, seconds >= held.lease.seconds / 2)
            with self._mutex:
                if self._held.get(path) is held:
                    self._held[path] = held._replace(lease=longer)
        return well

    def _lease(self, verb: str, lease: Lease) -> Flow[bytes | None]:
        body: dict[str, Any] = {"lease_id": lease.id}
        if verb == "renew":
            body["increment"] = int(lease.seconds)
        return (yield from self._client.ask("POST", f"sys/leases/{verb}", body=body))

    def _try(self, op: Operation, flow: Flow[Any]) -> Any:
        try:
            return self._client.run(op, flow)
        except CloudRuntimesError as error:
            logger().warning("a lease of %s: %s", self._client.where, error)
            return None


def _read(data: bytes | None) -> tuple[Secret, Lease] | str:
    """Return what an engine made, or what is wrong with the answer; nothing is raised, since an error's frames would show it."""
    body = document(data or b"")
    try:
        secret = entries({name: value for name, value in body["data"].items() if value is not None})
        if isinstance(secret, str):
            return secret
        return secret, Lease.of(str(body["lease_id"]), float(body["lease_duration"]), bool(body["renewable"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return "is no answer of Vault's"


def _seconds(data: bytes) -> float:
    body = document(data)
    try:
        return float(body["lease_duration"])
    except (KeyError, TypeError, ValueError):
        return 0.0


class DynamicSecret(SecretDriver):
    """The credentials below one path of a mount: a key is such as ``creds/readonly``."""

    def __init__(self, component: VaultComponent, name: str) -> None:
        settings = component.settings
        self._component = component
        self._name = name
        self._mount = settings.mount
        self._prefix = settings.prefix(name)
        self.executor = component.executor

    def get(self, op: Operation, key: str, /) -> Secret:
        path = f"{self._mount}/{path_of(self._name, self._prefix, key)}"
        return self._component.leases.get(op, path, f"secret {key!r} of {self._name!r}")

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        raise UnsupportedError("an engine that makes credentials does not list them")
