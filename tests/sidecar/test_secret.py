"""Secrets: what comes back, and that no refusal says one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from cloud_runtimes.testing.canary import Canary
from tests.sidecar.official import Sdk
from tests.sidecar.raw import call, send
from tests.support.running import serving


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
        found = call(secretive.grpc_address, "GetSecret", single, "GetSecretResponse").message
        assert (dict(found.data) == entries) is True


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
