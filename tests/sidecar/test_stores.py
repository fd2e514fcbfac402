"""Which components there are, over all blocks; who has a lock; and that no refusal says a secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from cloud_runtimes.testing.canary import Canary
from tests.sidecar.official import Sdk
from tests.sidecar.raw import Answer, call, send
from tests.support.running import serving

WRONG = {
    "capa": {"home": ":memory:wrong"},
    "state": {"store": {"component": "env"}},
    "lock": {"store": {"component": "env"}},
    "configuration": {"store": {"component": "env"}},
    "secret": {"store": {"component": "sqlite"}},
}
LOCK = {"resourceId": "r", "lockOwner": "me", "expiryInSeconds": 60}


def test_names_are_free_where_nothing_is_declared(sidecars: Callable[[str], Sidecar]) -> None:
    one = sidecars("free")
    for store in ("any", "other"):
        assert send(one.http_address, "POST", f"/v1.0/state/{store}", [{"key": "k", "value": store}]).status == 204
        assert send(one.http_address, "GET", f"/v1.0/state/{store}/k").json == store
        assert send(one.http_address, "POST", f"/v1.0-alpha1/lock/{store}", LOCK).json == {"success": True}
        assert send(one.http_address, "GET", f"/v1.0/configuration/{store}").status == 204
        assert send(one.http_address, "GET", f"/v1.0/secrets/{store}/bulk").json == {}
    for path in ("/v1.0/state/%00/k", f"/v1.0/state/{'x' * 300}/k"):
        answer = send(one.http_address, "GET", path)
        assert (answer.status, answer.error) == (400, "ERR_STATE_STORE_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("GET", "/v1.0/state/store/k", None, "ERR_STATE_GET"),
        ("DELETE", "/v1.0/state/store/k", None, "ERR_STATE_DELETE"),
        ("POST", "/v1.0/state/store", [{"key": "k", "options": {"consistency": "strong"}}], "ERR_STATE_SAVE"),
        ("POST", "/v1.0/state/store/bulk", {"keys": ["k"]}, "ERR_STATE_BULK_GET"),
        ("POST", "/v1.0/state/store/transaction", {"operations": []}, "ERR_STATE_TRANSACTION"),
        ("POST", "/v1.0-alpha1/lock/store", LOCK, "ERR_TRY_LOCK"),
        ("POST", "/v1.0-alpha1/unlock/store", LOCK, "ERR_UNLOCK"),
        ("GET", "/v1.0/configuration/store", None, "ERR_CONFIGURATION_GET"),
        ("GET", "/v1.0/secrets/store/k", None, "ERR_SECRET_GET"),
        ("GET", "/v1.0/secrets/store/bulk", None, "ERR_SECRET_GET"),
    ],
)
def test_a_declared_component_that_is_wrong(method: str, path: str, body: Any, error: str) -> None:
    """It is there, so it is not "not found": each call fails in its own words, which name the remedy."""
    with serving(WRONG) as one:
        answer = send(one.http_address, method, path, body)
        assert (answer.status, answer.error) == (500, error)
        assert "the component" in answer.json["message"]
        assert all(
            not each["capabilities"] for each in send(one.http_address, "GET", "/v1.0/metadata").json["components"]
        )


def test_a_stream_of_a_wrong_component() -> None:
    with serving(WRONG) as one:
        request = messages().SubscribeConfigurationRequest(store_name="store")
        # unary for the caller: the refusal comes before a message
        answer = call(one.grpc_address, "SubscribeConfiguration", request, "SubscribeConfigurationResponse")
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "ERR_CONFIGURATION_SUBSCRIBE")


# -- locks: who has them


def try_lock(sidecar: Sidecar, owner: str, **more: Any) -> Answer:
    body = {"resourceId": "r", "lockOwner": owner, "expiryInSeconds": 60, **more}
    return send(sidecar.http_address, "POST", "/v1.0-alpha1/lock/store", body)


def unlock(sidecar: Sidecar, owner: str) -> Answer:
    return send(sidecar.http_address, "POST", "/v1.0-alpha1/unlock/store", {"resourceId": "r", "lockOwner": owner})


def test_over_http(sidecar: Sidecar) -> None:
    assert unlock(sidecar, "me").json == {"status": 1}
    assert try_lock(sidecar, "me").json == {"success": True}
    # not re-entrant
    assert try_lock(sidecar, "me").json == {"success": False}
    assert try_lock(sidecar, "you").json == {"success": False}
    assert unlock(sidecar, "you").json == {"status": 2}
    assert unlock(sidecar, "me").json == {"status": 0}
    assert unlock(sidecar, "me").json == {"status": 1}


def test_over_grpc(sidecar: Sidecar) -> None:
    kinds = messages()
    wanted = kinds.TryLockRequest(store_name="store", resource_id="r", lock_owner="me", expiry_in_seconds=60)
    release = kinds.UnlockRequest(store_name="store", resource_id="r", lock_owner="me")
    assert call(sidecar.grpc_address, "TryLockAlpha1", wanted, "TryLockResponse").message.success is True
    assert call(sidecar.grpc_address, "TryLockAlpha1", wanted, "TryLockResponse").message.success is False
    assert [call(sidecar.grpc_address, "UnlockAlpha1", release, "UnlockResponse").message.status for _ in range(2)] == [
        0,
        1,
    ]


def test_names_of_both_cases_and_numbers_as_text(sidecar: Sidecar) -> None:
    """ProtoJSON ("JSON Format", field names; int32 as string or number)."""
    body = {"resource_id": "r", "lock_owner": "me", "expiry_in_seconds": "60"}
    answer = send(sidecar.http_address, "POST", "/v1.0-alpha1/lock/store", body)
    assert answer.json == {"success": True}
    for expiry in ("soon", True, 1.5, 2**31, [1]):
        refused = try_lock(sidecar, "you", expiryInSeconds=expiry)
        assert (refused.status, refused.error) == (400, "ERR_MALFORMED_REQUEST")
    assert try_lock(sidecar, "you", expiryInSeconds=-1).error == "ERR_MALFORMED_REQUEST"
    assert send(sidecar.http_address, "POST", "/v1.0-alpha1/lock/store", b"").error == "ERR_MALFORMED_REQUEST"


def test_the_lock_is_the_client_s(sidecar: Sidecar) -> None:
    """A program beside it, with our own API, sees the same lock."""
    assert try_lock(sidecar, "me").json == {"success": True}
    assert sidecar.context.client.lock.try_lock("store", "r") is None
    assert sidecar.context.client.lock.unlock("store", "r", "me").name == "SUCCESS"
    assert unlock(sidecar, "me").json == {"status": 1}


@pytest.mark.filterwarnings("ignore:The Distributed Lock API is an Alpha version:UserWarning")
def test_sdk_locks(sdk: Sdk) -> None:
    from dapr.clients.grpc._response import UnlockResponseStatus

    assert sdk.call("unlock", "store", "sdk-r", "me").status is UnlockResponseStatus.lock_does_not_exist
    lock = sdk.call("try_lock", "store", "sdk-r", "me", expiry_in_seconds=60)
    assert lock.success is True
    assert sdk.call("try_lock", "store", "sdk-r", "you", expiry_in_seconds=60).success is False
    assert sdk.call("unlock", "store", "sdk-r", "you").status is UnlockResponseStatus.lock_belongs_to_others
    assert sdk.call("unlock", "store", "sdk-r", "me").status is UnlockResponseStatus.success
    assert sdk.refused("unlock", "nope", "r", "me") == ("INVALID_ARGUMENT", "lock store nope not found")


# -- secrets: what comes back, and that no refusal says one


@pytest.fixture
def secret_file(tmp_path: Path, canary: Canary) -> Path:
    """A file with secrets, one of them of several entries."""
    path = canary.declare(tmp_path / "secrets.json")
    path.write_text(json.dumps({"db": {"user": canary.value(), "password": canary.value()}, "key": canary.value()}))
    return path


@pytest.fixture
def secretive(secret_file: Path) -> Iterator[Sidecar]:
    """A sidecar over that file."""
    config = {
        "capa": {"home": ":memory:secret"},
        "secret": {"vault": {"component": "config_file", "path": str(secret_file)}},
    }
    with serving(config) as one:
        yield one


def test_secrets_of_a_file(secretive: Sidecar, secret_file: Path) -> None:
    """Whatever a store has, over both protocols, alone and in bulk; what a secret of several entries is, the component says."""
    ours = secretive.context.client.secret.get_bulk_secret("vault")
    assert ours
    wanted = {key: dict(secret) for key, secret in ours.items()}
    bulk = send(secretive.http_address, "GET", "/v1.0/secrets/vault/bulk")
    assert bulk.status == 200
    assert (bulk.json == wanted) is True
    request = messages().GetBulkSecretRequest(store_name="vault")
    reply = call(secretive.grpc_address, "GetBulkSecret", request, "GetBulkSecretResponse").message
    assert ({key: dict(secret.secrets) for key, secret in reply.data.items()} == wanted) is True
    for key, entries in wanted.items():
        one = send(
            secretive.http_address, "GET", f"/v1.0/secrets/vault/{key.replace('/', '%2F')}?metadata.version_id=1"
        )
        assert (one.json == entries) is True
        single = messages().GetSecretRequest(store_name="vault", key=key, metadata={"version_id": "1"})
        result = call(secretive.grpc_address, "GetSecret", single, "GetSecretResponse").message
        assert (dict(result.data) == entries) is True


def test_a_broken_store(secretive: Sidecar, secret_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal names store and key, and holds nothing of what the store has; the fixture looks at logs too."""
    caplog.set_level(logging.DEBUG)
    secret_file.unlink()
    answer = send(secretive.http_address, "GET", "/v1.0/secrets/vault/key")
    assert (answer.status, answer.error) == (500, "ERR_SECRET_GET")
    assert answer.json["message"].startswith("failed getting secret with key key from secret store vault: ")
    bulk = send(secretive.http_address, "GET", "/v1.0/secrets/vault/bulk")
    assert (bulk.status, bulk.error) == (500, "ERR_SECRET_GET")
    refused = call(secretive.grpc_address, "GetBulkSecret", messages().GetBulkSecretRequest(store_name="vault"))
    assert (refused.code, refused.reason) == ("INTERNAL", None)


def test_sdk_secrets(sdk: Sdk) -> None:
    assert sdk.call("get_secret", "store", "key").secret == {"key": "a value"}
    assert sdk.call("get_secret", "store", "key", secret_metadata={"version": "1"}).secret == {"key": "a value"}
    assert sdk.call("get_bulk_secret", "store").secrets == {"key": {"key": "a value"}}
    code, text = sdk.refused("get_secret", "store", "absent")
    assert code == "INTERNAL"
    assert text.startswith("failed getting secret with key absent from secret store store: ")
    assert sdk.refused("get_secret", "nope", "key") == ("INVALID_ARGUMENT", "failed finding secret store with key nope")
