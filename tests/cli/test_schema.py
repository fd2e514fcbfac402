"""``config schema``: true to what is read, named errors, completions in editors."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from cloud_runtimes import config, registry
from cloud_runtimes.cli._schema import config_schema, schema_text
from cloud_runtimes.client import SERVICES
from tests.packaging.builds import ROOT
from tests.packaging.programs import blocks
from tests.support.toml_server import TomlServer

BIN = Path(sys.executable).parent
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))]
BAD = {
    "durabilty": '[state.o]\ncomponent = "sqlite"\ndurabilty = "full"',
    "sqlit": '[state.o]\ncomponent = "sqlit"',
    "component": '[state.o]\npath = "x.db"',
    "kafka": '[state.o]\ncomponent = "kafka"',
    "spool": '[state.o]\ncomponent = "sqlite"\nspool = true',
    "max_byte": '[pubsub.b]\ncomponent = "kafka"\nspool = { max_byte = 3 }',
    "retention": '[pubsub.b]\ncomponent = "sqlite"\nretention = "7 days"',
    "hom": '[capa]\nhom = "data"',
    "prefx": '[capa.home]\nurl = "redis://h"\nprefx = "a"',
    "listen_urls": '[capa.home]\nurl = "postgresql://h"\nschema = "a"\nlisten_urls = "b"',
    "redi://": '[capa.home]\nurl = "redi://h"',
    "ensur": '[capa.homes.pubsub]\nurl = "kafka://h"\nensur = "create"',
    "tiemout": "tiemout = 3",
    "timeout": 'timeout = "3"',
    "stat": '[stat.o]\ncomponent = "sqlite"',
    "otl": '[telemetry]\nexporter = "otl"',
    "max_retry": "[resiliency.targets.default]\nretry = { max_retry = 3 }",
    "defalt": '[resiliency.targets.defalt]\ntimeout = "1s"',
    "trnsaction": '[requires.state]\norders = ["trnsaction"]',
    "address": '[rpc.stock]\ntoken = "0123456789abcdef"',
    "audi": '[admin]\naudi = "bus"',
}
"""A word that the error must say → the file."""
OFFERED = {
    "": "telemetry",
    "[capa]\n": "strict",
    "[capa.home]\nurl = 'redis://h'\n": "wait_replicas",
    "[state.o]\ncomponent = ": '"redis"',
    "[state.o]\ncomponent = 'sqlite'\n": "durability",
    "[state.o]\ncomponent = 'sqlite'\ndurability = ": '"relaxed"',
    "[pubsub.b]\ncomponent = 'kafka'\n": "servers",
    "[pubsub.b]\ncomponent = 'kafka'\n[pubsub.b.spool]\n": "on_full",
    "[telemetry]\nexporter = ": '"otlp"',
    "[telemetry]\nretry_timeout = ": '"1m"',
    "[resiliency.targets.'state.o'.breaker]\n": "probes",
    "[rpc.stock]\n": "token",
}
"""A file up to the cursor → one of the completions."""


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    schema = config_schema()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cloud-runtimes.schema.json").write_text(schema_text(), encoding="utf-8")
    return tmp_path


def examples() -> list[str]:
    """Return the configurations in the documentation, but for those of components that are written there."""
    texts = [text for page in PAGES if (ROOT / page).exists() for text in blocks(ROOT / page, "toml")]
    return [text for text in texts if "[project]" not in text and "acme" not in text]


def test_the_examples_of_the_documentation_are_valid(validator: Draft7Validator, subtests: pytest.Subtests) -> None:
    texts = examples()
    assert len(texts) > 40
    for text in texts:
        with subtests.test(text=text):
            assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


def test_an_error_names_the_word_and_nothing_else_is_one(validator: Draft7Validator, subtests: pytest.Subtests) -> None:
    for word, text in BAD.items():
        with subtests.test(word=word):
            (error,) = validator.iter_errors(tomllib.loads(text))
            assert word in f"{error.json_path} {error.message}"


def test_what_it_refuses_is_refused(cli: Any, home: Path, subtests: pytest.Subtests) -> None:
    for word in BAD.keys() - {"address", "audi"}:  # these are read by the first call
        with subtests.test(word=word):
            Path("bad.toml").write_text(BAD[word], encoding="utf-8")
            code, _, err = cli("config", "validate", "bad.toml")
            assert code == 2, err


def test_every_setting_is_described_and_every_default_valid(validator: Draft7Validator) -> None:
    def look(schema: Mapping[str, Any], where: str) -> None:
        for name, each in schema.get("properties", {}).items():
            described = "description" in each or name in SERVICES or "$ref" in each or "then" in each
            assert described, f"{where}.{name}"
            assert each.get("description") != "", f"{where}.{name}"
            if "default" in each:
                assert list(Draft7Validator(each).iter_errors(each["default"])) == [], f"{where}.{name}"
            look(each, f"{where}.{name}")

    schema: Any = validator.schema
    look(schema, "")
    for name, definition in schema["definitions"].items():
        look(definition, name)


def test_every_key_and_component_is_there(validator: Draft7Validator) -> None:
    schema: Any = validator.schema
    assert set(config._TOP_LEVEL) | {*SERVICES, "admin", "resiliency", "requires"} <= schema["properties"].keys()
    assert set(registry.names(registry.COMPONENTS)) <= schema["definitions"].keys()


def test_a_component_of_another_package_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "loaded", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    module = """
from dataclasses import dataclass
from cloud_runtimes.config import duration, setting
from cloud_runtimes.spi.component import Component

@dataclass(frozen=True)
class Settings:
    space: str = setting("shop", help="where it lives")
    pause: float = setting(2.0, parse=duration)

class Acme(Component):
    name, Settings, services = "acme", Settings, ("state",)
    def driver(self, service, name): raise NotImplementedError
    def close(self, timeout): pass
"""
    (tmp_path / "distribution_of_acme.py").write_text(module)
    info = tmp_path / "acme-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    points = "[cloud_runtimes.components]\nacme = distribution_of_acme:Acme\nbroken = distribution_of_acme:Settings\n"
    (info / "entry_points.txt").write_text(points)
    importlib.invalidate_caches()
    schema = config_schema()
    monkeypatch.delitem(sys.modules, "distribution_of_acme")
    settings = schema["definitions"]["acme"]["properties"]
    assert settings["space"] == {"description": "where it lives", "type": "string", "default": "shop"}
    assert settings["pause"]["default"] == "2s"
    validator = Draft7Validator(schema)
    assert list(validator.iter_errors({"state": {"s": {"component": "broken", "anything": 1}}})) == []
    (error,) = validator.iter_errors({"state": {"s": {"component": "acme", "spac": "a"}}})
    assert "spac" in error.message


def test_the_command_writes_it(cli: Any) -> None:
    code, out, _ = cli("config", "schema")
    assert (code, json.loads(out)) == (0, config_schema())


def test_init_puts_it_beside_the_file(cli: Any, home: Path) -> None:
    assert cli("init").code == 0
    first = Path("cloud-runtimes.toml").read_text().partition("\n")[0]
    schema = re.fullmatch(r"#:schema \./(.+)", first)
    assert schema is not None
    assert json.loads(Path(schema[1]).read_text()) == config_schema()


def test_what_is_there_for_editors_is_no_setting(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"$schema": "./cloud-runtimes.schema.json", "app_id": "shop"}')
    (tmp_path / "b.json").write_text('{"$schema": "./cloud-runtimes.schema.json", "timeout": 3}')
    (tmp_path / "cloud-runtimes.schema.json").write_text(schema_text(), encoding="utf-8")
    assert config.read(tmp_path)[0].keys() == {"app_id", "timeout", "capa"}


@pytest.mark.process
def test_an_editor_completes(folder: Path, subtests: pytest.Subtests) -> None:
    with TomlServer(str(BIN / "tombi"), "lsp", "--offline", folder=folder) as server:
        for text, offered in OFFERED.items():
            with subtests.test(text=text):
                assert offered in server.complete(f"#:schema ./cloud-runtimes.schema.json\n{text}|\n")
        chosen = server.complete("#:schema ./cloud-runtimes.schema.json\n[state.o]\ncomponent = 'sqlite'\n|\n")
        assert "wait_replicas" not in chosen, "a setting of another component"
        assert "survives a power cut" in chosen["durability"]


@pytest.mark.process
@pytest.mark.parametrize("command", [("tombi", "lint", "--offline"), ("taplo", "lint")])
def test_a_checker_takes_the_examples_and_names_what_is_wrong(
    command: tuple[str, ...], folder: Path, subtests: pytest.Subtests
) -> None:
    program = BIN / command[0]
    if not program.exists():
        pytest.skip(f"{command[0]}: not on this Python")
    for number, text in enumerate([*examples(), *BAD.values()]):
        (folder / f"{number}.toml").write_text(f"#:schema ./cloud-runtimes.schema.json\n{text}", encoding="utf-8")

    def check(numbers: range) -> tuple[int, str]:
        files = [f"{number}.toml" for number in numbers]
        done = subprocess.run([program, *command[1:], *files], cwd=folder, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    good = range(len(examples()))
    code, said = check(good)
    assert code == 0, said
    assert "Warning" not in said
    for number, word in enumerate(BAD, len(good)):
        with subtests.test(word=word):
            code, said = check(range(number, number + 1))
            assert code == 1
            line = next((line for line, each in enumerate(BAD[word].splitlines(), 2) if word in each), 2)
            assert word in said or f"{number}.toml:{line}:" in said
