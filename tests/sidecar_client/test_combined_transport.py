"""A sidecar of which both addresses are known: what goes which way, told by an address where nobody is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.testing import Api
from tests.support.running import declared

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Sidecar]:
    with CloudRuntimesClient(config=declared(":memory:two-ways"), app_id="app") as beneath:
        with Sidecar(beneath, SidecarSettings(app_id="app", http_port=0, grpc_port=0)) as server:
            yield server


def _client(http: str, grpc: str) -> CloudRuntimesClient:
    return CloudRuntimesClient(http, config={"dapr": {"grpc_endpoint": f"grpc://{grpc}"}}, app_id="app")


def _call(client: CloudRuntimesClient, api: Api, path: str, *arguments: Any, **options: Any) -> Any:
    service, method = path.split(".")
    return api.call(getattr(client, service), method, *arguments, **options)


EITHER: dict[str, tuple[str, tuple[Any, ...]]] = {
    "get": ("state.get", ("store", "key")),
    "save": ("state.save", ("store", "saved", {"n": 1})),
    "delete": ("state.delete", ("store", "deleted")),
    "publish": ("pubsub.publish", ("store", "topic", {"n": 1.5})),
    "configuration": ("configuration.get_configuration", ("store", ["key"])),
}
GRPC: dict[str, tuple[str, tuple[Any, ...]]] = {
    "save a fraction": ("state.save", ("store", "fraction", {"n": 1.5})),
    "bulk": ("pubsub.publish_bulk", ("store", "topic", [{"n": 1}, {"n": 2}])),
    "jobs": ("schedule.list_jobs", ()),
}


@pytest.mark.parametrize("name", sorted(EITHER))
def test_a_call_goes_over_http(sidecar: Sidecar, name: str, api: Api) -> None:
    path, arguments = EITHER[name]
    with _client(sidecar.http_address, NOBODY) as client:
        _call(client, api, path, *arguments)
    with _client(f"http://{NOBODY}", sidecar.grpc_address) as client, pytest.raises(UnavailableError, match="http://"):
        _call(client, api, path, *arguments, timeout=5)


@pytest.mark.parametrize("name", sorted(GRPC))
def test_what_http_has_not_whole_goes_over_grpc(sidecar: Sidecar, name: str, api: Api) -> None:
    path, arguments = GRPC[name]
    with _client(sidecar.http_address, sidecar.grpc_address) as client:
        _call(client, api, path, *arguments)
    with _client(sidecar.http_address, NOBODY) as client, pytest.raises(UnavailableError, match="grpc://"):
        _call(client, api, path, *arguments, timeout=5)


def test_a_fraction_stands_plain_and_comes_as_it_was(sidecar: Sidecar, api: Api) -> None:
    value = {"text": "1.5", "n": 0.1, "long": 12345678901234567890}
    with _client(sidecar.http_address, sidecar.grpc_address) as client:
        _call(client, api, "state.save", "store", "plain", value)
        assert _call(client, api, "state.get", "store", "plain") == value
    with urlopen(f"{sidecar.http_address}/v1.0/state/store/plain") as answer:
        assert json.load(answer) == value
