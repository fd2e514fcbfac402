"""Which components there are, over all blocks: free names, and declared ones that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import call, send
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
