"""Which front runs, what it prints and what importing it costs; tables, hints and completion on a terminal; errors as a line and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import cloud_runtimes
from cloud_runtimes import CloudRuntimesClient, errors
from cloud_runtimes.cli._errors import UsageError, exit_code, explain
from cloud_runtimes.cli._tables import Table

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


# -- what a person sees: tables on a terminal, hints, completion, and words of the command line

BOLD = b"\x1b[1m"


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def stored(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ID", "test")  # jobs belong to it
    client.schedule.schedule_job("nightly", schedule="@daily", data={"id": 7})
    client.configuration.save_configuration("app", {"limit": "5"})
    client.file.put_file("docs", "a.txt", b"text", content_type="text/plain")
    client.state.save("orders", LONG, {"total": 12.5})
    client.pubsub.publish("bus", "orders", {"id": 7}, key="7")


LONG = "key-" * 25

COMMANDS = [
    (("schedule", "list"), [b"name", b"schedule", b"next_run", b"target", b"data"], b'{"id":7}'),
    (("config", "get", "app", "--items"), [b"key", b"value", b"version", b"group", b"label"], b"limit"),
    (("config", "watch", "app", "--count", "1"), [b"key", b"value", b"version", b"group", b"label"], b"limit"),
    (
        ("subscribe", "bus", "orders", "--start", "earliest", "--count", "1"),
        [b"time", b"key", b"data"],
        b'7    {"id":7}',
    ),
    (("file", "ls", "docs"), [b"size", b"modified", b"content_type", b"name"], b"text/plain"),
    (("state", "list", "orders"), [b"key"], LONG.encode()),
]


@pytest.mark.parametrize(("argv", "columns", "cell"), COMMANDS, ids=lambda value: str(value)[:30])
def test_tables(cli: Any, stored: None, monkeypatch: pytest.MonkeyPatch, argv: Any, columns: Any, cell: bytes) -> None:
    on_a_terminal(monkeypatch)
    code, out, err = cli(*argv)
    head, rule, *lines = out.splitlines()
    assert (code, err, head.removeprefix(BOLD).removesuffix(b"\x1b[0m").split()) == (0, "", columns)
    assert (set(rule) - set(b" "), len(lines), cell in lines[0]) == (set(b"-"), 1, True)
    assert head.startswith(BOLD)


@pytest.mark.parametrize(("argv", "columns", "cell"), COMMANDS[:4], ids=lambda value: str(value)[:30])
def test_a_pipe_gets_json(cli: Any, stored: None, argv: Any, columns: Any, cell: bytes) -> None:
    (line,) = cli(*argv).lines
    assert {name.decode() for name in columns} - {"key"} <= set(json.loads(line))
    assert cell.split()[-1] in line.replace(b"\\", b"")


RECORDS = [
    (("state", "get", "orders", LONG, "--item"), b'{"total":12.5}'),
    (("config", "get", "app", "limit", "limit"), b"5"),
    (("file", "stat", "docs", "a.txt"), b"text/plain"),
]


@pytest.mark.parametrize(("argv", "value"), RECORDS, ids=lambda value: str(value)[:30])
def test_fields(cli: Any, stored: None, monkeypatch: pytest.MonkeyPatch, argv: Any, value: bytes) -> None:
    (line,) = cli(*argv).lines
    fields = json.loads(line)
    on_a_terminal(monkeypatch)
    head, _, *lines = cli(*argv).lines
    assert head.startswith(BOLD)
    assert [each.split()[0].decode() for each in lines] == list(fields)
    assert any(each.endswith(b" " + value) for each in lines)


def test_a_table_that_comes_in_parts_has_one_head(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    table = Table(("key", "data"))
    first, then = table.render([["a", "x" * 99]]), table.render([["longer key", "y" * 99]])
    assert first == [
        f"{BOLD.decode()}key  data{' ' * 31}".rstrip() + "\x1b[0m",
        "---  " + "-" * 35,
        "a    " + "x" * 34 + "…",
    ]
    assert then == ["longer key  " + "y" * 27 + "…"]


def test_doctor_and_errors_have_colours(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = cli("doctor").out
    (head,) = (line for line in out.splitlines() if line.startswith(BOLD))
    assert head.removeprefix(BOLD).split() == [b"component", b"service", b"features\x1b[0m"]
    assert out.startswith(b"ready           \x1b[32myes\x1b[0m\n")
    assert cli("state", "get", "orders", "none").err.startswith("\x1b[31merror:\x1b[0m no key")


def test_no_color(cli: Any, stored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\x1b" not in cli("schedule", "list").out


def test_it_says_that_it_waits(cli: Any) -> None:
    code, out, err = cli("subscribe", "bus", "quiet", "--idle", "1.5")
    assert (code, out, err) == (0, b"", "waiting for events of bus/quiet; Ctrl-C ends\n")


@pytest.mark.parametrize("value", ['{"a": 1', "[1, 2", '"text', '{"a": nan}'])
def test_broken_json_is_no_text(cli: Any, client: CloudRuntimesClient, value: str) -> None:
    code, out, err = cli("state", "save", "orders", "k", value)
    assert (code, out, "not JSON" in err, "--text takes it as it is" in err) == (2, b"", True, True)
    assert client.state.get("orders", "k") is None
    assert cli("state", "save", "orders", "k", value, "--text").code == 0
    assert client.state.get("orders", "k") == value


def test_messages_speak_the_command_line(cli: Any) -> None:
    assert "file ls shows what there is" in cli("file", "get", "docs", "nothing").err


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    environment = {**os.environ, "COMP_WORDS": "cloud-runtimes sta", "COMP_CWORD": "1"}
    environment |= {"_TYPER_COMPLETE_ARGS": "cloud-runtimes sta", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment["_CLOUD_RUNTIMES_COMPLETE"] = f"complete_{shell}"
    done = subprocess.run([sys.executable, "-m", "cloud_runtimes"], env=environment, capture_output=True, text=True)
    directories = {
        "bash": "state",
        "zsh": """_arguments '*: :(("state":"Read and write keys."))'""",
        "fish": "state\tRead and write keys.",
    }
    assert done.stdout.strip() == directories[shell]


# -- errors → a line and an exit code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgumentError("x"), 2),
        (errors.PayloadError("x"), 1),
        (errors.ComponentNotFoundError("x"), 2),
        (UsageError("x"), 2),
        (errors.NotFoundError("x"), 3),
        (errors.MissingFileError("x"), 3),
        (errors.ConflictError("x"), 4),
        (errors.AlreadyExistsError("x"), 4),
        (errors.UnavailableError("x"), 5),
        (errors.DeadlineExceededError("x"), 5),
        (errors.UnsupportedError("x"), 1),
        (errors.InternalError("x"), 1),
        (errors.BulkError("x", failed={1: errors.UnavailableError("y")}), 5),
        (errors.BulkError("x", failed={1: errors.UnavailableError("y"), 2: errors.ConflictError("z")}), 1),
        (OSError(13, "no", "file"), 1),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code
    assert explain(error)


def test_one_line() -> None:
    assert explain(errors.InternalError("a\n  b")) == "a b"
    assert explain(OSError(13, "no", "file")) == "file: no"
    assert explain(ZeroDivisionError("x")) == "ZeroDivisionError: x (--debug shows where)"
