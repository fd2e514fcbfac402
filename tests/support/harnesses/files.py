"""Watched files as stores of configuration."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from cloud_runtimes import CloudRuntimesClient
from tests.support.harnesses.clients import Clients

_numbers = itertools.count()


class FileHarness(Clients):
    """A watched file per store, which the test writes as its owner would: whole, beside it, and renamed over it."""

    suffix: ClassVar[str]
    watch: ClassVar[str] = "poll"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        # the configuration declares them all before the first call
        self._names = [f"configuration-{next(_numbers)}" for _ in range(3)]
        self._unused = iter(self._names)
        self._folder = folder
        self._values: dict[str, dict[str, str]] = {name: {} for name in self._names}
        for name in self._names:
            self._write(name)

    def _path(self, store: str) -> Path:
        return self._folder / f"{store}{self.suffix}"

    def text(self, values: Mapping[str, str]) -> str:
        raise NotImplementedError

    def _write(self, store: str) -> None:
        beside = self._folder / "beside"
        beside.write_text(self.text(self._values[store]), encoding="utf-8")
        beside.replace(self._path(store))

    def config(self) -> dict[str, Any]:
        # with notices it hardly ever looks by itself, so that they are what is tested
        interval = "20ms" if self.watch == "poll" else "10s"
        tables = {
            name: {
                "component": "config_file",
                "path": str(self._path(name)),
                "watch": self.watch,
                "poll_interval": interval,
            }
            for name in self._names
        }
        return {"configuration": tables}

    def store(self, kind: str = "store") -> str:
        return next(self._unused)

    def configure(self, client: CloudRuntimesClient, store: str, values: Mapping[str, str | None]) -> None:
        held = self._values[store]
        for key, value in values.items():
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value
        self._write(store)


class JsonFileHarness(FileHarness):
    """JSON, flat."""

    name = "file json"
    suffix = ".json"

    def text(self, values: Mapping[str, str]) -> str:
        return json.dumps(values)


class YamlFileHarness(FileHarness):
    """YAML, flat."""

    name = "file yaml"
    suffix = ".yaml"

    def text(self, values: Mapping[str, str]) -> str:
        return yaml.safe_dump(dict(values), allow_unicode=True)


class TomlFileHarness(FileHarness):
    """TOML, in nested tables, followed by notices."""

    name = "file toml notices"
    suffix = ".toml"
    watch = "watchfiles"

    def text(self, values: Mapping[str, str]) -> str:
        # JSON's escapes are TOML's too; a comment, since an empty file counts as unfinished
        lines = ["# values\n"]
        for key, value in values.items():
            parts = key.split(".")
            lines.append(f"{'.'.join(json.dumps(part) for part in parts)} = {json.dumps(value, ensure_ascii=False)}\n")
        return "".join(lines)


# for configuration only: each format once, and both ways to notice a change
FILES = {harness.name: harness for harness in (JsonFileHarness, TomlFileHarness, YamlFileHarness)}
