"""Settings, and how each cloud is logged in to; signing a URL needs no server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError, PermissionDeniedError, UnauthenticatedError, UnsupportedError
from cloud_runtimes.testing import Api
from tests.support.objectstore import s3

KEYS = {"access_key_id": "key-name", "secret_access_key": "hunter2"}


@contextmanager
def opened(**settings: Any) -> Iterator[CloudRuntimesClient]:
    config = {"file": {"s": {"component": "objectstore", **settings}}}
    with CloudRuntimesClient(app_id="suite", config=config, timeout=10) as client:
        yield client


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "s3://bucket/prefix"),
        ({"url": "http://bucket"}, "s3://bucket/prefix"),
        ({"url": "s3://bucket/../up"}, "prefix"),
        ({"url": "s3://bucket//x"}, "prefix"),
        ({"url": "s3://user:hunter2@bucket"}, "s3://bucket/prefix"),
        ({"url": "s3://b", "access_key_id": "x"}, "together"),
        ({"url": "gs://b", "region": "x"}, "region is for s3"),
        ({"url": "s3://b", "account_key": "x"}, "account_key is for az"),
        ({"url": "s3://b", "endpoint": "minio:9000"}, "endpoint must be a URL"),
        ({"url": "s3://b", "endpoint": "http://minio:9000"}, "allow_http"),
        ({"url": "s3://b", "part_size": 1}, "part_size"),
        ({"url": "s3://b", "exclusive_bytes": 0}, "exclusive_bytes"),
        ({"url": "s3://b", "retries": -1}, "retries"),
        ({"url": "s3://b", "options": ["x"]}, "table of texts"),
    ],
)
def test_refused_settings(settings: Mapping[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said) as caught:
        with opened(**settings) as client:
            client.file.exists("s", "f")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"options": {"hunter2": "x"}}, {"ca_file": "absent.pem"}, {"profile": "absent"}])
def test_settings_that_are_refused_by_the_first_call(settings: Mapping[str, Any]) -> None:
    with opened(url="s3://bucket", **settings) as client:
        with pytest.raises(InvalidArgumentError) as caught:
            client.file.exists("s", "f")
    assert "hunter2" not in str(caught.value)


def test_signing_for_s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[dev]\naws_access_key_id = of-the-profile\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    for more, key in (({}, "of-the-environment"), (KEYS, "key-name"), ({"profile": "dev"}, "of-the-profile")):
        with opened(url="s3://bucket/{name}/", region="eu-west-1", **more) as client:
            url = client.file.url("s", "a b", expires=60)
        assert url.startswith("https://s3.eu-west-1.amazonaws.com/bucket/s/a%20b?")
        assert f"Credential={key}/" in unquote(url)


def test_signing_for_azure() -> None:
    with opened(url="az://container", account_name="account", account_key="aGVsbG8=") as client:
        url = client.file.url("s", "a", expires=60, method="PUT")
    assert url.startswith("https://account.blob.core.windows.net/container/a?")
    assert "sig=" in url


def test_signing_for_google(tmp_path: Path) -> None:
    rsa: Any = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import serialization as form

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )
    credentials = {
        "client_email": "a@b.example",
        "private_key": key.decode(),
        "private_key_id": "1",
        "type": "service_account",
    }
    (tmp_path / "key.json").write_text(json.dumps(credentials))
    with opened(url="gs://bucket/below", service_account=str(tmp_path / "key.json")) as client:
        url = client.file.url("s", "a", expires=60)
    assert url.startswith("https://storage.googleapis.com/bucket/below/a?")
    assert "X-Goog-Signature" in url


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    # an instance's metadata, where there is none
    away = {"metadata_endpoint": "http://127.0.0.1:1"}
    with opened(url="s3://bucket", region="eu-west-1", retries=0, options=away) as client:
        error = api.fails(UnauthenticatedError, "no credentials")(client.file, "get_file", "s", "f")
        assert "http" not in str(error)


def test_a_wrong_key(objectstore_url: str, bucket: str, api: Api) -> None:
    """Only where the server minds; moto does not."""
    from tests.support.objectstore import table

    wrong = {"account_key": "aGVsbG8="} if objectstore_url.startswith("azurite") else {"secret_access_key": "wrong"}
    with opened(**{**table(objectstore_url, bucket), **wrong}) as client:
        if "key:secret@" in objectstore_url:
            api.call(client.file, "put_file", "s", "f", b"x")
            assert s3(objectstore_url).head_object(Bucket=bucket, Key="f")
        else:
            for method in ("get_file", "exists", "delete_file"):
                api.fails((UnauthenticatedError, PermissionDeniedError))(client.file, method, "s", "f")
            api.fails(UnauthenticatedError, "credentials")(client.file, "put_file", "s", "f", b"x")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("cloud_runtimes.components.objectstore.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with opened(url="s3://bucket") as client:
        with pytest.raises(UnsupportedError, match=r"pip install \"\.\[objectstore\]\" in the checkout"):
            client.file.exists("s", "f")
