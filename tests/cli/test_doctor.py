"""``doctor``, ``init`` and ``config validate``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cloud_runtimes
from cloud_runtimes import native_status


def test_it_is_ready(cli: Any, home: Path) -> None:
    result = cli("doctor")
    assert (result.code, result.err) == (0, "")
    text = result.out.decode()
    for part in (cloud_runtimes.__version__, native_status().reason, str(home), "capa (the default)", "retry_delay"):
        assert part in text
    assert text.startswith("ready           yes\n")
    assert "    configuration  atomic, group" in text, "a long name keeps its distance"


def test_json_is_one_object_with_the_same(cli: Any, home: Path) -> None:
    result = cli("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    assert report["ready"] is True
    assert report["problem"] is None
    assert report["home"] == str(home)
    assert report["runtime"] == {"name": "capa", "from": "the default"}
    assert report["kernels"] == native_status()._asdict()
    sqlite = next(each for each in report["components"] if each["name"] == "sqlite")
    assert "ttl" in sqlite["services"]["state"]
    assert "group" in sqlite["services"]["pubsub"]


def test_what_is_declared_is_shown_without_settings(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "runtimes.toml"
    path.write_text(f'[state.orders]\ncomponent = "sqlite"\npath = "{tmp_path}/hidden.db"\n')
    result = cli("--config", str(path), "doctor")
    assert result.code == 0
    assert b"state.orders" in result.out
    assert b"hidden" not in result.out


def test_what_is_wrong_is_one_line(cli: Any, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for config, problem in (
        (
            '[state.orders]\ncomponent = "nonsense"\n',
            "[state.orders]: unknown component of state; known: etcd, nats, objectstore, postgres, redis, sqlite",
        ),
        ("runtime = 1\n", "'runtime' must be text"),
        ("[nonsense]\n", "unknown key, key 1 of the table; known: admin"),
        ("[", "syntax error"),
    ):
        with subtests.test(config=config, problem=problem):
            path = tmp_path / "runtimes.toml"
            path.write_text(config)
            result = cli("--config", str(path), "doctor")
            assert result.code == 1
            assert problem in result.err
            assert result.err.startswith("error: ")
            assert result.err.count("\n") == 1
            assert b"ready           no\n" in result.out
            assert b"sqlite" in result.out  # the rest is examined all the same


def test_a_home_that_cannot_be(cli: Any, home: Path) -> None:
    home.write_text("a file")
    result = cli("doctor", "--json")
    assert result.code == 1
    assert str(home) in json.loads(result.out)["problem"]


@pytest.mark.parametrize(
    ("argv", "environment", "name", "origin"),
    [
        (("--runtime", "capa"), {"CLOUD_RUNTIMES_RUNTIME": "x"}, "capa", "--runtime"),
        ((), {"CLOUD_RUNTIMES_RUNTIME": "x"}, "x", "CLOUD_RUNTIMES_RUNTIME"),
        (("--endpoint", "http://h:1"), {"LAYOTTO_GRPC_ENDPOINT": "h:2"}, "dapr", "--endpoint"),
        ((), {"DAPR_GRPC_PORT": "1", "LAYOTTO_GRPC_ENDPOINT": "h:2"}, "dapr", "DAPR_GRPC_PORT"),
        ((), {"LAYOTTO_GRPC_ENDPOINT": "h:2"}, "layotto", "LAYOTTO_GRPC_ENDPOINT"),
    ],
)
def test_where_the_runtime_came_from(
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    environment: dict[str, str],
    name: str,
    origin: str,
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    report = json.loads(cli(*argv, "doctor", "--json").out)
    assert report["runtime"] == {"name": name, "from": origin}


def test_a_runtime_from_the_configuration(cli: Any, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for line, origin in (('runtime = "capa"', "{}"), ('endpoint = "http://h"', "the endpoint in {}")):
        with subtests.test(line=line, origin=origin):
            path = tmp_path / "runtimes.toml"
            path.write_text(line)
            report = json.loads(cli("--config", str(path), "doctor", "--json").out)
            assert report["runtime"]["from"] == origin.format(path)


def test_an_endpoint_without_its_secrets(cli: Any) -> None:
    result = cli("--runtime", "capa", "--endpoint", "http://me:hidden@host:3500/x?token=hidden", "doctor")
    assert b"http://host:3500/x\n" in result.out
    assert b"hidden" not in result.out + result.err.encode()


def test_homes_of_services_are_shown_without_their_secrets(cli: Any, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "cloud.toml"
    path.write_text('[capa.homes]\npubsub = "kafka://me:canary@127.0.0.1:1"\nfile = "files"\n')
    result = cli("--config", str(path), "doctor", "--json")
    homes = {"file": str(tmp_path / "files"), "pubsub": "kafka://127.0.0.1:1"}
    assert json.loads(result.out)["homes"] == homes
    assert b"canary" not in result.out + result.err.encode()
    result = cli("--config", str(path), "doctor")
    assert b"canary" not in result.out + result.err.encode()
    assert b"  pubsub        kafka://127.0.0.1:1\n" in result.out
    assert f"  file          {tmp_path}/files\n".encode() in result.out


@pytest.mark.process
def test_kernels_that_cannot_be_chosen(home: Path) -> None:
    environment = {**os.environ, "CLOUD_RUNTIMES_NATIVE": "nonsense"}
    command = [sys.executable, "-m", "cloud_runtimes", "doctor"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "ready           no" in result.stdout
    assert result.stderr.count("\n") == 1
    assert "CLOUD_RUNTIMES_NATIVE" in result.stderr


# -- ``init`` and ``config validate``


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


def test_what_is_wrong(cli: Any, folder: Path, subtests: pytest.Subtests) -> None:
    for text, said in (
        ("[state.orders]\ncomponent = 'sqlite'\ndurabilty = 'full'", "did you mean 'durability'"),
        ("[state.orders]\ncomponent = 'reddis'", "did you mean 'redis'"),
        ("[telemetry]\nexporter = 'nowhere'", "setting 'exporter'"),
        ("app_id = ", "cloud.toml"),
        ("[requires.file]\nf = ['url']", "[file.f] has no url"),
        ("[requires.state]\norders = ['tll']", "did you mean 'ttl'"),
    ):
        with subtests.test(text=text, said=said):
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
