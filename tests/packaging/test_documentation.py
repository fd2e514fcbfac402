"""The documentation says what is so: its programs run, its configurations load, its names exist, its links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient, config, errors, registry
from cloud_runtimes.client import SERVICES
from cloud_runtimes.resiliency import settings as resiliency
from cloud_runtimes.spi.executor import Executor
from cloud_runtimes.telemetry import settings as telemetry
from tests.packaging.builds import ROOT
from tests.packaging.programs import ELSEWHERE, blocks, check_program, programs
from tests.support import commands

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))),
]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def _page(path: str) -> str:
    file = ROOT / path
    if not file.exists():
        pytest.skip(f"{path} is not among the test's files")
    return file.read_text(encoding="utf-8")


def _blocks(path: str, language: str) -> list[str]:
    _page(path)
    examples = blocks(ROOT / path, language)
    assert examples
    return examples


PROGRAMS = [
    pytest.param(text, id=f"{path}-{number}")
    for path in PAGES
    if path not in ELSEWHERE
    for number, text in enumerate(programs(path))
]


@pytest.mark.process
@pytest.mark.parametrize("text", PROGRAMS)
def test_the_programs_run(text: str, tmp_path: Path) -> None:
    for _ in range(2):  # once more over what the first run has left
        check_program(sys.executable, text, tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "docs/configuration.md",
        *(path for path in PAGES if path.startswith("docs/components/") and "```toml" in _page(path)),
        "docs/how-to/choose-a-component.md",
        "docs/how-to/resiliency.md",
        "docs/how-to/telemetry.md",
    ],
)
def test_the_configurations_load(path: str) -> None:
    for text in _blocks(path, "toml"):
        table = tomllib.loads(text)
        executor = Executor()
        settings = config.load(
            table,
            services=SERVICES,
            endpoint=None,
            timeout=config.DEFAULT_TIMEOUT,
            runtime=None,
            app_id=None,
            api_token=None,
        )
        assert settings.runtime == "capa"
        runtime = registry.find(registry.RUNTIMES, "capa")(settings, executor)
        try:
            for service, name in runtime.declared():
                runtime.driver(service, name)
        finally:
            runtime.close(None)
        telemetry.load(table.get("telemetry", {}), path)
        if "file" not in table.get("resiliency", {}):
            resiliency.load(table.get("resiliency", {}), path, SERVICES, "shop")
        assert runtime.declared() or {"capa", "telemetry", "resiliency", "requires"} & set(table)


def test_a_path_goes_before_the_home_of_capa(tmp_path: Path) -> None:
    table = {
        "capa": {"home": str(tmp_path / "home")},
        "state": {"here": {"component": "sqlite", "path": str(tmp_path / "a.db")}, "there": {"component": "sqlite"}},
    }
    with CloudRuntimesClient(config=table) as client:
        client.state.save("here", "k", 1)
        client.state.save("there", "k", 2)
    assert (tmp_path / "a.db").exists()
    assert (tmp_path / "home" / "cloud_runtimes.db").exists()


def test_every_environment_variable_is_described() -> None:
    page = _page("docs/configuration.md")
    package = Path(inspect.getfile(CloudRuntimesClient)).parent
    names = {"CLOUD_RUNTIMES_BUILD"}  # read by the build
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(
                    re.findall(r"\b(?:CLOUD_RUNTIMES|LAYOTTO|DAPR)_[A-Z]+(?:_[A-Z]+)*\b|\bAPP_ID\b", node.value)
                )
    assert {"APP_ID", "CLOUD_RUNTIMES_HOME", "CLOUD_RUNTIMES_NATIVE", "DAPR_API_TOKEN"} <= names
    # reasons of Dapr's refusals, which look like variables
    names = {name for name in names if not name.startswith(("DAPR_PUBSUB_", "DAPR_SCHEDULER_", "DAPR_STATE_"))}
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_argument_of_the_client_and_key_of_the_file_is_described() -> None:
    page = _page("docs/configuration.md")
    for name in inspect.signature(CloudRuntimesClient).parameters:
        assert re.search(rf"^\| `{name}` \|", page, re.MULTILINE), name
    for name in config._TOP_LEVEL:
        assert re.search(rf"^\| `\w+` \| `{name}` \|", page, re.MULTILINE), name


def test_the_commands_are_described() -> None:
    assert _page("docs/reference/commands.md") == commands.render(), "make docs"


def test_every_error_is_described() -> None:
    rows = dict(re.findall(r"^\| `(\w+)`(?:[^|]*\|){3} ([^|]*) \|$", _page("docs/errors.md"), re.MULTILINE))
    for name in set(errors.__all__) - {"CloudRuntimesError"}:
        assert f"`{getattr(errors, name).code}`" in rows[name], name


def test_links_lead_somewhere(subtests: pytest.Subtests) -> None:
    _page("Makefile")  # else not all files are there
    for path in PAGES:
        with subtests.test(path=path):
            for target in LINK.findall(_page(path)):
                if "://" not in target:
                    assert (ROOT / path).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md"])
def test_the_targets_of_make_exist(path: str) -> None:
    makefile = _page("Makefile")
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", _page(path), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_page_is_reached_from_the_index() -> None:
    _page("docs/index.md")
    reached, ahead = set(), [ROOT / "docs" / "index.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            linked = (page.parent / target).resolve()
            if linked.name == "index.md" and linked not in reached:
                ahead.append(linked)
            reached.add(linked)
    assert set((ROOT / "docs").rglob("*.md")) - reached == set()
