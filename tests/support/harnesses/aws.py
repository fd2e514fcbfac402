"""AWS Secrets Manager and Parameter Store, as moto's server answers for them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.harnesses.clients import Clients
from tests.support.harnesses.secrets import _Harness
from tests.support.moto import REGION, aws

__all__ = ["AWS", "AWS_SECRETS"]

LOGIN = {"region": REGION, "access_key": "test", "secret_key": "test"}


class SecretsManagerHarness(_Harness):
    """Secrets Manager; a test has names of its own."""

    name = "aws"
    keys = ("a_b", "a.b", "a/b", "a=b", "a+b@c")
    empty = False
    settings: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, url: str) -> None:
        super().__init__(monkeypatch, folder)
        self._url = url
        self.prefix = f"/{uuid.uuid4().hex}/"
        self.api = self.new_api(url)
        self._there: set[str] = set()

    def new_api(self, url: str) -> Any:
        return aws(url, "secretsmanager")

    def table(self, store: str) -> dict[str, Any]:
        prefix = f"{self.prefix}{store}/"
        return {"component": "aws", "url": self._url, "prefix": prefix, **LOGIN, **self.settings}

    def put(self, store: str, key: str, value: str) -> None:
        name = f"{self.prefix}{store}/{key}"
        if name in self._there:
            self.api.put_secret_value(SecretId=name, SecretString=value)
        else:
            self.api.create_secret(Name=name, SecretString=value)
            self._there.add(name)

    def remove(self, store: str, key: str) -> None:
        name = f"{self.prefix}{store}/{key}"
        self.api.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        self._there.remove(name)


class MultiValuedHarness(SecretsManagerHarness):
    """Secrets that are JSON objects."""

    name = "aws, multi-valued"
    settings: ClassVar[Mapping[str, Any]] = {"multi_valued": True}
    multiple = True
    empty = True

    def put(self, store: str, key: str, value: str) -> None:
        self.put_entries(store, key, {key: value})

    def put_entries(self, store: str, key: str, entries: Mapping[str, str]) -> None:
        super().put(store, key, json.dumps(dict(entries)))


class ParameterStoreHarness(SecretsManagerHarness):
    """Secrets in Parameter Store, which are encrypted."""

    name = "aws, parameters"
    keys = ("a_b", "a.b", "a/b")
    settings: ClassVar[Mapping[str, Any]] = {"engine": "parameterstore"}

    def new_api(self, url: str) -> Any:
        return aws(url, "ssm")

    def put(self, store: str, key: str, value: str) -> None:
        self.api.put_parameter(Name=f"{self.prefix}{store}/{key}", Value=value, Type="SecureString", Overwrite=True)

    def remove(self, store: str, key: str) -> None:
        self.api.delete_parameter(Name=f"{self.prefix}{store}/{key}")


AWS_SECRETS = {each.name: each for each in (SecretsManagerHarness, MultiValuedHarness, ParameterStoreHarness)}


class ParametersHarness(Clients):
    """Configuration in Parameter Store."""

    name = "aws"
    empty_settings = False
    odd_settings = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._id = uuid.uuid4().hex
        # the configuration declares them all before the first call
        self._names = [f"configuration-{number}" for number in range(3)]
        self._unused = iter(self._names)
        self._api = aws(url, "ssm")

    def prefix(self, store: str) -> str:
        return f"/{self._id}/{store}/"

    def config(self) -> dict[str, Any]:
        table = {"component": "aws", "url": self._url, "poll_interval": "50ms", **LOGIN}
        tables = {name: {**table, "prefix": self.prefix(name)} for name in self._names}
        return {"configuration": tables}

    def store(self, kind: str = "store") -> str:
        return next(self._unused)

    def configure(self, client: CloudRuntimesClient, store: str, values: Mapping[str, str | None]) -> None:
        gone = [self.prefix(store) + key for key, value in values.items() if not value]
        for key, value in values.items():
            if value:  # no parameter is empty
                self._api.put_parameter(
                    Name=self.prefix(store) + key, Value=value, Type="SecureString", Overwrite=True, Tier="Advanced"
                )
        for start in range(0, len(gone), 10):
            self._api.delete_parameters(Names=gone[start : start + 10])


AWS = {ParametersHarness.name: ParametersHarness}
