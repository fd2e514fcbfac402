"""The schema of resource files: true to what the reader takes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from cloud_runtimes.cli import main
from cloud_runtimes.dapr_server.resources import load
from cloud_runtimes.dapr_server.resources.components import offered
from cloud_runtimes.dapr_server.resources.engines import component_type, known_types
from cloud_runtimes.dapr_server.resources.schema import resource_schema
from cloud_runtimes.errors import InvalidArgumentError
from tests.sidecar.test_resources import RESILIENCY, SUBSCRIPTION, component

OLD = "  route: /orders\n  deadLetterTopic: 5\n  metadata: {rawPayload: true}"
NEW = "  routes: {default: /x, rules: [{match: 'event.type == \"x\"', path: /y}]}\n  bulkSubscribe: {enabled: true, maxMessagesCount: 7}"
GOOD = {
    "memory": component("s", "state.in-memory"),
    "ours": component("s", "state.sqlite", "{name: durability, value: full}"),
    "another case": component("s", "state.redis", "{name: redisHost, value: 'h:1'}", "{name: RedisPassword, value: x}"),
    "without effect": component("s", "state.in-memory", "{name: actorStateStore, value: 'true'}"),
    "turned off": component("s", "state.redis", "{name: redisHost, value: h}", "{name: useEntraID, value: 'false'}"),
    "a number": component(
        "5", "state.redis", "{name: redisHost, value: h}", "{name: redisDB, value: 1}", more="scopes: [shop]"
    ),
    "a variable": component("s", "state.sqlite", "{name: path, envRef: SHOP}"),
    "a timer": component(
        "t", "bindings.cron", "{name: schedule, value: '@every 5s'}", "{name: direction, value: input}"
    ),
    "subscription": SUBSCRIPTION.format(version="v1alpha1", spec=OLD),
    "routes": SUBSCRIPTION.format(version="v2alpha1", spec=NEW),
    "resiliency": RESILIENCY,
    "another kind": "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {}",
}
BAD = {
    "dapr.io/v9": component("s", "state.in-memory").replace("v1alpha1", "v9"),
    "state.sqlit": component("s", "state.sqlit"),
    "redisHots": component("s", "state.redis", "{name: redisHots, value: h}"),
    "path": component("s", "pubsub.redis", "{name: path, value: h}"),
    "vale": component("s", "state.sqlite", "{name: path, vale: h}"),
    "name": component("s", "state.sqlite", "{value: h}"),
    "metadat": component("s", "state.sqlite", spec="  metadat: []"),
    "a/b": component("a/b", "state.in-memory"),
    "weekday": component("t", "bindings.cron", "{name: weekday, value: '1'}"),
    "[1]": component("s", "state.sqlite", "{name: path, value: [1]}"),
    "route": SUBSCRIPTION.format(version="v1alpha1", spec="  routes: {default: /x}"),
    "routes": SUBSCRIPTION.format(version="v2alpha1", spec="  route: /x"),
    "{}": SUBSCRIPTION.format(version="v2alpha1", spec="  routes: {}"),
    "path'": SUBSCRIPTION.format(version="v2alpha1", spec="  routes: {rules: [{match: x}]}"),
    "-1": SUBSCRIPTION.format(
        version="v2alpha1", spec="  routes: {default: /x}\n  bulkSubscribe: {maxMessagesCount: -1}"
    ),
    "enabeld": SUBSCRIPTION.format(
        version="v2alpha1", spec="  routes: {default: /x}\n  bulkSubscribe: {enabeld: true}"
    ),
    "500 ms": RESILIENCY.replace("short: 500ms", "short: 500 ms"),
    "linear": RESILIENCY.replace("policy: constant", "policy: linear"),
    "maxRetry": RESILIENCY.replace("maxRetries", "maxRetry"),
    "tripp": RESILIENCY.replace("trip:", "tripp:"),
    "ap": RESILIENCY.replace("apps:", "ap:"),
    "outbond": RESILIENCY.replace("outbound:", "outbond:"),
    "retrry": RESILIENCY.replace("shop: {timeout: short, retry:", "shop: {timeout: short, retrry:"),
}
"""A word that the error must say → the file."""


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    made = resource_schema()
    Draft7Validator.check_schema(made)
    return Draft7Validator(made)


def read(text: str) -> Any:
    return yaml.safe_load(text)


def test_what_is_read_is_valid(schema: Draft7Validator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", str(tmp_path / "shop.db"))
    for name, text in GOOD.items():
        file = tmp_path / "one.yaml"
        file.write_text(text, encoding="utf-8")
        load([file], "shop")
        assert [error.message for error in schema.iter_errors(read(text))] == [], name


def test_what_is_refused_is_not(schema: Draft7Validator, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for word, text in BAD.items():
        with subtests.test(word=word):
            file = tmp_path / "one.yaml"
            file.write_text(text, encoding="utf-8")
            with pytest.raises(InvalidArgumentError):
                load([file], "shop")
            messages = [
                each.message for error in schema.iter_errors(read(text)) for each in [error, *(error.context or [])]
            ]
            assert any(word in message for message in messages), messages


def test_each_type_has_the_fields_that_its_reader_knows(schema: Draft7Validator) -> None:
    types = known_types()
    assert {"state.redis", "pubsub.kafka", "secretstores.local.env", "bindings.cron"} <= {*types}
    for name in types:
        if kind := component_type(name):
            for field in offered(kind):
                text = component("c", name, f"{{name: {field}, value: x}}")
                assert [error.message for error in schema.iter_errors(read(text))] == [], (name, field)
        assert [*schema.iter_errors(read(component("c", name, "{name: n0ne, value: x}")))], name


def test_the_command(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["config", "schema", "--resources"]) == 0
    assert json.loads(capsysbinary.readouterr().out) == resource_schema()
