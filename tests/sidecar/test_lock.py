"""Locks: who has them."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.official import Sdk
from tests.sidecar.raw import Answer, call, send


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
