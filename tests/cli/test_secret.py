"""``secret get``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.testing.canary import Canary

VARIABLE = "CLOUD_RUNTIMES_SECRET_SHOP_DB__PASSWORD"


@pytest.fixture
def value(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret in the environment: ``db-password`` of ``shop``."""
    text = f" {canary.value()}\n"
    monkeypatch.setenv(VARIABLE, text)
    return text


def test_the_value_as_it_is(cli: Any, value: str) -> None:
    result = cli("secret", "get", "shop", "db-password")
    assert (result == (0, value.encode(), "")) is True


def test_an_absent_one(cli: Any, value: str) -> None:
    result = cli("secret", "get", "shop", "other")
    assert (result.code, result.out) == (3, b"")
    assert result.err.startswith(
        "error: no secret 'other' in 'shop': set the variable CLOUD_RUNTIMES_SECRET_SHOP_OTHER"
    )
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("shop", "a:b"), ("my_shop", "a"), ("shop", "")])
def test_a_wrong_name(cli: Any, value: str, arguments: tuple[str, str]) -> None:
    result = cli("secret", "get", *arguments)
    assert (result.code, result.out) == (2, b"")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("options", [(), ("--reveal",)])
def test_a_terminal(
    cli: Any, value: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, canary: Canary
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    result = cli("secret", "get", "shop", "db-password", *options)
    if options:
        assert (result == (0, value.encode() + b"\n", "")) is True
    else:
        assert (result.code, result.out) == (2, b"")
        assert result.err == (
            "error: stdout is a terminal, so the secret is not read: send it to a pipe or file, or give --reveal\n"
        )


def test_several_entries(cli: Any, canary: Canary, tmp_path: Path) -> None:
    values = {"user": canary.value(), "password": canary.value()}
    path = canary.declare(tmp_path / "secrets.json")
    path.write_text(json.dumps({"db": values}))
    path.chmod(0o600)
    config = tmp_path / "cloud.toml"
    config.write_text(f'[secret.shop]\ncomponent = "config_file"\npath = "{path}"\nmulti_valued = true\n')
    get = ("--config", str(config), "secret", "get", "shop", "db")
    assert (cli(*get, "--entry", "user").out == values["user"].encode()) is True
    several, wrong = cli(*get), cli(*get, "--entry", "admin")
    assert (several.code, several.out, several.err) == (
        2,
        b"",
        "error: <Secret: 'user', 'password'> has 2 entries: give --entry NAME\n",
    )
    assert (wrong.code, wrong.out) == (2, b"")
    assert "no entry 'admin'" in wrong.err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_doctor_shows_no_secret(cli: Any, value: str, options: tuple[str, ...], canary: Canary) -> None:
    result = cli("doctor", *options)
    assert result.code == 0
    assert not canary.shows(result.out)


@pytest.mark.process
def test_a_real_terminal(value: str, home: Path, canary: Canary) -> None:
    """Refused before the secret is read; shown when asked for."""

    def run(*options: str) -> tuple[int, bytes]:
        ours, theirs = pty.openpty()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "cloud_runtimes", "secret", "get", "shop", "db-password", *options],
                stdout=theirs,
                stderr=subprocess.PIPE,
                timeout=60,
            )
            assert not canary.shows(done.stderr)
            os.write(theirs, b"\nEND")
            out = b""
            while not out.endswith(b"END"):
                out += os.read(ours, 4096)
            return done.returncode, out
        finally:
            os.close(ours)
            os.close(theirs)

    code, out = run()
    assert code == 2
    assert not canary.shows(out)
    code, out = run("--reveal")
    assert code == 0
    assert canary.shows(out)


@pytest.mark.process
def test_debug_shows_no_secret(home: Path, canary: Canary, tmp_path: Path) -> None:
    path = canary.declare(tmp_path / "secrets.json")
    path.write_text(f'{{"a": "{canary.value()}" "b": 1}}')
    config = tmp_path / "cloud.toml"
    config.write_text(f'[secret.shop]\ncomponent = "config_file"\npath = "{path}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "cloud_runtimes", "--debug", "--config", config, "secret", "get", "shop", "a"],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"PayloadError" in done.stderr
    assert b"line 1, column" in done.stderr
    assert not canary.shows(done.stdout + done.stderr)
