"""Which front runs, what it prints, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import cloud_runtimes

_BLOCK = "import sys\nsys.modules['typer'] = None\nsys.modules['rich'] = None\n"


def _process(folder: Path, *argv: str, bare: bool = False) -> subprocess.CompletedProcess[str]:
    environment = os.environ.copy()
    if bare:
        (folder / "sitecustomize.py").write_text(_BLOCK)
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(folder), str(Path(cloud_runtimes.__file__).parent.parent), environment.get("PYTHONPATH", "")]
        )
    return subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=60)


def test_version(cli: Any) -> None:
    assert cli("--version") == (0, f"cloud-runtimes {cloud_runtimes.__version__}\n".encode(), "")


def test_help_names_every_command(cli: Any) -> None:
    result = cli("--help")
    assert result.code == 0
    for command in (
        b"doctor",
        b"publish",
        b"subscribe",
        b"state",
        b"lock",
        b"sql",
        b"schedule",
        b"--config",
        b"--app-id",
        b"--timeout",
    ):
        assert command in result.out


def test_no_command_shows_the_help(cli: Any) -> None:
    result = cli()
    assert result.code == 2
    assert result.out == b""
    assert "Commands:" in result.err


@pytest.mark.parametrize(
    "argv", [("nonsense",), ("publish",), ("publish", "a", "b", "--linger", "x"), ("--nonsense", "doctor")]
)
def test_wrong_usage_is_one_line(cli: Any, argv: tuple[str, ...]) -> None:
    result = cli(*argv)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


def test_debug_raises(cli: Any) -> None:
    with pytest.raises(cloud_runtimes.errors.InvalidArgumentError, match="unknown runtime"):
        cli("--debug", "--runtime", "nonsense", "state", "get", "s", "k")


@pytest.mark.process
def test_importing_it_is_light(home: Path, tmp_path: Path) -> None:
    code = "import sys, cloud_runtimes.cli\nsys.exit(bool({'typer', 'rich', 'sqlite3', 'logging'} & set(sys.modules)))"
    assert _process(tmp_path, "-c", code).returncode == 0


@pytest.mark.process
def test_without_the_extra_doctor_works(home: Path, tmp_path: Path) -> None:
    result = _process(tmp_path, "-m", "cloud_runtimes", "--timeout", "5", "doctor", bare=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "sqlite" in result.stdout
    assert str(home) in result.stdout


@pytest.mark.process
@pytest.mark.parametrize("argv", [(), ("publish", "bus", "topic", "--raw-lines")], ids=["none", "publish"])
def test_without_the_extra_the_others_say_what_they_need(home: Path, tmp_path: Path, argv: Sequence[str]) -> None:
    result = _process(tmp_path, "-m", "cloud_runtimes", *argv, bare=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == 'error: this command needs an extra: pip install ".[cli]" in the checkout\n'


@pytest.mark.parametrize(
    ("argv", "code"), [(["--version"], 0), (["--help"], 0), (["--nonsense"], 2), (["doctor", "--nonsense"], 2)]
)
def test_the_bare_front(home: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int) -> None:
    from cloud_runtimes.cli._bare import run
    from cloud_runtimes.cli._session import Invocation

    assert run(argv, Invocation()) == code
    out, err = capsys.readouterr()
    assert bool(out) is (code == 0)
    assert bool(err) is (code != 0)


@pytest.mark.parametrize(
    "argv",
    [
        ("schedule", "list", "--app-id", "other"),
        ("schedule", "list", "--app-id=other"),
        ("schedule", "--app-id", "other", "list"),
        ("--timeout", "20", "schedule", "list", "--debug", "--app-id", "other"),
    ],
)
def test_options_of_the_program_may_stand_behind_the_command(cli: Any, argv: tuple[str, ...]) -> None:
    assert cli("--app-id", "other", "schedule", "add", "nightly", "--schedule", "0 3 * * *").code == 0
    result = cli(*argv)
    assert (result.code, b"nightly" in result.out, result.err) == (0, True, "")
    assert cli("schedule", "list").out.count(b"nightly") == 0


def test_what_is_behind_the_separator_stays(cli: Any) -> None:
    result = cli("lock", "run", "l", "r", "--", sys.executable, "-c", "import sys; sys.exit(len(sys.argv))", "--app-id")
    assert result.code == 2
    assert result.err == ""


@pytest.mark.parametrize(
    "argv",
    [("schedule", "list", "--app-idd", "x"), ("schedule", "list", "--app-id"), ("schedule", "lits", "--app-id", "x")],
)
def test_what_cannot_be_moved_is_told(cli: Any, argv: tuple[str, ...]) -> None:
    result = cli(*argv)
    assert (result.code, result.out, result.err.count("\n")) == (2, b"", 1)


_INTERRUPTED = """
import sys
from cloud_runtimes.cli import main

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
sys.exit(main(["doctor"]))
"""


@pytest.mark.process
@pytest.mark.parametrize("module", ["_errors", "_session", "_app", "_doctor"])
def test_an_interrupt_while_modules_are_imported(home: Path, tmp_path: Path, module: str) -> None:
    result = _process(tmp_path, "-c", _INTERRUPTED.format(module=f"cloud_runtimes.cli.{module}"))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
