"""A name → a runtime or component, by folder and by entry point; which configuration file counts, and where a home lies."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, components, config, registry
from cloud_runtimes._core import config_discovery, logs
from cloud_runtimes.components.sqlite import SqliteComponent
from cloud_runtimes.errors import ComponentNotFoundError, InvalidArgumentError, UnsupportedError
from cloud_runtimes.registry import COMPONENTS, RUNTIMES, find, names
from cloud_runtimes.runtimes.capa import CapaRuntime

pytestmark = pytest.mark.usefixtures("clean_environment")

MODULE = """
from cloud_runtimes.spi.component import Component, Runtime
from cloud_runtimes.components.sqlite import SqliteComponent, SqliteSettings
from cloud_runtimes.runtimes.capa import CapaRuntime


class Other(CapaRuntime):
    name = "other"


class Mine(SqliteComponent):
    name = "mine"


def broken():
    raise RuntimeError("never called")
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with entry points, as a folder on the path."""
    monkeypatch.setattr(registry, "loaded", {})
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, *, module: str = MODULE, **groups: dict[str, str]) -> None:
        (tmp_path / f"{name}.py").write_text(module, encoding="utf-8")
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        lines = []
        for group, points in groups.items():
            lines.append(f"[cloud_runtimes.{group}]")
            lines += [f"{point} = {target}" for point, target in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        importlib.invalidate_caches()

    yield install
    for module in [name for name in sys.modules if name.startswith("distribution_of_")]:
        del sys.modules[module]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Add a folder to the built-in components."""
    import cloud_runtimes.components as package

    monkeypatch.setattr(registry, "loaded", {})
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "built_in")])
    packages: list[str] = []

    def folder(name: str, text: str) -> None:
        path = tmp_path / "built_in" / name
        path.mkdir(parents=True)
        (path / "__init__.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        packages.append(name)

    yield folder
    for name in packages:
        sys.modules.pop(f"cloud_runtimes.components.{name}", None)
        vars(package).pop(name, None)


def test_built_in_by_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "loaded", {})

    def forbidden(**options: Any) -> Any:
        raise AssertionError("a built-in needs no scan of the installed packages")

    monkeypatch.setattr("importlib.metadata.entry_points", forbidden)
    assert find(RUNTIMES, "capa") is CapaRuntime
    assert find(COMPONENTS, "sqlite") is SqliteComponent


def test_a_runtime_by_entry_point(install: Install) -> None:
    install("distribution_of_a_runtime", runtimes={"other": "distribution_of_a_runtime:Other"})
    assert find(RUNTIMES, "other").__name__ == "Other"
    assert names(RUNTIMES) == ["capa", "dapr", "layotto", "other"]
    with CloudRuntimesClient(runtime="other", config={"other": {"home": ":memory:"}}) as client:
        client.state.save("s", "k", 1)
        assert client.state.get("s", "k") == 1
        assert repr(client) == "<CloudRuntimesClient runtime=other at :memory:>"
        with pytest.raises(InvalidArgumentError) as caught:
            client.state.get("s", "")
        assert caught.value.runtime == "other"


def test_a_component_by_entry_point(install: Install) -> None:
    install("distribution_of_a_component", components={"mine": "distribution_of_a_component:Mine"})
    folder = Path(components.__file__).parent
    built_in = sorted(path.parent.name for path in folder.glob("[!_]*/__init__.py"))
    assert names(COMPONENTS) == [*built_in, "mine"]
    declared = {"state": {"s": {"component": "mine", "home": ":memory:mine"}}}
    with CloudRuntimesClient(config=declared) as client:
        client.state.save("s", "k", 1)
        assert type(client.state._frame.driver("s")._context).__name__ == "Mine"
    wrong = {"state": {"s": {"component": "mine", "hom": "x"}}}
    with CloudRuntimesClient(config=wrong) as client, pytest.raises(InvalidArgumentError, match="did you mean 'home'"):
        client.state.get("s", "k")


@pytest.mark.promise("H9")
@pytest.mark.parametrize(
    ("group", "name", "built_in"), [(RUNTIMES, "capa", CapaRuntime), (COMPONENTS, "sqlite", SqliteComponent)]
)
def test_a_built_in_cannot_be_replaced(install: Install, group: str, name: str, built_in: type[Any]) -> None:
    points = {name: "distribution_of_a_thief:Mine"}
    install("distribution_of_a_thief", runtimes=points, components=points)
    assert find(group, name) is built_in
    assert names(group).count(name) == 1
    assert "distribution_of_a_thief" not in sys.modules, "it was even imported"


@pytest.mark.parametrize(
    ("module", "target", "message"),
    [
        (
            "raise OSError('no licence')",
            "distribution_of_ruins:Mine",
            r"\(distribution_of_ruins:Mine\) cannot be loaded: no licence",
        ),
        (MODULE, "distribution_of_ruins:Absent", "cannot be loaded: .*Absent"),
        (MODULE, "no_such_module_of_ours:Mine", "cannot be loaded: No module named 'no_such_module_of_ours'"),
        ("import no_such_library_of_ours", "distribution_of_ruins:Mine", "No module named 'no_such_library_of_ours'"),
    ],
)
@pytest.mark.parametrize("group", [RUNTIMES, COMPONENTS])
def test_a_broken_entry_point(install: Install, module: str, target: str, message: str, group: str) -> None:
    install("distribution_of_ruins", module=module, runtimes={"ruin": target}, components={"ruin": target})
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        find(group, "ruin")
    assert "'ruin'" in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("target", ["broken", "__name__", "CapaRuntime"])
def test_an_entry_point_that_is_something_else(install: Install, target: str) -> None:
    install("distribution_of_others", components={"odd": f"distribution_of_others:{target}"})
    with pytest.raises(InvalidArgumentError, match=r"component 'odd' \(distribution_of_others:\w+\) is no Component"):
        find(COMPONENTS, "odd")


def test_a_missing_dependency_names_the_extra(folder: Callable[[str, str], None]) -> None:
    folder("needy", "import no_such_library_of_ours")
    with pytest.raises(UnsupportedError) as caught:
        find(COMPONENTS, "needy")
    assert str(caught.value) == "component 'needy' needs an extra: pip install \".[needy]\" in the checkout"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_another_error_in_a_folder_is_not_hidden(folder: Callable[[str, str], None]) -> None:
    folder("wrong", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        find(COMPONENTS, "wrong")


@pytest.mark.parametrize("name", ["sqlit", "", "../sqlite", "sqlite.engine", "Sqlite", "__init__", "os"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ComponentNotFoundError, match="unknown component"):
        find(COMPONENTS, name)
    with pytest.raises(InvalidArgumentError, match="unknown runtime"):
        find(RUNTIMES, name)


def test_what_is_installed_later_is_found(install: Install) -> None:
    with pytest.raises(ComponentNotFoundError):
        find(COMPONENTS, "late")
    install("distribution_of_late", components={"late": "distribution_of_late:Mine"})
    assert find(COMPONENTS, "late").__name__ == "Mine"


# -- which configuration file counts, where a home lies, and what is not believed

Keep = Callable[[CloudRuntimesClient], CloudRuntimesClient]


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
        status = real(self, **more)
        return os.stat_result((*status[:4], status.st_uid + 5, *status[5:10])) if self == path else status

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
    ("home", "location"),
    [("data", "{}/data"), ("../data", "{}/../data"), ("/abs", "/abs"), ("~/x", "~/x"), (":memory:", ":memory:"), ("redis://h", "redis://h")],
)  # fmt: skip
def test_relative_homes_lie_beside_the_file(project: Path, home: str, location: str) -> None:
    put(project / "cloud-runtimes.toml", f'[capa]\nhome = "{home}"\n[state.s]\ncomponent = "sqlite"\nhome = "{home}"\n')
    tables, _ = config.read(None)
    assert tables["capa"]["home"] == tables["state"]["s"]["home"] == location.format(project)


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
