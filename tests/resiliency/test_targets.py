"""`wait_ready` looks at what ``[resiliency]`` refers to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.cli import main
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.errors import InvalidArgumentError


def table(*targets: str) -> dict[str, Any]:
    return {"resiliency": {"targets": {target: {"timeout": 1.0} for target in targets}}}


def ready(client: CloudRuntimesClient, api: str) -> None:
    with client:
        if api == "sync":
            client.wait_ready()
        else:
            asyncio.run(client.wait_ready_async())


both = pytest.mark.parametrize("api", ["sync", "async"])
STORES = {"state": {"orders": {"component": "sqlite", "path": ":memory:targets"}}}


@both
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("state.ordres", "there is no state 'ordres': .*'orders'"),
        ("pubsub.bus", "there is no pubsub 'bus': there is no component of pubsub"),
        ("stat.orders", "unknown target 'stat'; did you mean 'state'"),
    ],
)
def test_what_is_not_declared(api: str, target: str, message: str) -> None:
    strict = {"capa": {"strict": True}}
    with pytest.raises(InvalidArgumentError, match=message):
        ready(CloudRuntimesClient(config={**strict, **STORES, **table("default", "state", target)}), api)


@both
def test_what_is_there(api: str) -> None:
    ready(CloudRuntimesClient(config={**STORES, **table("default", "state.orders", "rpc.anyone", "schedule")}), api)
    ready(CloudRuntimesClient(config={"capa": {"home": ":memory:targets"}, **table("state.any")}), api)


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Sidecar]:
    config = {**STORES, "capa": {"home": ":memory:targets-beneath"}}
    beneath = CloudRuntimesClient(config=config, app_id="shop")
    with beneath, Sidecar(beneath, SidecarSettings(app_id="shop", http_port=0, grpc_port=0)) as made:
        yield made


@both
@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_over_a_sidecar(sidecar: Sidecar, api: str, transport: str) -> None:
    address = sidecar.http_address if transport == "http" else f"grpc://{sidecar.grpc_address}"
    ready(CloudRuntimesClient(address, config=table("state.orders", "rpc.anyone")), api)
    with pytest.raises(InvalidArgumentError, match=r"there is no state 'ordres': .*'orders'"):
        ready(CloudRuntimesClient(address, config=table("state.ordres")), api)


def test_doctor_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cloud.toml"
    path.write_text(
        '[capa]\nstrict = true\n[state.orders]\ncomponent = "sqlite"\npath = ":memory:doctor"\n[resiliency.targets."state.ordres"]\ntimeout = "1s"\n'
    )
    assert main(["--config", str(path), "doctor"]) == 1
    assert "there is no state 'ordres'" in capsys.readouterr().err
