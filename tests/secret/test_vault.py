"""Vault: logins, tokens that end, versions, what its refusals mean, and credentials that it makes. It is a stub of Vault that answers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    BulkError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import Make
from tests.support.vault import VaultStub
from tests.support.waiting import in_threads, until


@pytest.fixture
def vault() -> Iterator[VaultStub]:
    stub = VaultStub()
    yield stub
    stub.close()


@pytest.fixture
def on(vault: VaultStub, client: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """A client of the stub, with what it is given; nothing of the environment counts."""
    for name in [name for name in os.environ if name.startswith("VAULT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return lambda **settings: client("vault", **{"url": vault.url, **settings})


def get(api: Api, client: CloudRuntimesClient, key: str = "key", **more: Any) -> Any:
    return api.call(client.secret, "get_secret", "s", key, **more)


# -- logins -------------------------------------------------------------------


def test_ways_to_a_token(vault: VaultStub, on: Make, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vault.put("s/key", {"key": "v"})
    api.fails(UnauthenticatedError, match="there is no token: set token, token_file")(
        on().secret, "get_secret", "s", "key"
    )
    file = tmp_path / "token"
    file.write_text(f"{vault.token()}\n")
    (tmp_path / "jwt").write_text("a.b.c")
    (tmp_path / "id").write_text("hunter2")
    vault.roles = {"r": "hunter2", "shop": "a.b.c"}
    given: list[dict[str, Any]] = [
        {"token": vault.token()},
        {"token_file": file},
        {"role_id": "r", "secret_id": "hunter2"},
        {"role_id": "r", "secret_id_file": tmp_path / "id"},
        {"kubernetes_role": "shop", "kubernetes_token_file": tmp_path / "jwt"},
    ]
    for settings in given:
        assert get(api, on(**settings)).value == "v"
    (tmp_path / ".vault-token").write_text(vault.token())
    assert get(api, on()).value == "v"
    (tmp_path / ".vault-token").write_text("another")
    monkeypatch.setenv("VAULT_TOKEN", vault.token())
    monkeypatch.setenv("VAULT_ADDR", vault.url)
    assert get(api, on(url=None)).value == "v"


def test_settings_that_do_not_fit(on: Make, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"token": "t", "role_id": "r"}, "one way to log in"),
        ({"secret_id": "hunter2"}, "belongs to a role_id"),
        ({"role_id": "r", "secret_id": "a", "secret_id_file": "b"}, "secret_id or secret_id_file"),
        ({"mount": "a//b"}, "mount must be names"),
        ({"path": "../x"}, "path must be names"),
        ({"token": "a\nb"}, "printable ASCII"),
        ({"cache": "2h"}, "at most an hour"),
        ({"engine": "kv3"}, "'kv2'"),
        ({"url": "vault"}, "no address"),
        ({"url": None}, "VAULT_ADDR"),
        ({"ca_file": tmp_path / "none"}, "has no certificates"),
    ]
    for settings, match in wrong:
        with pytest.raises(InvalidArgumentError, match=match):
            on(**settings).secret.get_secret("s", "key")


def test_a_login_that_is_refused(vault: VaultStub, on: Make, api: Api, tmp_path: Path, canary: Canary) -> None:
    secret = canary.value()
    with canary.raises(UnauthenticatedError, match="login at auth/approle is refused"):
        get(api, on(role_id="r", secret_id=secret))
    with canary.raises(UnauthenticatedError, match="cannot read .*none: No such file"):
        get(api, on(role_id="r", secret_id_file=tmp_path / "none"))
    (tmp_path / "two lines").write_text(f"{secret}\r\nx-other: 1")
    with canary.raises(UnauthenticatedError, match="cannot read .*two lines: it is no line of text"):
        get(api, on(token_file=tmp_path / "two lines"))
    (tmp_path / "two lines").unlink()
    with canary.raises(PermissionDeniedError, match="the token may not use 'secret/data/s/key'"):
        get(api, on(token=secret))
    vault.down = 503
    with canary.raises(UnavailableError, match="sealed"):
        get(api, on(role_id="r", secret_id=secret))


def test_a_token_that_ends_is_replaced(vault: VaultStub, on: Make, api: Api, tmp_path: Path) -> None:
    vault.put("s/key", {"key": "v"})
    vault.roles = {"r": "hunter2"}
    login = on(role_id="r", secret_id="hunter2")
    file = tmp_path / "token"
    file.write_text(vault.token())
    agent = on(token_file=file)
    for client in (login, agent):
        assert get(api, client).value == "v"
    vault.tokens.clear()
    file.write_text(vault.token())
    for client in (login, agent):
        assert get(api, client).value == "v"
    vault.tokens.clear()
    api.fails(PermissionDeniedError)(agent.secret, "get_secret", "s", "key")


def test_a_token_that_ends_while_all_are_read(vault: VaultStub, on: Make, api: Api) -> None:
    class Ending(list[str]):
        def append(self, request: str) -> None:
            super().append(request)
            if len(self) == 4:  # a login, a list, a secret
                vault.tokens.clear()

    for number in range(3):
        vault.put(f"s/key{number}", {"key": str(number)})
    vault.roles = {"r": "hunter2"}
    vault.requests = Ending()
    secrets = api.call(on(role_id="r", secret_id="hunter2").secret, "get_bulk_secret", "s")
    assert {key: each.value for key, each in secrets.items()} == {"key0": "0", "key1": "1", "key2": "2"}
    assert vault.requests.count("POST auth/approle/login") == 2


def test_a_token_is_renewed_before_it_ends(
    vault: VaultStub, on: Make, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.put("s/key", {"key": "v"})
    vault.roles = {"r": "hunter2"}
    client = on(role_id="r", secret_id="hunter2")
    get(api, client)
    (token,) = vault.tokens
    monkeypatch.setattr("cloud_runtimes.components.vault.client.monotonic", lambda: time.monotonic() + 3000)
    get(api, client)
    assert [*vault.tokens] == [token]
    assert vault.requests.count("POST auth/token/renew-self") == 1


# -- secrets ------------------------------------------------------------------


def test_versions(vault: VaultStub, on: Make, api: Api) -> None:
    for value in ("one", "two"):
        vault.put("s/key", {"key": value})
    client = on(token=vault.token())
    assert get(api, client).value == "two"
    assert get(api, client, metadata={"version": "1"}).value == "one"
    vault.kv["secret"]["s/key"].append(None)  # deleted, and may be undeleted
    for metadata in ({}, {"version": "9"}):
        api.fails(NotFoundError, match="vault kv put -mount=secret s/key key=-")(
            client.secret, "get_secret", "s", "key", metadata=metadata
        )
    api.fails(InvalidArgumentError, match="version: a number")(
        client.secret, "get_secret", "s", "key", metadata={"version": "x"}
    )


def test_where_secrets_are(vault: VaultStub, on: Make, api: Api) -> None:
    vault.put("team/shop/db", {"user": "u"}, mount="kv")
    vault.put("top", {"v": "1"}, mount="kv")
    vault.second.add("kv")
    token = vault.token()
    assert get(api, on(token=token, mount="kv", path="team/shop"), "db")["user"] == "u"
    everything = on(token=token, mount="kv", path="")
    assert get(api, everything, "team/shop/db")["user"] == "u"
    assert {*api.call(everything.secret, "get_bulk_secret", "s")} == {"team/shop/db", "top"}
    api.fails(NotFoundError, match="there is no 'none/data/s/key': look at mount")(
        on(token=token, mount="none").secret, "get_secret", "s", "key"
    )


def test_what_is_no_text(vault: VaultStub, on: Make, api: Api, canary: Canary) -> None:
    value = canary.value()
    vault.put("s/key", {"password": value, "port": 5432})
    vault.put("s/good", {"good": value})
    client = on(token=vault.token())
    with canary.raises(PayloadError, match="its entry 'port' is int"):
        get(api, client)
    with canary.raises(BulkError) as caught:
        api.call(client.secret, "get_bulk_secret", "s")
    assert {*caught.value.failed} == {"key"}
    assert (caught.value.result["good"].value == value) is True


@pytest.mark.parametrize(
    ("status", "error", "match"),
    [
        (429, ResourceExhaustedError, "quota"),
        (503, UnavailableError, "sealed"),
        (400, InvalidArgumentError, "look at mount, engine and path"),
        (418, InternalError, "status 418"),
    ],
)
def test_what_it_refuses(vault: VaultStub, on: Make, api: Api, status: int, error: type[Exception], match: str) -> None:
    client = on(token=vault.token())
    vault.down = status
    api.fails(error, match=match)(client.secret, "get_secret", "s", "key")


def test_a_server_that_is_away(vault: VaultStub, on: Make, api: Api) -> None:
    client = on(token=vault.token())
    vault.close()
    api.fails(UnavailableError, match="vault 127.0.0.1:.* cannot be reached")(
        client.secret, "get_secret", "s", "key", timeout=10
    )


def test_a_cache(vault: VaultStub, on: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    client = on(token=vault.token(), cache=60)
    vault.put("s/key", {"key": "old"})
    assert get(api, client).value == "old"
    vault.put("s/key", {"key": "new"})
    assert get(api, client).value == "old"
    monkeypatch.setattr("cloud_runtimes.components._secret.monotonic", lambda: time.monotonic() + 61)
    assert get(api, client).value == "new"
    assert vault.requests.count("GET secret/data/s/key") == 2


def test_ready(vault: VaultStub, on: Make, api: Api) -> None:
    vault.roles = {"r": "hunter2"}
    api.call(on(role_id="r", secret_id="hunter2"), "wait_ready")
    assert vault.requests == ["POST auth/approle/login", "GET auth/token/lookup-self"]


# -- credentials that it makes --------------------------------------------------


def dynamic(on: Make, vault: VaultStub, **settings: Any) -> CloudRuntimesClient:
    vault.roles = {"r": "hunter2"}
    return on(engine="dynamic", mount="database", role_id="r", secret_id="hunter2", **settings)


def test_a_credential_is_renewed_while_the_client_is_open(vault: VaultStub, on: Make) -> None:
    client = dynamic(on, vault)
    vault.life = 4.0
    secret = client.secret.get_secret("s", "readonly")
    assert {*secret} == {"username", "password"}
    lease, end = next(iter(vault.leases.items()))
    until(lambda: vault.leases[lease] > end)
    assert client.secret.get_secret("s", "readonly") == secret
    assert vault.leases[lease] > time.monotonic()
    assert len(vault.tokens) == 1, "a lease ends with the token that it was made with"
    client.close()
    assert vault.revoked == [lease]


def test_a_credential_that_cannot_be_renewed_is_replaced(vault: VaultStub, on: Make, api: Api) -> None:
    client = dynamic(on, vault)
    vault.life, vault.longest = 1.0, 1.0
    first = get(api, client, "readonly")
    until(lambda: bool(get(api, client, "readonly") != first))
    assert len(vault.tokens) == 2
    api.fails(UnsupportedError)(client.secret, "get_bulk_secret", "s")


def test_many_who_ask_at_once_share_one(vault: VaultStub, on: Make) -> None:
    client = dynamic(on, vault)
    names: list[str] = []
    in_threads(
        *[
            threading.Thread(target=lambda: names.append(client.secret.get_secret("s", "readonly")["username"]))
            for _ in range(8)
        ]
    )
    assert len(names) == 8
    assert len({*names}) == 1


def test_rusty_vault(vault: VaultStub, on: Make, api: Api) -> None:
    """Differences of version 0.2.1, observed by running it by hand."""
    vault.rusty = True
    vault.second.clear()
    vault.put("s/key", {"key": "v"})
    vault.put("s/sub/key", {"key": "w"})
    client = on(token=vault.token(), engine="kv1")
    assert api.call(client.secret, "get_bulk_secret", "s") == {"key": {"key": "v"}, "sub/key": {"key": "w"}}
    with pytest.raises(NotFoundError, match="no secret 'none' in 's'"):
        get(api, client, "none")
    with pytest.raises(NotFoundError, match="look at mount, engine and path"):
        get(api, on(token=vault.token(), engine="kv1", mount="none"))
