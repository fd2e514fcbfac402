"""Declared features of the components match ``docs/features.toml``, the source of the tables in the documentation."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import registry
from cloud_runtimes.components.etcd.state import EtcdState
from cloud_runtimes.components.nats.state import NatsState
from cloud_runtimes.components.redis.dapr import DaprState
from cloud_runtimes.components.redis.state import RedisState
from cloud_runtimes.components.sqlite import SqliteSettings
from cloud_runtimes.runtimes.capa.homes import Home
from cloud_runtimes.spi.state import StateDriver
from tests.support import features

ROOT = Path(__file__).parent.parent.parent
COMPONENTS = {path.stem: path for path in ROOT.glob("docs/components/*.md") if path.stem != "index"}
TABLES = [
    "docs/reference/features.md",
    "docs/configuration.md",
    "docs/reference/layotto.md",
    *map(str, COMPONENTS.values()),
]


@pytest.fixture(scope="module")
def pinned() -> dict[str, Any]:
    return tomllib.loads((ROOT / "docs" / "features.toml").read_text(encoding="utf-8"))


@pytest.mark.promise("I3")
def test_what_is_declared_is_what_is_pinned(pinned: dict[str, Any]) -> None:
    expected = {
        name: {service: frozenset(table["features"]) for service, table in services.items()}
        for name, services in pinned.items()
    }
    assert features.declared() == expected


def test_stores_that_keep_the_order_of_an_outbox() -> None:
    drivers: list[type[StateDriver]] = [StateDriver, EtcdState, NatsState, RedisState, DaprState]
    assert [driver.has_order for driver in drivers] == [False, True, True, True, False]


def test_every_built_in_component_is_pinned(pinned: dict[str, Any]) -> None:
    folders = [path.parent.name for path in (ROOT / "cloud_runtimes" / "components").glob("[!_]*/__init__.py")]
    if not folders:
        pytest.skip("the installed package is tested, without its sources")
    assert sorted(folders) == sorted(pinned)


def test_every_built_in_component_has_a_page() -> None:
    assert set(COMPONENTS) == set(registry.built_in(registry.COMPONENTS))


@pytest.mark.promise("I3")
def test_every_feature_is_pinned_or_absent_for_a_reason(pinned: dict[str, Any]) -> None:
    for component, services in pinned.items():
        for service, table in services.items():
            absent = table.get("absent", {})
            assert sorted([*table["features"], *absent]) == features.constants(service), (component, service)
            assert all(len(reason) > 20 for reason in absent.values()), (component, service)


def test_every_service_is_pinned_for_its_embedded_default(pinned: dict[str, Any]) -> None:
    for service in features.BACKED:
        assert service in pinned[Home(None, "the home").find(service, "x")[0].name]


def test_every_feature_has_a_line_for_people_and_no_other_has() -> None:
    known = {f"{service}.{name}" for service in features.BACKED for name in features.constants(service)}
    assert set(features.DESCRIPTIONS) == known | set(features.BACKED)


def test_every_setting_has_a_line_for_people() -> None:
    for group in (registry.COMPONENTS, registry.RUNTIMES):
        for name in registry.built_in(group):
            settings = features._settings(registry.find(group, name))
            assert settings is not None
            for field in dataclasses.fields(settings):
                assert len(features.attributes(settings)[field.name]) > 10


def test_the_tables_are_the_generated_ones(subtests: pytest.Subtests) -> None:
    for path in TABLES:
        with subtests.test(path=path):
            text = (ROOT / path).read_text(encoding="utf-8")
            assert features.rewrite(text) == text, "run: make docs"
            assert ":begin -->" in text


def test_the_tables_hold_what_they_are_made_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert features.main([]) == 0
    table = capsys.readouterr().out
    assert re.search(r"^\| `state\.ttl` \| `ttl=`: expires by itself \|.* yes \|$", table, re.MULTILINE)
    assert re.search(r"^\| `pubsub\.key_order` \| events of one key in order, .* – \|$", table, re.MULTILINE)
    settings = features.settings_table(SqliteSettings)
    assert "| `retention` | seconds, or text such as `500ms`, `24h` | `24h` |" in settings
    assert "| `when_full` | `refuse`, `drop_oldest` | `refuse` |" in settings


def test_rewriting_a_document(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n\n<!-- settings.capa:begin -->\nold\n<!-- settings.capa:end -->\n\nb\n", encoding="utf-8")
    assert features.main(["--write", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("a\n\n<!-- settings.capa:begin -->\n| setting |")
    assert text.endswith("|\n<!-- settings.capa:end -->\n\nb\n")
    assert features.rewrite(text) == text


def test_a_broken_place_is_refused(subtests: pytest.Subtests) -> None:
    for text, message in (
        ("<!-- features:begin -->\n| a |\n", "does not end"),
        ("<!-- features:begin -->\n<!-- settings.capa:begin -->\n<!-- features:end -->\n", "does not end"),
        ("<!-- nothing:begin -->\n<!-- nothing:end -->\n", "no table 'nothing'"),
    ):
        with subtests.test(text=text, message=message), pytest.raises(ValueError, match=message):
            features.rewrite(text)
