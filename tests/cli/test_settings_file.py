"""``init`` and ``config validate``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CLOUD_RUNTIMES_HOME")
    return Path.cwd()


def test_a_new_file_is_found_from_below_and_keeps_data_together(
    cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = cli("init")
    assert (code, out, "wrote cloud-runtimes.toml" in err) == (0, b"", True)
    assert (
        cli("config", "validate").out
        == f"{folder}/cloud-runtimes.toml: valid, 0 components, undeclared names on {folder}/.cloud_runtimes\n".encode()
    )
    assert cli("state", "save", "orders", "k", "1").code == 0
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert cli("state", "get", "orders", "k").out == b"1\n"
    assert (folder / ".cloud_runtimes").is_dir()


def test_its_comments_are_valid_too(cli: Any, folder: Path) -> None:
    cli("--app-id", "shop", "init")
    path = folder / "cloud-runtimes.toml"
    text = path.read_text()
    assert 'app_id = "shop"' in text
    every = re.sub(r"(?m)^# ?(?=\[|[a-z_]+ = )", "", text)
    every = re.sub(r'(?m)^home = "(redis|nats|etcd)://.*\n', "", every)
    path.write_text(every)
    homes = b"undeclared names on postgresql://host/name, pubsub: kafka://host:9092, file: s3://bucket/prefix\n"
    assert cli("config", "validate").out.endswith(b": valid, 2 components, " + homes)


def test_there_is_one_already(cli: Any, folder: Path) -> None:
    assert cli("init").code == 0
    code, _, err = cli("init")
    assert (code, "is there already" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[state.orders]\ncomponent = 'sqlite'\ndurabilty = 'full'", "did you mean 'durability'"),
        ("[state.orders]\ncomponent = 'reddis'", "did you mean 'redis'"),
        ("[telemetry]\nexporter = 'nowhere'", "setting 'exporter'"),
        ("app_id = ", "cloud.toml"),
    ],
)
def test_what_is_wrong(cli: Any, folder: Path, text: str, said: str) -> None:
    (folder / "cloud.toml").write_text(text)
    code, out, err = cli("config", "validate", "cloud.toml")
    assert (code, out, said in err) == (2, b"", True), err


def test_there_is_none(cli: Any, folder: Path) -> None:
    os.mkdir(".git")
    code, _, err = cli("config", "validate")
    assert (code, "there is no configuration file" in err) == (2, True)


def test_what_becomes_of_undeclared_names(cli: Any, folder: Path) -> None:
    path = folder / "cloud-runtimes.toml"
    declared = '[state.orders]\ncomponent = "sqlite"\n[resiliency.targets."state.order"]\ntimeout = "1s"\n'
    path.write_text(f'[capa.homes]\nfile = "files"\npubsub = "kafka://me:canary@host"\n{declared}')
    result = cli("config", "validate")
    homes = f"{folder}/.cloud_runtimes, pubsub: kafka://host, file: {folder}/files"
    assert result.out.decode().endswith(f": valid, 1 components, undeclared names on {homes}\n")
    assert result.err == 'warning: [resiliency.targets."state.order"]: is [state.orders] meant?\n'
    path.write_text(f"[capa]\nstrict = true\n{declared}")
    assert cli("config", "validate").out.endswith(b": valid, 1 components, undeclared names are refused\n")
    path.write_text(f'[capa.homes]\npubsub = "kafka://me:canary@host/x"\n{declared}')
    assert cli("config", "validate").err.endswith(
        "[capa.homes] pubsub: give a URL such as kafka://user:password@host:9092,host:9092\n"
    )
    path.write_text(f'[capa.homes]\nfile = "redis://me:canary@host"\n{declared}')
    assert cli("config", "validate").err.startswith(f"error: {path}: [capa.homes] file: redis:// has no file: give a")
