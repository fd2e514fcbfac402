"""How the packaging tests build: with the tools of this environment, never into the tree, and without a network but for `fresh`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = ["pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", ".gitignore", "cloud_runtimes", "src_ext"]

Done = subprocess.CompletedProcess[str]


def tool(name: str) -> str:
    """Return the path of a tool; without it the test is skipped, in CI it fails."""
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        reason = f'{name} is not installed: pip install -e ".[dev]"'
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def compiler() -> None:
    """Skip the test where no C compiler is; in CI it fails."""
    named = (os.environ.get("CC") or "cc").split()[0]
    if not any(shutil.which(name) for name in (named, "cc", "gcc", "clang")):
        reason = "no C compiler is installed: apt-get install gcc"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 120) -> Done:
    """Run a command; what it writes is in the result."""
    return subprocess.run(
        [str(each) for each in command], env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout
    )


def environment(mode: str | None, **more: str) -> dict[str, str]:
    """Return this environment with ``CLOUD_RUNTIMES_BUILD`` set, or unset, and none of the other variables of ours."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUD_RUNTIMES_", "PYTHON"))}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", "PIP_NO_COMPILE": "1", "PIP_NO_INPUT": "1"}
    return env | ({} if mode is None else {"CLOUD_RUNTIMES_BUILD": mode}) | more


def pip_wheel(source: Path, folder: Path, env: dict[str, str]) -> Done:
    """Build a wheel of ``source`` into ``folder``."""
    command = (sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "-w", folder)
    return run(*command, env=env, cwd=folder.parent, timeout=240)  # a compiler beside other tests


def built(source: Path, folder: Path, env: dict[str, str]) -> Path:
    """Build a wheel that must succeed, and return its file."""
    done = pip_wheel(source, folder, env)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel as pip installs it, without its dependencies."""
    done = run(
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--target", folder, wheel),
        env=environment(None),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def fresh(folder: Path, *requirements: str | Path) -> Path:
    """Make a virtual environment with requirements, and what they require, from the index; return its ``python``."""
    venv.create(folder, symlinks=True)
    done = run(pip_of(folder), "install", "--quiet", *requirements, env=environment(None, PIP_NO_INDEX="0"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin" / "python"


def pip_of(folder: Path) -> Path:
    """Write the ``pip`` of a virtual environment: uv, in a tenth of the time, or pip where that does not reach the index as pip does."""
    pip, python, ours = folder / "bin" / "pip", folder / "bin" / "python", Path(sys.executable)
    pip.write_text(f"""#!/bin/sh
UV_SYSTEM_CERTS=1 UV_FIND_LINKS="$PIP_FIND_LINKS" PATH="{ours.parent}:$PATH" uv pip "$@" --python "{python}" 2>/dev/null ||
exec "{ours}" -m pip --python "{python}" "$@"
""")
    pip.chmod(0o755)
    return pip


def doctor(folder: Path, **more: str) -> Done:
    """Run ``doctor`` with what is in ``folder`` and the standard library: neither the tree nor site-packages are seen."""
    env = environment(None, PYTHONPATH=str(folder), CLOUD_RUNTIMES_HOME=":memory:", **more)
    return run(sys.executable, "-S", "-P", "-W", "error", "-m", "cloud_runtimes", "doctor", env=env, cwd=folder)


def copied(folder: Path) -> Path:
    """Copy what a build needs."""
    folder.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, folder / name)
    return folder
