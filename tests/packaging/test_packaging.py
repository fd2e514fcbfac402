"""The files that other programs read: pyproject, workflows, hooks; each is asked of the program that reads it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_runtimes._core.extras import WHERE, install_line
from tests.packaging.builds import ROOT, run, tool

pytestmark = pytest.mark.process

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def _workflow(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return workflow


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_pyproject_is_valid() -> None:
    """The schemas of scikit-build-core and cibuildwheel take part where these are installed."""
    tool("cibuildwheel")
    done = run(tool("validate-pyproject"), ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_misspelt_setting_of_a_tool_is_found(tmp_path: Path) -> None:
    """The schemas of the tools are really in use."""
    tool("cibuildwheel")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for right, wrong in (("wheel.packages", "wheel.packagess"), ("build-frontend", "build-fronted")):
        broken = tmp_path / "pyproject.toml"
        broken.write_text(text.replace(right, wrong), encoding="utf-8")
        assert run(tool("validate-pyproject"), broken).returncode != 0


def test_the_workflows_are_valid() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "docs.yml", "wheels.yml"]
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actions_are_pinned_by_commit() -> None:
    for path in WORKFLOWS:
        used = re.findall(r"uses: *(.+)", path.read_text(encoding="utf-8"))
        assert used
        for each in used:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), f"{path.name}: {each}"


def test_no_job_of_a_workflow_may_write_unless_it_says_so() -> None:
    expected = {
        "docs.yml": {"publish": {"id-token": "write", "pages": "write"}},
        "wheels.yml": {"publish": {"id-token": "write"}},
    }
    for path in WORKFLOWS:
        workflow = _workflow(path.name)
        assert workflow["permissions"] == {"contents": "read"}
        writes = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
        assert writes == expected.get(path.name, {}), path.name


@pytest.mark.promise("H10")
def test_a_release_is_audited() -> None:
    """Its dependencies by pip-audit before it is published, and its code by the rules of bandit, which ruff has, with each change."""
    jobs = _workflow("wheels.yml")["jobs"]
    assert any("pip-audit" in step.get("run", "") for step in jobs["audit"]["steps"])
    assert "audit" in jobs["publish"]["needs"]
    assert "S" in _pyproject()["tool"]["ruff"]["lint"]["select"]


def test_the_tested_versions_are_the_promised_ones() -> None:
    versions = _workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    promised = [
        each.rpartition(" ")[2] for each in _pyproject()["project"]["classifiers"] if re.search(r":: 3\.\d+$", each)
    ]
    assert versions == promised
    assert _pyproject()["project"]["requires-python"] == f">={versions[0]}"


def test_every_built_wheel_is_a_native_one() -> None:
    """Else a compiler error would be published as a pure wheel."""
    table = _pyproject()["tool"]["cibuildwheel"]
    assert table["environment"]["CLOUD_RUNTIMES_BUILD"] == "native"
    assert table["test-environment"]["CLOUD_RUNTIMES_NATIVE"] == "require"
    for platform in ("linux", "macos", "windows"):  # a table of a platform replaces the common one
        assert table.get(platform, table).get("environment", table["environment"])["CLOUD_RUNTIMES_BUILD"] == "native"


@pytest.mark.parametrize(
    ("platform", "kinds", "archs"),
    [
        ("linux", ["manylinux", "musllinux"], ["x86_64", "aarch64"]),
        ("macos", ["macosx"], ["x86_64", "arm64"]),
        ("windows", ["win"], ["amd64", "arm64"]),
    ],
    ids=["linux", "macos", "windows"],
)
def test_which_wheels_are_built(platform: str, kinds: list[str], archs: list[str]) -> None:
    given = ("--archs", " ".join(archs).upper() if platform == "windows" else " ".join(archs))
    done = run(tool("cibuildwheel"), "--print-build-identifiers", "--platform", platform, *given, ROOT, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    versions = [each.rpartition(" ")[2].replace(".", "") for each in _pyproject()["project"]["classifiers"]]
    identifiers = done.stdout.split()
    expected = [each for each in versions if re.fullmatch(r"3\d+", each)]
    expected += [f"{version}t" for version in expected if version >= "314"]
    assert sorted(identifiers) == sorted(
        f"cp{version}-{kind}_{arch}" for version in expected for kind in kinds for arch in archs
    )


def test_the_wheels_are_tested_with_all_that_the_tests_read() -> None:
    table = _pyproject()["tool"]["cibuildwheel"]
    assert {"tests", "docs", "README.md", "pyproject.toml"} <= set(table["test-sources"])
    for name in table["test-sources"]:
        assert (ROOT / name).exists()


def test_the_hooks_run_what_make_runs_and_name_no_host() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert "://" not in text
    hooks = config["repos"][0]["hooks"]
    assert sorted(hook["id"] for hook in hooks) == ["black", "flake8", "isort", "lint-imports", "mypy", "ruff"]
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(f".venv/bin/{hook['id']}")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        assert f"$(BIN)/{hook['id']}" in makefile


def test_all_is_every_extra_for_users_and_the_readme_tells_of_each() -> None:
    extras = _pyproject()["project"]["optional-dependencies"]
    named = {name: set(re.findall(r"[\w-]+", "".join(each[:1]).partition("[")[2])) for name, each in extras.items()}
    assert named["standard"] == {"cli", "database", "rpc", "schedule"}
    users = set(extras) - {"all", "bench", "dev", "docs", "testing"}
    assert {"standard"} | named["standard"] | named["all"] == users
    assert named["dev"] == {"all", "docs", "testing"}
    install = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Install")[2].partition("\n## ")[0]
    assert install.split("```")[1].strip() == f"{install_line('standard')}  # {WHERE}"
    assert {name for name in users if f"`{name}`" not in install} == set()


def test_the_validators_are_development_dependencies() -> None:
    dev = " ".join(_pyproject()["project"]["optional-dependencies"]["dev"])
    for name in (
        "check-jsonschema",
        "cibuildwheel",
        "validate-pyproject",
        "scikit-build-core",
        "cython-cmake",
        "ninja",
    ):
        assert name in dev
