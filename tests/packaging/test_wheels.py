"""The wheels and the source distribution: what is in them, what they do, and what becomes of a build that fails."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.packaging.builds import ROOT, built, compiler, copied, doctor, environment, installed, pip_wheel, run, tool

pytestmark = pytest.mark.process

KERNELS = ["_batch", "_events", "_msgpack", "_payload", "_telemetry"]
SOURCE_SUFFIXES = (".pyx", ".pxd", ".pxi", ".c", ".cpp", ".h", ".html", ".pyc")


def _names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def _text(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (each for each in archive.namelist() if each.endswith(f".dist-info/{name}"))
        return archive.read(path).decode("utf-8")


def _python_files() -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / "cloud_runtimes").rglob("*.py")}


def _page_files() -> set[str]:
    """The page of `cloud-runtimes telemetry serve`."""
    files = {str(p.relative_to(ROOT)) for p in (ROOT / "cloud_runtimes/dashboard/page").iterdir()}
    assert "cloud_runtimes/dashboard/page/app.js" in files
    return files


def _failure_message() -> str:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    message: str = table["tool"]["scikit-build"]["messages"]["after-failure"]
    return message


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool("cmake")
    compiler()
    # what the tests run on was compiled with optimisation, which takes twice as long
    unoptimised = environment("native", SKBUILD_CMAKE_BUILD_TYPE="None")
    return built(ROOT, tmp_path_factory.mktemp("native") / "dist", unoptimised)


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    """Return variables for an environment without a compiler: cmake and ninja stay, nothing else is on the path.

    CMake also looks into the system's folders, hence ``CC``.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cmake", "ninja"):
        (folder / name).symlink_to(tool(name))
    missing = str(folder / "no-compiler")
    return {"PATH": str(folder), "CC": missing, "CXX": missing}


def test_the_pure_wheel(pure: Path) -> None:
    assert pure.name.endswith("-py3-none-any.whl")
    names = _names(pure)
    assert not [name for name in names if name.endswith((".so", ".pyd", *SOURCE_SUFFIXES))]
    assert "cloud_runtimes/py.typed" in names
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert {name for name in names if name.endswith(".py")} == _python_files()
    assert _page_files() <= set(names)
    assert not [name for name in names if not name.startswith(("cloud_runtimes/", "cloud_runtimes_python-"))]


def test_the_metadata(pure: Path) -> None:
    metadata = Parser().parsestr(_text(pure, "METADATA"))
    assert metadata["Name"] == "cloud-runtimes-python"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert f'__version__ = "{metadata["Version"]}"' in (ROOT / "cloud_runtimes" / "_version.py").read_text("utf-8")
    required = [each for each in metadata.get_all("Requires-Dist") or [] if "extra ==" not in each]
    assert [re.split("[<>]", each)[0] for each in required] == ["orjson", "msgpack"]
    assert "cloud-runtimes = cloud_runtimes.cli:main" in _text(pure, "entry_points.txt")


def test_the_pure_wheel_works_with_nothing_else_installed(pure: Path, tmp_path: Path) -> None:
    folder = installed(pure, tmp_path / "site")
    done = doctor(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Python fallback" in done.stdout
    assert "standard library" in done.stdout  # no orjson either
    required = doctor(folder, CLOUD_RUNTIMES_NATIVE="require")
    assert required.returncode != 0


def test_the_native_wheel(native: Path, tmp_path: Path) -> None:
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{version}-{version}" in native.name
    names = _names(native)
    assert not [name for name in names if name.endswith(SOURCE_SUFFIXES)]
    modules = sorted(Path(name).name.split(".")[0] for name in names if name.endswith(".so"))
    assert modules == KERNELS
    assert {str(Path(name).parent) for name in names if name.endswith(".so")} == {"cloud_runtimes/_native"}
    assert {name for name in names if name.endswith(".py")} == _python_files()
    assert _page_files() <= set(names)
    done = doctor(installed(native, tmp_path / "site"), CLOUD_RUNTIMES_NATIVE="require")
    assert (done.returncode, done.stderr) == (0, "")
    assert "native: compiled kernels loaded" in done.stdout


def test_without_a_compiler_the_wheel_is_pure(no_compiler: dict[str, str], tmp_path: Path) -> None:
    wheel = built(ROOT, tmp_path / "dist", environment(None, **no_compiler))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in _names(wheel) if name.endswith(".so")]


def test_without_a_compiler_native_fails_with_the_remedy(no_compiler: dict[str, str], tmp_path: Path) -> None:
    done = pip_wheel(ROOT, tmp_path / "dist", environment("native", **no_compiler))
    assert done.returncode != 0
    assert _failure_message() in done.stdout + done.stderr
    assert (
        "no-compiler" in done.stdout + done.stderr
    )  # CMake names what it looked for, in words that vary with its version
    assert not list(tmp_path.glob("dist/*.whl"))


def test_an_error_in_a_kernel_is_no_silent_pure_wheel(tmp_path: Path) -> None:
    tool("cmake")
    compiler()
    source = copied(tmp_path / "source")
    for kernel in (source / "src_ext").glob("*.pyx"):  # else those that are whole are built meanwhile
        kernel.write_text("cdef int broken(:\n", encoding="utf-8")
    done = pip_wheel(source, tmp_path / "dist", environment("native"))
    assert done.returncode != 0
    assert "cdef int broken(:" in done.stdout + done.stderr  # for this reason and no other
    assert not list(tmp_path.glob("dist/*.whl"))


def test_the_source_distribution_builds_and_has_what_a_packager_needs(pure: Path, tmp_path: Path) -> None:
    hook = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    done = run(sys.executable, "-c", hook, tmp_path / "dist", env=environment("pure"), cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    assert archive.name == pure.name.replace("-py3-none-any.whl", ".tar.gz")
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python < 3.11.4 has none
        tar.extractall(tmp_path)
    (source,) = (path for path in tmp_path.iterdir() if path.name.startswith("cloud_runtimes_python-"))
    kept = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    for folder in ("cloud_runtimes", "src_ext", "tests", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".so", ".c", ".html"):
                assert str(path.relative_to(ROOT)) in kept
    assert {"CMakeLists.txt", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "README.md"} <= kept
    assert not [name for name in kept if name.endswith((".so", ".c", ".pyc"))]
    wheel = built(source, tmp_path / "wheel", environment("pure"))
    assert sorted(_names(wheel)) == sorted(_names(pure))
    shutil.rmtree(source)
