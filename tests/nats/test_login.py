"""Login by a signature or a certificate: NKeys, JWTs, TLS. No error, log or frame variable has a seed or a JWT."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud_runtimes.errors import InvalidArgumentError, UnauthenticatedError, UnavailableError, UnsupportedError
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import PEM, Make
from tests.support.fault_proxy import FaultProxy
from tests.support.nats import Serve

Watch = Callable[[str], None]
_KINDS = {"O": 14, "A": 0, "U": 20}
ALL: dict[str, Any] = dict.fromkeys(
    [
        "subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams",
        "consumer",
    ],
    -1,
)  # fmt: skip


def text(raw: bytes) -> str:
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")


def url64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Key:
    """An NKey of an operator, an account or a user."""

    def __init__(self, kind: str) -> None:
        prefix = _KINDS[kind] << 3
        self._key = Ed25519PrivateKey.generate()
        self.public = text(bytes([prefix]) + self._key.public_key().public_bytes_raw())
        self.seed = text(bytes([18 << 3 | prefix >> 5, (prefix & 31) << 3]) + self._key.private_bytes_raw())

    def jwt(self, subject: Key, kind: str, **claims: Any) -> str:
        """Sign what this one says of another."""
        expires = {"exp": claims.pop("exp")} if "exp" in claims else {}
        body = {
            "jti": "1", "iat": int(time.time()), "iss": self.public, "sub": subject.public, "name": kind, **expires,
            "nats": {"type": kind, "version": 2, **claims},
        }  # fmt: skip
        parts = [json.dumps(each).encode() for each in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
        signed = ".".join(map(url64, parts))
        return f"{signed}.{url64(self._key.sign(signed.encode()))}"


def creds(path: Path, jwt: str, seed: str) -> str:
    """Write a file as ``nsc`` does."""
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\nNKEY Seed printed below can be used to sign.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n******\n"
    )
    return str(path)


@pytest.fixture
def watch(canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a text one that must not stand anywhere but in the files of the test."""

    def watch(secret: str) -> None:
        monkeypatch.setattr(canary, "_needles", [*canary._needles, secret.encode()])
        canary.declare(tmp_path)

    return watch


def test_an_nkey(served: Serve, client: Make, api: Api, tmp_path: Path, canary: Canary, watch: Watch) -> None:
    mine, other = Key("U"), Key("U")
    server = served(authorization={"users": [{"nkey": mine.public}, {"user": "app", "password": "word"}]})
    for name, key in (("mine", mine), ("other", other)):
        (tmp_path / name).write_text(f"{key.seed}\n")
        watch(key.seed)
    state = client(server.url, nkey=str(tmp_path / "mine")).state
    api.call(state, "save", "s", "k", 1)
    assert api.call(client(f"nats://app:word@127.0.0.1:{server.port}").state, "get", "s", "k") == 1
    for settings in ({"nkey": str(tmp_path / "other")}, {}):
        error = api.fails(UnauthenticatedError, match="credentials or nkey")(
            client(server.url, **settings).state, "get", "s", "k"
        )
        canary.look_through(error)


def test_a_jwt(served: Serve, client: Make, api: Api, tmp_path: Path, canary: Canary, watch: Watch) -> None:
    """An operator signs accounts, an account signs users; a file that is renewed is read at the next login."""
    operator, system, account, user = Key("O"), Key("A"), Key("A"), Key("U")
    limits = {**ALL, "wildcards": True}
    none = {**limits, "mem_storage": 0, "disk_storage": 0, "streams": 0, "consumer": 0}  # a server insists on it
    accounts = {
        each.public: operator.jwt(each, "account", limits=own) for each, own in ((system, none), (account, limits))
    }
    server = served(
        operator=operator.jwt(operator, "operator"),
        resolver="MEMORY",
        resolver_preload=accounts,
        system_account=system.public,
    )
    rights = {each: ALL[each] for each in ("subs", "data", "payload")}
    good = account.jwt(user, "user", **rights)
    for secret in (good, user.seed):
        watch(secret)
    path = creds(tmp_path / "app.creds", good, user.seed)
    app_client = client(server.url, credentials=path)
    api.call(app_client.state, "save", "s", "k", 1)
    assert api.call(app_client.state, "get", "s", "k") == 1
    old, strange = account.jwt(user, "user", exp=int(time.time()) - 10, **rights), Key("A").jwt(user, "user", **rights)
    for wrong in (old, strange):
        creds(tmp_path / "wrong.creds", wrong, user.seed)
        error = api.fails(UnauthenticatedError, match="credentials")(
            client(server.url, credentials=str(tmp_path / "wrong.creds")).state, "get", "s", "k"
        )
        canary.look_through(error)
    creds(tmp_path / "wrong.creds", good, user.seed)
    assert api.call(client(server.url, credentials=str(tmp_path / "wrong.creds")).state, "get", "s", "k") == 1


@pytest.mark.parametrize("setting", ["nkey", "credentials"])
def test_files_that_are_none(
    served: Serve, client: Make, api: Api, tmp_path: Path, canary: Canary, watch: Watch, setting: str
) -> None:
    server, path, account = served(), tmp_path / "file", Key("A")
    watch(account.seed)
    with_seed = (
        "" if setting == "nkey" else "-----BEGIN NATS USER JWT-----\na\n------END \n-----BEGIN SEED-----\n{}\n-----END "
    )
    for content in (None, b"", b"\xff", b"not base32!", account.seed.encode(), Key("U").seed[:-9].encode()):
        if content is not None:
            path.write_bytes(with_seed.encode().replace(b"{}", content) if with_seed else content)
        what = rf"{setting}: the file .*file (cannot be read: No such file|is not |cannot be read: it is no text)"
        error = api.fails(InvalidArgumentError, match=what)(
            client(server.url, **{setting: str(path)}).state, "get", "s", "k"
        )
        assert not error.maybe_applied
        canary.look_through(error)


def test_without_its_extra(served: Serve, client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "seed").write_text(Key("U").seed)
    server = served()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(UnsupportedError, match=r"pip install \"\.\[nats\]\" in the checkout"):
        client(server.url, nkey=str(tmp_path / "seed")).state.get("s", "k")


def test_certificates(served: Serve, client: Make, api: Api, tmp_path: Path) -> None:
    """A server that asks for the client's own, and what is said of those that do not fit."""
    both = {"cert_file": str(PEM), "key_file": str(PEM), "ca_file": str(PEM)}
    server = served(tls={**both, "verify": True})
    mine = {"tls_certificate": str(PEM), "tls_key": str(PEM), "tls_ca": str(PEM)}
    state = client(f"tls://localhost:{server.port}", **mine).state
    api.call(state, "save", "s", "k", 1)

    def fails(url: str, match: str, kind: type[Exception] = UnavailableError, **settings: Any) -> None:
        api.fails(kind, match=match)(client(url, **settings).state, "get", "s", "k")

    fails(
        f"tls://localhost:{server.port}", "not trusted: give the file of its issuer as tls_ca .self.signed certificate"
    )
    with FaultProxy(server.port, pem=PEM) as proxy:  # which listens on all of 127/8
        url = f"tls://127.0.0.2:{proxy.port}"
        fails(url, "is for another name: name the server as it does .*127.0.0.2", tls_ca=str(PEM), tls_first=True)
    fails(
        f"tls://localhost:{server.port}",
        "the server wants a certificate of its client in tls_certificate",
        tls_ca=str(PEM),
    )
    fails(
        f"tls://localhost:{server.port}", "cannot be read: No such", InvalidArgumentError, tls_ca=str(tmp_path / "no")
    )
    fails(served().url.replace("nats:", "tls:"), "has no TLS")
