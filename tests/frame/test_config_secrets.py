"""No error about a configuration shows a value of it: files of all kinds, made wrong in every place, with a secret as each value.

Names that a user chose, such as that of a store, are told. A value that a slip of syntax has put into the place of a name is not.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, registry
from cloud_runtimes.client import SERVICES, read_policies
from cloud_runtimes.config import RUNTIMES
from cloud_runtimes.dapr_server.resources import load
from cloud_runtimes.dapr_server.resources.engines import known_types
from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.resiliency.settings import BreakerSettings, ResiliencySettings, RetrySettings, TargetSettings
from cloud_runtimes.runtimes.capa import CapaSettings, RpcTable
from cloud_runtimes.runtimes.dapr import DaprSettings
from cloud_runtimes.runtimes.layotto import LayottoSettings
from cloud_runtimes.telemetry.settings import TelemetrySettings
from cloud_runtimes.testing.canary import Canary
from tests.support import Figure, Rounds

yaml = pytest.importorskip("yaml")

pytestmark = pytest.mark.usefixtures("clean_environment")

_SHAPES = (
    "{}", "postgresql://user:{}@host/name", "{}://host/name", "http://user:{}@host", "http://host:{}", "https://h/?k={}",
    "http://[{}", "grpc://{}@host", "grpc://host/{}", "unix:{}\n", "{}:1", "name={}", "{}=", "%{}", "1 {}", "'{}", '"{}', "{}\0",
    "{}\n{}", "UNAVAILABLE,{}", "~{}/x", "/{}.toml", " {}", "sqlite:///file:{}", "sqlite:///x?uri={}",
    "redis://user:{}@host/0", "rediss://:{}@host/0?{}", "redis://:{}@host:port", "unix://user:{}@/socket?db={}", "nats://user:{}@host", "etcd://user:{}@a,b/{}", "etcds://user:{}@host:port", "etcd://{}@host", "amqp://user:{}@host", "amqps://user:{}@a,b/{}/x", "nats://{}@host:port", "tls://user:{}@a,b/{}",
    "redis+sentinel://:{}@a:1,b/m?sentinel_password={}", "redis+cluster://:{}@a,b:port",
)  # fmt: skip


def names(settings: type) -> list[str]:
    return [field.name for field in dataclasses.fields(settings)]


class Maker:
    """Makes configurations; the same ones for the same number, but for the text of the secret."""

    def __init__(self, number: int, secret: str) -> None:
        self.random = random.Random(number)
        self.secret = secret

    def maybe(self, share: float) -> bool:
        return self.random.random() < share

    def text(self) -> str:
        return self.random.choice(_SHAPES).replace("{}", self.secret)

    def value(self, depth: int = 0) -> Any:
        kind = self.random.randrange(12 if depth < 3 else 6)
        if kind < 6:
            return self.text()
        if kind < 8:
            return [self.value(depth + 1) for _ in range(self.random.randrange(1, 4))]
        if kind == 8:  # what YAML makes of {secret}
            return {self.secret: None}
        return {"a": self.value(depth + 1)} if kind > 9 else {self.secret: self.text()}

    def known(self, settings: type, key: str) -> Any:
        """Return a value that fits, so that what comes behind it is looked at too."""
        hint = str({field.name: field.type for field in dataclasses.fields(settings)}[key])
        if "Literal" in hint:
            return hint.partition("Literal[")[2].partition('"')[2].partition('"')[0] or False
        return True if "bool" in hint else 70_000 if "int" in hint or "float" in hint else self.text()

    def table(self, settings: type) -> dict[str, Any]:
        """Return a table of one of the package's classes of settings."""
        keys = names(settings)
        values: dict[str, Any] = {}
        for key in self.random.sample(keys, self.random.randint(1, min(4, len(keys)))):
            values[key] = self.known(settings, key) if self.maybe(0.5) else self.value()
        if self.maybe(0.15):
            key = self.random.choice(keys)
            values[self.random.choice((key[:-1] or "x", "zzz", self.secret, "component"))] = self.value()
        return values

    def one(self, create: Callable[[], Any]) -> Any:
        """Return a table, or a value in its place."""
        return self.value() if self.maybe(0.1) else create()

    def target(self) -> Any:
        values = self.table(TargetSettings)
        for key, settings in (("retry", RetrySettings), ("breaker", BreakerSettings)):
            if self.maybe(0.5):
                values[key] = self.one(lambda settings=settings: self.table(settings))
        return values

    def resiliency(self) -> Any:
        values = self.table(ResiliencySettings)
        if self.maybe(0.8):
            targets = ("default", "state", "state.s", "stat", "state.", self.secret)
            values["targets"] = {self.random.choice(targets): self.one(self.target) for _ in range(2)}
        return values

    def component(self) -> dict[str, Any]:
        name = self.random.choice(registry.names(registry.COMPONENTS))
        values = self.table(registry.find(registry.COMPONENTS, name).Settings)
        return {"component": self.value() if self.maybe(0.1) else name, **values}

    def configuration(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self.maybe(0.6):
            values["runtime"] = self.text() if self.maybe(0.1) else self.random.choice(RUNTIMES)
        for key in ("fallback", "endpoint", "timeout", "app_id"):
            if self.maybe(0.15):
                values[key] = self.value()
        if self.maybe(0.2):
            values["fallback"] = "capa"
        tables = {
            "capa": CapaSettings,
            "dapr": DaprSettings,
            "layotto": LayottoSettings,
            "telemetry": TelemetrySettings,
        }
        for key, settings in tables.items():
            if self.maybe(0.3):
                values[key] = self.one(lambda settings=settings: self.table(settings))
        if self.maybe(0.3):
            values["rpc"] = self.one(lambda: {"stock": self.one(lambda: self.table(RpcTable))})
        if self.maybe(0.3):
            values["resiliency"] = self.one(self.resiliency)
        for service in self.random.sample(sorted(set(SERVICES) - {"rpc", "telemetry"}), self.random.randrange(3)):
            values[service] = self.one(lambda: {"s": self.one(self.component)})
        if self.maybe(0.1):
            values[self.random.choice(("stat", "zzz", self.secret))] = self.value()
        return values

    # -- resource files -------------------------------------------------------

    def document(self) -> Any:
        kind = self.random.choice(("Component", "Subscription", "Resiliency"))
        spec = getattr(self, f"_{kind.lower()}")
        content = {"apiVersion": "dapr.io/v1alpha1", "kind": kind, "metadata": {"name": "one"}, "spec": self.one(spec)}
        for key in ("apiVersion", "kind", "auth", "scopes", self.secret):
            if self.maybe(0.05):
                content[key] = self.value()
        if self.maybe(0.1):
            content["auth"] = {"secretStore": self.value()}
        return content

    def _component(self) -> Any:
        fields = ("url", "path", "home", "connectionString", "secretsFile", "retention", "prefix", "zzz")

        def item() -> Any:
            result = {"name": self.random.choice(fields)}
            result[self.random.choice(("value", "envRef", "valu", self.secret))] = self.value()
            if self.maybe(0.1):
                result["secretKeyRef"] = self.one(lambda: {"name": self.text(), "key": self.text()})
            return result

        result = self.text() if self.maybe(0.1) else self.random.choice(known_types())
        items = self.one(lambda: [self.one(item) for _ in range(2)])
        return {"type": result, "version": self.text(), "metadata": items}

    def _subscription(self) -> Any:
        keys = ("pubsubname", "topic", "route", "deadLetterTopic", "metadata", "bulkSubscribe", "routes", self.secret)
        return {key: self.value() for key in keys if self.maybe(0.6)}

    def _resiliency(self) -> Any:
        def some(*keys: str) -> Any:
            return self.one(lambda: {key: self.value() for key in keys if self.maybe(0.6)})

        policies = {
            "timeouts": some("a"),
            "retries": self.one(lambda: {"b": some("policy", "duration", "maxRetries", "maxInterval", "matching")}),
            "circuitBreakers": self.one(lambda: {"c": some("trip", "interval", "timeout", "maxRequests")}),
        }
        apps = self.one(lambda: {"x": some("timeout", "retry", "circuitBreaker")})
        both = self.one(lambda: {"y": some("inbound", "outbound")})
        return {
            "policies": self.one(lambda: policies),
            "targets": self.one(lambda: {"apps": apps, "components": both, "actors": self.value()}),
        }

    # -- text -----------------------------------------------------------------

    def slipped(self, text: str) -> str:
        """Return a text with one or two slips of a writer in it."""
        for _ in range(self.random.randrange(1, 3)):
            position = self.random.randrange(len(text) + 1)
            if self.maybe(0.5):
                text = text[:position] + text[position + self.random.randrange(1, 3) :]
            else:
                text = text[:position] + self.random.choice(("\n", "\t", '"', "'", ":", "[", "}", "=", " ", ",", "&a ", "*")) + text[position:]  # fmt: skip
        return text


def toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(str(key))} = {toml(each)}" for key, each in value.items() if each is not None)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(toml(each) for each in value if each is not None)}]"
    return json.dumps(value)


def written(kind: str, tables: dict[str, Any]) -> str:
    if kind == "json":
        return json.dumps(tables, indent=1)
    if kind == "yaml":
        return str(yaml.safe_dump(tables, sort_keys=False))
    return "".join(f"{json.dumps(str(key))} = {toml(value)}\n" for key, value in tables.items())


def steps(client: CloudRuntimesClient) -> Iterator[Callable[[], object]]:
    """Yield what reads a configuration, without reaching for anything that it names."""
    yield client._context.runtime
    runtime = client._context.runtime()
    for service, name in runtime.declared():
        yield lambda service=service, name=name: runtime.driver(service, name)
        component: Any = getattr(runtime, "_components", {}).get((service, name))
        for lazy in {"configuration", "secrets"} & set(dir(component)):
            yield lambda lazy=lazy, component=component: getattr(component, lazy)
        if (
            service == "database"
            and component is not None
            and str(getattr(component.settings, "url", "")).startswith(("sqlite", "post"))
        ):
            yield lambda component=component: component._make("s")
    yield lambda: runtime.driver("rpc", "stock")
    yield lambda: read_policies(client._context)
    yield lambda: client.telemetry.stats()


def use(path: Path) -> Iterator[CloudRuntimesError]:
    """Yield the errors of a configuration."""
    with CloudRuntimesClient(config=path) as client:
        todo = steps(client)
        while True:
            try:
                step = next(todo, None)
                if step is None:
                    return
                step()
            except CloudRuntimesError as error:
                yield error


@pytest.mark.promise("H7", figure="configurations of toml")
@pytest.mark.parametrize("kind", ["toml", "json", "yaml", "resources"])
def test_no_value_is_shown(
    kind: str, tmp_path: Path, canary: Canary, rounds: Rounds, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary.declare(tmp_path)
    # what is installed stays the same: looking for it takes most of the time
    monkeypatch.setattr(importlib.metadata, "entry_points", functools.cache(importlib.metadata.entry_points))
    path = tmp_path / f"c.{kind}" if kind != "resources" else tmp_path / "c.yaml"
    refused = total = 0
    for number in range(rounds(250, 25_000)):
        total += 1
        maker = Maker(number, canary.value())
        if kind == "resources":
            documents = [maker.document() for _ in range(maker.random.randrange(1, 4))]
            text = str(yaml.safe_dump_all(documents, sort_keys=False))
        else:
            text = written(kind, maker.configuration())
        path.write_text(maker.slipped(text) if maker.maybe(0.3) else text, encoding="utf-8")
        errors: list[CloudRuntimesError] = []
        if kind == "resources":
            try:
                load([path], "app")
            except CloudRuntimesError as error:
                errors.append(error)
        else:
            errors += use(path)
        for error in errors:
            try:
                canary.look_through(error)
            except BaseException:
                pytest.fail(f"number {number}: a value is shown")
        refused += bool(errors)
    assert refused > total / 2, "most are wrong"
    figure(
        f"configurations of {kind} with a secret as each value", f"{total:,} read, {refused:,} refused, no value shown"
    )
