"""``[resiliency]`` and Dapr's resources → what holds for which target, and the targets that are waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.cli import main
from cloud_runtimes.client import SERVICES
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.protocols.dapr.documents import read_file
from cloud_runtimes.resiliency import stats
from cloud_runtimes.resiliency.policies import Counts
from cloud_runtimes.resiliency.settings import Policies, load
from cloud_runtimes.testing import Api

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: all}
spec:
  policies:
    timeouts: {short: 500ms, DefaultTimeoutPolicy: 9s, zero: 0s}
    retries:
      few: {policy: constant, duration: 10ms, maxRetries: 2, matching: {gRPCStatusCodes: "14"}}
    circuitBreakers:
      cb: {trip: consecutiveFailures > 3, timeout: 30s, maxRequests: 2, interval: 8s}
      DefaultComponentOutboundStatestoreCircuitBreakerPolicy: {trip: totalFailures > 7}
  targets:
    apps: {inventory: {timeout: short, retry: few, circuitBreaker: cb}}
    components: {orders: {outbound: {timeout: short}}, still: {outbound: {timeout: zero}}}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: of-another}
scopes: [another]
spec: {policies: {timeouts: {t: 1s}}, targets: {apps: {billing: {timeout: t}}}}
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: not-ours}
spec: {topic: t, pubsubname: bus, route: /x}
"""


def policies(table: dict[str, Any]) -> Policies:
    return load(table, "app.toml", SERVICES, lambda path, where: read_file(path, "shop", where))


@pytest.fixture
def resources(tmp_path: Path) -> str:
    path = tmp_path / "resiliency.yaml"
    path.write_text(RESOURCES)
    return str(path)


def test_the_most_special_target_says_each_policy() -> None:
    rules = policies(
        {
            "targets": {
                "default": {"timeout": 1, "retry": {"max_retries": 1}, "breaker": {}},
                "state": {"timeout": "2s", "breaker": False},
                "state.orders": {"timeout": "300ms"},
                "state.or.ders": {"timeout": False},
            }
        }
    )
    assert [rules.of("state", name).timeout for name in ("orders", "other", "or.ders")] == [0.3, 2.0, None]
    assert rules.of("pubsub", "orders").timeout == 1.0
    for service, has in (("state", False), ("pubsub", True)):
        policy = rules.of(service, "orders")
        assert policy.retries is not None
        assert policy.retries.max_retries == 1
        assert (policy.breaker is not None) is has


def test_defaults_of_a_breaker() -> None:
    breaker = policies({"targets": {"default": {"breaker": {}}}}).of("state", "x").breaker
    assert breaker is not None
    assert (breaker.timeout, breaker.probes, breaker.interval) == (30.0, 1, 0.0)
    assert [breaker.trip(Counts(consecutive_failures=number)) for number in (4, 5)] == [False, True]
    share = policies({"targets": {"default": {"breaker": {"failure_ratio": 0.5}}}}).of("state", "x").breaker
    assert share is not None
    assert share.interval == 10.0


def test_what_is_refused(subtests: pytest.Subtests) -> None:
    for targets, said in (
        ({"state": {"orders": {"timeout": 1}}}, 'write [resiliency.targets."state.<name>"]'),
        ({"stat": {}}, "did you mean 'state'"),
        ({"default": {}, "telemetry": {}}, "unknown target, key 2 of the table"),
        ({"state.": {}}, "unknown target 'state'"),
        ({"default": 3}, "must be a table, not int"),
        ({"default": {"timout": 1}}, "did you mean 'timeout'"),
        ({"default": {"timeout": 0}}, "more than 0"),
        ({"default": {"timeout": "soon"}}, "expected seconds"),
        ({"default": {"retry": {"polcy": "constant"}}}, "did you mean 'policy'"),
        ({"default": {"retry": {"policy": "linear"}}}, "'constant' or 'exponential'"),
        ({"default": {"retry": {"codes": "UNAVAILBLE"}}}, "did you mean 'UNAVAILABLE'"),
        ({"default": {"retry": {"codes": "OK"}}}, "codes: unknown code; known: ABORTED, "),
        ({"default": {"retry": {"http": "5xx"}}}, "codes and ranges"),
        ({"default": {"retry": {"max_retries": -2}}}, "from -1 on"),
        ({"default": {"retry": {"max_retries": 1.5}}}, "expected int"),
        ({"default": {"retry": {"repeat": "always"}}}, "'idempotent' or 'all'"),
        ({"default": {"retry": True}}, "a table or false"),
        ({"default": {"breaker": {"failure_ratio": 2}}}, "from 0 to 1"),
        ({"default": {"breaker": {"probes": 0}}}, "from 1 on"),
        ({"default": {"breaker": {"trip": "x"}}}, "unknown setting, key 1 of the table"),
    ):
        with subtests.test(targets=targets, said=said):
            with pytest.raises(InvalidArgumentError, match="resiliency") as caught:
                policies({"targets": targets})
            assert said in str(caught.value)
            assert str(caught.value).startswith("app.toml: [resiliency.targets")


def test_the_table_itself() -> None:
    with pytest.raises(InvalidArgumentError, match=r"app.toml: \[resiliency\]: unknown setting 'target'; did you mean"):
        policies({"target": {}})
    with pytest.raises(InvalidArgumentError, match="expected a table"):
        policies({"targets": []})


def test_a_client_refuses_before_anything_is_sent(tmp_path: Path) -> None:
    config = {"capa": {"home": str(tmp_path / "home")}, "resiliency": {"targets": {"stat": {}}}}
    with CloudRuntimesClient(config=config) as client:
        for _ in range(2):
            with pytest.raises(InvalidArgumentError, match="did you mean 'state'"):
                client.state.save("orders", "k", 1)
    assert not (tmp_path / "home").exists()


# -- Dapr's resources ------------------------------------------------------------------


def test_resources_of_dapr(resources: str) -> None:
    rules = policies({"file": resources})
    inventory = rules.of("rpc", "inventory")
    assert (inventory.timeout, inventory.retries is not None and inventory.retries.interval) == (0.5, 0.01)
    assert inventory.breaker is not None
    assert (inventory.breaker.probes, inventory.breaker.interval, inventory.breaker.timeout) == (2, 8.0, 30.0)
    assert [inventory.breaker.trip(Counts(consecutive_failures=number)) for number in (3, 4)] == [False, True]
    assert rules.of("state", "orders").timeout == 0.5
    assert rules.of("pubsub", "bus").timeout == 9.0
    assert rules.of("pubsub", "bus").breaker is None
    breaker = rules.of("state", "orders").breaker
    assert breaker is not None
    assert breaker.trip(Counts(total_failures=8))
    assert rules.of("state", "still").timeout is None
    assert rules.of("rpc", "billing").timeout == 9.0, "of another scope"
    assert rules.of("schedule", "jobs").timeout is None


def test_what_our_tables_say_stands(resources: str) -> None:
    rules = policies({"file": resources, "targets": {"rpc": {"timeout": 3}, "rpc.inventory": {"breaker": False}}})
    inventory = rules.of("rpc", "inventory")
    assert (inventory.timeout, inventory.breaker) == (3.0, None)
    assert inventory.retries is not None
    assert inventory.retries.interval == 0.01


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("consecutiveFailures > 3", "failures.high()", "is not understood here"),
        ("maxRequests: 2", "maxRequests: two", "whole number"),
        ("interval: 8s", "interval: often", "expected a duration"),
        ("circuitBreaker: cb", "circuitBreaker: other", "circuitBreaker: unknown policy; known: "),
    ],
)
def test_resources_that_are_refused(resources: str, old: str, new: str, said: str) -> None:
    assert old in RESOURCES
    Path(resources).write_text(RESOURCES.replace(old, new))
    with pytest.raises(InvalidArgumentError, match="all"):
        policies({"file": resources})
    with pytest.raises(InvalidArgumentError) as caught:
        policies({"file": resources})
    assert said in str(caught.value)


def test_files_without_such_resources(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\[resiliency\] file: .*does not exist"):
        policies({"file": str(tmp_path / "absent.yaml")})
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(InvalidArgumentError, match="no resource of the kind Resiliency"):
        policies({"file": str(tmp_path)})


def test_what_has_no_effect_is_told(resources: str, caplog: pytest.LogCaptureFixture) -> None:
    more = "    actors: {cart: {timeout: short}}\n    components: {bus: {inbound: {timeout: short}}, orders:"
    Path(resources).write_text(RESOURCES.replace("    components: {orders:", more))
    policies({"file": resources})
    assert "no effect for a client: actor 'cart'; what 'bus' delivers" in caplog.text


@pytest.mark.parametrize("suffix", ["toml", "json", "yaml"])
def test_from_files(tmp_path: Path, suffix: str, resources: str) -> None:
    texts = {
        "toml": '[capa]\nhome = ":memory:rules"\n[resiliency]\nfile = "%s"\n[resiliency.targets."state.orders"]\ntimeout = "5s"\nbreaker = {}\n',
        "json": '{"capa": {"home": ":memory:rules"}, "resiliency": {"file": "%s", "targets": {"state.orders": {"timeout": "5s", "breaker": {}}}}}',
        "yaml": 'capa: {home: ":memory:rules"}\nresiliency:\n  file: %s\n  targets:\n    state.orders: {timeout: 5s, breaker: {}}\n',
    }
    path = tmp_path / f"app.{suffix}"
    path.write_text(texts[suffix] % resources)
    with CloudRuntimesClient(config=path, app_id="shop") as client:
        client.state.save("orders", "k", 1)
        assert client.state.get("orders", "k") == 1
        assert stats(client)["state.orders"].calls == 2
        assert stats(client)["state.orders"].state == "closed"
        rules: Any = client._context.policies
        assert rules.target("state", "orders").timeout == 5.0
        assert rules.target("rpc", "inventory").timeout == 0.5


# -- `wait_ready` looks at what ``[resiliency]`` refers to


def table(*targets: str) -> dict[str, Any]:
    return {"resiliency": {"targets": {target: {"timeout": 1.0} for target in targets}}}


def ready(client: CloudRuntimesClient, api: Api) -> None:
    with client:
        api.call(client, "wait_ready")


STORES = {"state": {"orders": {"component": "sqlite", "path": ":memory:targets"}}}


def test_what_is_not_declared(api: Api, subtests: pytest.Subtests) -> None:
    for target, message in (
        ("state.ordres", "there is no state 'ordres': .*'orders'"),
        ("pubsub.bus", "there is no pubsub 'bus': there is no component of pubsub"),
        ("stat.orders", "unknown target 'stat'; did you mean 'state'"),
    ):
        with subtests.test(target=target, message=message):
            strict = {"capa": {"strict": True}}
            with pytest.raises(InvalidArgumentError, match=message):
                ready(CloudRuntimesClient(config={**strict, **STORES, **table("default", "state", target)}), api)


def test_what_is_there(api: Api) -> None:
    ready(CloudRuntimesClient(config={**STORES, **table("default", "state.orders", "rpc.anyone", "schedule")}), api)
    ready(CloudRuntimesClient(config={"capa": {"home": ":memory:targets"}, **table("state.any")}), api)


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Sidecar]:
    config = {**STORES, "capa": {"home": ":memory:targets-beneath"}}
    beneath = CloudRuntimesClient(config=config, app_id="shop")
    with beneath, Sidecar(beneath, SidecarSettings(app_id="shop", http_port=0, grpc_port=0)) as running_sidecar:
        yield running_sidecar


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_over_a_sidecar(sidecar: Sidecar, api: Api, transport: str) -> None:
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
