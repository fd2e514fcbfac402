"""Which configuration file counts, where a home lies, and what is not believed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, config
from cloud_runtimes._core import config_discovery, logs
from cloud_runtimes.errors import InvalidArgumentError

Keep = Callable[[CloudRuntimesClient], CloudRuntimesClient]

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root, the working directory being two folders below it."""
    root = tmp_path / "project"
    (root / ".git").mkdir(parents=True)
    below = root / "src" / "app"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.setattr(logs, "_said", {})
    return root


def put(path: Path, text: str = 'app_id = "found"\n') -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def app_id() -> Any:
    return config.read(None)[0].get("app_id")


def test_the_nearest_file_counts(project: Path) -> None:
    assert config.read(None) == ({}, "no configuration")
    put(project / "pyproject.toml", '[tool.cloud-runtimes]\napp_id = "pyproject"\n')
    assert config.read(None)[1] == f"{project / 'pyproject.toml'}: [tool.cloud-runtimes]"
    assert app_id() == "pyproject"
    put(project / "cloud-runtimes.toml", 'app_id = "root"\n')
    assert app_id() == "root"
    put(project / "src" / "cloud-runtimes.toml", 'app_id = "src"\n')
    assert app_id() == "src"
    assert config_discovery.find(None) == (
        project / "src" / "cloud-runtimes.toml",
        "the nearest one from the working directory upward",
    )


def test_the_argument_and_the_variable_go_before(project: Path, monkeypatch: pytest.MonkeyPatch, closing: Keep) -> None:
    put(project / "cloud-runtimes.toml")
    monkeypatch.setenv("CLOUD_RUNTIMES_CONFIG", str(put(project / "named.toml", 'app_id = "named"\n')))
    given = put(project / "given.toml", 'app_id = "given"\n')
    assert app_id() == "named"
    assert config.read(given)[0]["app_id"] == "given"
    assert config.read({}) == ({}, "the configuration")
    assert closing(CloudRuntimesClient())._context.settings.app_id == "named"
    monkeypatch.setenv("CLOUD_RUNTIMES_CONFIG", "absent.toml")
    client = closing(CloudRuntimesClient())  # which reads nothing
    with pytest.raises(InvalidArgumentError, match=r"CLOUD_RUNTIMES_CONFIG: absent\.toml does not exist"):
        client.state.get("s", "k")


def test_the_search_ends_at_the_project_and_at_the_home(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "cloud-runtimes.toml")
    assert app_id() is None
    (project / ".git").rmdir()
    assert app_id() == "found"
    monkeypatch.setenv("HOME", str(project))
    assert app_id() is None


@pytest.mark.parametrize(
    "text",
    ['[project]\ndependencies = ["cloud-runtimes-python"]\n', "[tool.other]\na = 1\n", "dependencies = [cloud-runtimes\n", "x"],
)  # fmt: skip
def test_a_pyproject_that_is_not_meant_for_us_is_passed_over(project: Path, text: str) -> None:
    put(project / "src" / "pyproject.toml", text)
    put(project / "cloud-runtimes.toml")
    assert app_id() == "found"


@pytest.mark.parametrize(
    ("name", "text"), [("cloud-runtimes.toml", "a = secret"), ("pyproject.toml", '[tool."cloud-runtimes"]\na = secret')]
)
def test_a_broken_file_is_an_error(project: Path, name: str, text: str) -> None:
    put(project / name, text)
    with pytest.raises(InvalidArgumentError, match=rf"{name}: syntax error at line \d") as caught:
        app_id()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("way", ["stat", "lstat"])
def test_a_file_that_anybody_may_have_put_there_is_not_taken(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    path = put(project / "cloud-runtimes.toml")
    monkeypatch.setattr(Path, way, _of_another(path, getattr(Path, way)))
    assert app_id() == "found", "a folder of one user"
    project.chmod(0o1777)
    assert app_id() is None
    (record,) = caplog.records
    assert f"{path} is not taken: it belongs to another user" in record.message
    assert "name it by CLOUD_RUNTIMES_CONFIG" in record.message
    monkeypatch.setenv("CLOUD_RUNTIMES_CONFIG", str(path))
    assert app_id() == "found"


def _of_another(path: Path, real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
    def look(self: Path, **more: Any) -> os.stat_result:
        found = real(self, **more)
        return os.stat_result((*found[:4], found.st_uid + 5, *found[5:10])) if self == path else found

    return look


def test_a_file_that_cannot_be_read_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(project / "cloud-runtimes.toml")
    read = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InvalidArgumentError, match=r"cloud-runtimes\.toml cannot be read: Permission denied"):
        app_id()


# -- homes --------------------------------------------------------------------


def test_the_home_lies_beside_the_file(project: Path, closing: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    put(project / "cloud-runtimes.toml", "")
    closing(CloudRuntimesClient()).state.save("orders", "k", 1)
    assert (project / ".cloud_runtimes" / "cloud_runtimes.db").exists()
    assert not Path(".cloud_runtimes").exists()
    monkeypatch.chdir(project)
    assert closing(CloudRuntimesClient()).state.get("orders", "k") == 1


@pytest.mark.parametrize(
    ("home", "place"),
    [("data", "{}/data"), ("../data", "{}/../data"), ("/abs", "/abs"), ("~/x", "~/x"), (":memory:", ":memory:"), ("redis://h", "redis://h")],
)  # fmt: skip
def test_relative_homes_lie_beside_the_file(project: Path, home: str, place: str) -> None:
    put(project / "cloud-runtimes.toml", f'[capa]\nhome = "{home}"\n[state.s]\ncomponent = "sqlite"\nhome = "{home}"\n')
    tables, _ = config.read(None)
    assert tables["capa"]["home"] == tables["state"]["s"]["home"] == place.format(project)


def test_the_variable_goes_before_the_default_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(project / "cloud-runtimes.toml", "")
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", "here")
    assert config.read(None)[0] == {}


def test_a_second_home_is_told_once(
    project: Path, closing: Keep, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = Path.cwd()
    monkeypatch.chdir(project)
    closing(CloudRuntimesClient()).state.save("orders", "k", 1)
    assert caplog.records == []
    monkeypatch.chdir(below)
    for _ in range(2):
        with CloudRuntimesClient() as client:
            client.state.save("orders", "k", 1)
            client.file.put_file("f", "n", b"")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{below / '.cloud_runtimes'} has nothing of what is in {project / '.cloud_runtimes'}" in record.message
    assert "set CLOUD_RUNTIMES_HOME" in record.message
