"""The harness table of the secret service."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_runtimes.components.config_file import FileComponent
from cloud_runtimes.components.env import EnvComponent
from cloud_runtimes.testing import Clock, SecretHarness
from tests.support.harnesses.clients import Clients
from tests.support.mounts import Mount
from tests.support.vault import VaultStub


class _Harness(Clients, SecretHarness):
    """Common base: clients, a folder of sources, and clocks that run ahead so that no file counts as just written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.clocks = Clock()
        self.clocks.ahead_ms = 60_000
        monkeypatch.setattr(EnvComponent, "clocks", self.clocks)
        monkeypatch.setattr(FileComponent, "clocks", self.clocks)
        self._stores: dict[str, dict[str, Any]] = {}

    def table(self, store: str) -> dict[str, Any]:
        """The settings of a store."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        return {"secret": {store: self.table(store) for store in ("secret-1", "secret-2")}}

    def store(self, kind: str = "store") -> str:
        name = f"{kind}-{len(self._stores) + 1}"
        self._stores[name] = {}
        self.write(name)
        return name

    def put(self, store: str, key: str, value: str) -> None:
        self._stores[store][key] = value
        self.write(store)

    def remove(self, store: str, key: str) -> None:
        del self._stores[store][key]
        self.write(store)

    def write(self, store: str) -> None:
        """Bring the store's secrets to where the component reads them."""

    def replace(self, name: str, text: str) -> None:
        """Replace a file by another."""
        path = self.folder / name
        path.with_name("new").write_text(text, encoding="utf-8")
        path.with_name("new").chmod(0o600)
        path.with_name("new").replace(path)


class EnvHarness(_Harness):
    """Variables of the process, of stores that nobody declared."""

    name = "env"
    keys = ("a_b", "under_score-d")

    def config(self) -> dict[str, Any]:
        return {}

    def variable(self, store: str, key: str) -> str:
        return f"CLOUD_RUNTIMES_SECRET_{store.replace('-', '__')}_{key.replace('-', '__')}".upper()

    def write(self, store: str) -> None:
        beginning = self.variable(store, "")
        for name in [name for name in os.environ if name.startswith(beginning)]:
            self.monkeypatch.delenv(name)
        for key, value in self._stores[store].items():
            self.monkeypatch.setenv(self.variable(store, key), value)


class PrefixHarness(EnvHarness):
    """Variables of the process with prefixes of the configuration."""

    name = "env with a prefix"

    def config(self) -> dict[str, Any]:
        return _Harness.config(self)

    def table(self, store: str) -> dict[str, Any]:
        return {"component": "env", "prefix": f"{store[-1]}_".replace("1", "ONE").replace("2", "two")}

    def variable(self, store: str, key: str) -> str:
        return self.table(store)["prefix"] + key.replace("-", "__").upper()


class DotenvHarness(EnvHarness):
    """A ``.env`` in the working directory, of stores that nobody declared."""

    name = "env, .env"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        super().__init__(monkeypatch, folder)
        monkeypatch.chdir(folder)

    def write(self, store: str) -> None:
        lines = ["# written by a test\n", "OTHER=1\n"]
        for each, secrets in self._stores.items():
            lines += [f"export {self.variable(each, key)}={_quoted(value)}\n" for key, value in secrets.items()]
        self.replace(".env", "".join(lines))


def _quoted(value: str) -> str:
    return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'


class _FileHarness(_Harness):
    end: str
    keys = ("a_b", "a.b", "a b", "*", "%", "ключ", "a\tb")

    def table(self, store: str) -> dict[str, Any]:
        return {"component": "config_file", "path": str(self.folder / f"{store}{self.end}")}

    def write(self, store: str) -> None:
        self.replace(f"{store}{self.end}", self.text(self._stores[store]))

    def text(self, secrets: dict[str, Any]) -> str:
        raise NotImplementedError


class JsonHarness(_FileHarness):
    """A JSON file."""

    name = "file, JSON"
    end = ".json"
    keys = (*_FileHarness.keys, "nested:key", "nested:list:0")

    def text(self, secrets: dict[str, Any]) -> str:
        tree: dict[str, Any] = {key: value for key, value in secrets.items() if not key.startswith("nested:")}
        if "nested:key" in secrets:
            tree["nested"] = {"key": secrets["nested:key"], "list": [secrets.get("nested:list:0", "")]}
        return json.dumps(tree)


class MultipleHarness(_FileHarness):
    """A JSON file whose tables are secrets of several entries."""

    name = "file, JSON, multi-valued"
    end = ".json"
    multiple = True

    def table(self, store: str) -> dict[str, Any]:
        return {**super().table(store), "multi_valued": True}

    def put_entries(self, store: str, key: str, entries: Mapping[str, str]) -> None:
        self._stores[store][key] = dict(entries)
        self.write(store)

    def text(self, secrets: dict[str, Any]) -> str:
        return json.dumps(secrets)


class TomlHarness(_FileHarness):
    """A TOML file."""

    name = "file, TOML"
    end = ".toml"

    def text(self, secrets: dict[str, Any]) -> str:
        # a JSON string of no surrogates and no DEL is a basic string of TOML
        return "".join(
            f"{json.dumps(key, ensure_ascii=False)} = {json.dumps(value, ensure_ascii=False)}\n"
            for key, value in secrets.items()
        )


class YamlHarness(_FileHarness):
    """A YAML file."""

    name = "file, YAML"
    end = ".yaml"

    def text(self, secrets: dict[str, Any]) -> str:
        return str(yaml.safe_dump(secrets, allow_unicode=True))


class DotenvFileHarness(_FileHarness):
    """A dotenv file of the store's own."""

    name = "file, dotenv"
    end = ".env"
    keys = ("a_b", "a.b", "UPPER")

    def text(self, secrets: dict[str, Any]) -> str:
        return "".join(f"{key} = {_quoted(value)} # comment\n" for key, value in secrets.items())


class FolderHarness(_Harness):
    """A folder of files, as Kubernetes mounts and changes it."""

    name = "file, a folder"
    keys = ("a_b", "a.b", "a b", "*", "%", "ключ", "a\tb")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        super().__init__(monkeypatch, folder)
        self._mounts: dict[str, Mount] = {}

    def table(self, store: str) -> dict[str, Any]:
        return {"component": "config_file", "path": str(self.folder / store), "format": "folder"}

    def write(self, store: str) -> None:
        mount = self._mounts.setdefault(store, Mount(self.folder / store))
        mount.change(self._stores[store])


class KeyringHarness(_Harness):
    """The package keyring over a backend that needs no desktop: a file."""

    name = "keyring"
    keys = ("a_b", "a.b", "a b", "*", "%", "ключ")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        super().__init__(monkeypatch, folder)
        keyring = pytest.importorskip("keyring")
        backend = pytest.importorskip("keyrings.alt.file").PlaintextKeyring()
        backend.file_path = str(folder / "keyring.cfg")
        self._keyring = keyring
        before = keyring.get_keyring()
        keyring.set_keyring(backend)
        self._restore = lambda: keyring.set_keyring(before)

    def table(self, store: str) -> dict[str, Any]:
        return {"component": "keyring"}

    def put(self, store: str, key: str, value: str) -> None:
        self._keyring.set_password(store, key, value)

    def remove(self, store: str, key: str) -> None:
        self._keyring.delete_password(store, key)

    def close(self) -> None:
        super().close()
        self._restore()


class VaultHarness(_Harness):
    """The key-value engine of a stub of Vault, in version 2."""

    name = "vault"
    engine = "kv2"
    multiple = True
    keys = ("a_b", "a.b", "a b", "*", "%", "ключ", "k/v", "k?v", "k#v")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        super().__init__(monkeypatch, folder)
        self.stub = VaultStub()
        if self.engine == "kv1":
            self.stub.second.clear()
        self._token = self.stub.token()

    def table(self, store: str) -> dict[str, Any]:
        return {"component": "vault", "url": self.stub.url, "token": self._token, "engine": self.engine}

    def put(self, store: str, key: str, value: str) -> None:
        self.put_entries(store, key, {key: value})

    def put_entries(self, store: str, key: str, entries: Mapping[str, str]) -> None:
        self.stub.put(f"{store}/{key}", dict(entries))

    def remove(self, store: str, key: str) -> None:
        del self.stub.kv["secret"][f"{store}/{key}"]

    def close(self) -> None:
        super().close()
        self.stub.close()


class VaultFirstHarness(VaultHarness):
    """Version 1."""

    name = "vault, kv1"
    engine = "kv1"

    def put_entries(self, store: str, key: str, entries: Mapping[str, str]) -> None:
        self.stub.kv["secret"][f"{store}/{key}"] = [dict(entries)]


FORMATS = (TomlHarness.name, YamlHarness.name, DotenvFileHarness.name)
"""Rows that differ from JSON's by how a file is read."""
SECRET_HARNESSES = {
    harness.name: harness
    for harness in (
        EnvHarness, PrefixHarness, DotenvHarness, JsonHarness, MultipleHarness, TomlHarness, YamlHarness,
        DotenvFileHarness, FolderHarness, KeyringHarness, VaultHarness, VaultFirstHarness,
    )
}  # fmt: skip
