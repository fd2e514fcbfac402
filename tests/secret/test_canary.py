"""The plugin that fails a run in which a secret leaked, on runs of its own: with leaks of every kind, and without."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_runtimes.errors import BulkError, InternalError
from cloud_runtimes.testing.canary import Canary

CLEAN = """
from cloud_runtimes.errors import PayloadError
from cloud_runtimes.secret import Secret


def test_clean(canary, tmp_path, monkeypatch):
    value = canary.value()
    assert value != canary.value()
    secret = Secret({"a": value})
    print(secret)
    canary.declare(tmp_path / "store").write_text(value)
    (canary.declare(tmp_path / "folder")).mkdir()
    (tmp_path / "folder" / "file").write_text(value)
    (tmp_path / "other").write_text(repr(secret))
    with canary.raises(PayloadError):
        raise PayloadError(f"no {secret}")
"""

COMPARED = """
from cloud_runtimes.secret import Secret


def test_compared(canary):
    one, other = Secret({"a": canary.value()}), Secret({"a": canary.value()})
    assert one == other


def test_searched(canary):
    one = Secret({"a": canary.value()})
    assert "b" in one
"""


# what a test does with the secret `value`, and where the plugin says that it leaked; {test} is the test's name
LEAKS = {
    "a print": ("print(value)", "Captured stdout call of {file}::{test}"),
    "stderr": ("import sys; sys.stderr.write(value)", "Captured stderr call of {file}::{test}"),
    "a descriptor": ("import os; os.write(1, value.encode())", "Captured stdout call of {file}::{test}"),
    "a child": (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', f'print({value!r})'])",
        "Captured stdout call of {file}::{test}",
    ),
    "base64": (
        "import base64; print(base64.b64encode(b'ab' + value.encode() + b'c').decode())",
        "Captured stdout call of {file}::{test}",
    ),
    "hex": ("print(value.encode().hex())", "Captured stdout call of {file}::{test}"),
    "a log": ("import logging; logging.getLogger('x').error('got %s', value)", "a log record of x, line"),
    "a log that is not shown": (
        "import logging; logging.getLogger('cloud_runtimes.y').debug('%r', {'a': value})",
        "a log record of cloud_runtimes.y, line",
    ),
    "a log's extra": (
        "import logging; logging.getLogger('z').error('no', extra={'more': value})",
        "a log record of z, line",
    ),
    "a log of an error": (
        "import logging\n    try:\n        raise OSError(value)\n    except OSError:\n        logging.exception('failed')",
        "a log record of root, line",
    ),
    "a warning": ("import warnings; warnings.warn(value)", "a warning of {file}::{test}"),
    "a failure": ("raise RuntimeError(value)", "the report of {file}::{test}, call"),
    "an argument of a failure": (
        "def inner(given): raise RuntimeError('no')\n    inner(value)",
        "the report of {file}::{test}, call",
    ),
    "a comparison": ("assert value == 'x'", "the report of {file}::{test}, call"),
    "a file": ("(tmp_path / 'f').write_bytes(b'x' * 1048570 + value.encode())", "the file {test}0/f"),
    "a file's name": ("(tmp_path / value).write_text('')", "the name of {test}0/<the secret>"),
    "a property": ("request.node.user_properties.append(('a', value))", "the report of {file}::{test}, call"),
    "a skip": ("pytest.skip(value)", "the report of {file}::{test}, call"),
    "the end of a test": ("request.addfinalizer(lambda: print(value))", "Captured stdout teardown of {file}::{test}"),
    "a later test": (
        "import builtins; builtins.kept = value\n\n\ndef test_later():\n    import builtins; print(builtins.kept)",
        "Captured stdout call of {file}::test_later",
    ),
}


def _run(folder: Path, *tests: str, how: str = "-q") -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text('pytest_plugins = ["cloud_runtimes.testing.canary"]\n')
    for number, text in enumerate(tests):
        (folder / f"test_{number}.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", how, "-p", "no:cacheprovider", "--basetemp", folder / "base", folder],
        capture_output=True,
        text=True,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        timeout=120,
    )


@pytest.mark.process
def test_a_clean_run_passes(tmp_path: Path) -> None:
    done = _run(tmp_path, CLEAN)
    assert done.returncode == 0, done.stdout
    assert "leaked" not in done.stdout


@pytest.mark.promise("H7")
@pytest.mark.process
def test_leaks_are_found(tmp_path: Path, subtests: pytest.Subtests) -> None:
    tests = [
        f"def test_leak_{number}(canary, tmp_path, request):\n    value = canary.value()\n    {code}\n"
        for number, (code, _) in enumerate(LEAKS.values())
    ]
    said = _run(tmp_path, CLEAN, "\n\n".join(["import pytest\n", *tests])).stdout
    assert "test_clean" not in said
    for number, (leak, (_, where)) in enumerate(LEAKS.items()):
        with subtests.test(leak=leak):
            assert f"\na secret leaked: {where.format(file='test_1.py', test=f'test_leak_{number}')}" in said


@pytest.mark.process
@pytest.mark.parametrize("how", ["-q", "-n1"])
def test_a_leak_of_a_passing_test_fails_the_run(tmp_path: Path, how: str) -> None:
    done = _run(tmp_path, CLEAN, "def test_leak(canary):\n    print(canary.value())\n", how=how)
    assert done.returncode == 1
    assert "2 passed" in done.stdout
    assert done.stdout.count("a secret leaked") == 1


@pytest.mark.process
def test_a_failed_comparison_of_secrets_shows_none(tmp_path: Path) -> None:
    done = _run(tmp_path, COMPARED, how="-vv")
    assert "2 failed" in done.stdout
    assert "<Secret: 'a'> == <Secret: 'a'>" in done.stdout
    assert "leaked" not in done.stdout


@pytest.mark.process
def test_nothing_is_done_without_secrets(tmp_path: Path) -> None:
    done = _run(tmp_path, "def test_plain():\n    print('canary')\n")
    assert done.returncode == 0


# -- what looks through errors --------------------------------------------------


def _chained(value: str) -> None:
    try:
        raise KeyError(value)
    except KeyError:
        raise InternalError("no") from None


def _caused(value: str) -> None:
    error = InternalError("no")
    error.__cause__ = ValueError("x", {"a": [value]})
    raise error


def _attribute(value: str) -> None:
    error = InternalError("no")
    error.document = value  # type: ignore[attr-defined]
    raise error


def _noted(value: str) -> None:
    error = InternalError("no")
    error.add_note(f"see {value}")
    raise error


def _bulk(value: str) -> None:
    raise BulkError("no", failed={"a": InternalError(value)})


def _result(value: str) -> None:
    raise BulkError("no", failed={"a": InternalError("no")}, result={"a": value})


def _group(value: str) -> None:
    raise ExceptionGroup("no", [ValueError("a"), ExceptionGroup("b", [ValueError(value)])])


@pytest.mark.parametrize("leak", [_chained, _caused, _attribute, _noted, _bulk, _result, _group])
def test_an_error_that_shows_one(leak: object, tmp_path: Path) -> None:
    # a canary of this test's own: that of the run would be a leak
    canary = Canary()
    with pytest.raises(pytest.fail.Exception, match="shows a secret"):
        with canary.raises(Exception, match="no"):
            leak(canary.value())  # type: ignore[operator]


def test_a_frame_that_holds_one() -> None:
    canary = Canary()
    source = "def read(value):\n    raise ValueError('no')\n"
    for module, leaks in (("cloud_runtimes.components.x", True), ("cloud_runtimes.testing.x", False), ("tests", False)):
        names = {"__name__": module}
        exec(compile(source, "<source>", "exec"), names)
        if leaks:
            with pytest.raises(pytest.fail.Exception, match="the variable value of read"), canary.raises(ValueError):
                names["read"](canary.value())  # type: ignore[operator]
        else:
            with canary.raises(ValueError):
                names["read"](canary.value())  # type: ignore[operator]


def test_the_frames_below_ours_count_too() -> None:
    canary = Canary()
    names = {"__name__": "cloud_runtimes.x", "parse": __import__("json").loads}
    exec("def read(text):\n    made = parse(text.pop())\n", names)
    with pytest.raises(pytest.fail.Exception, match="shows a secret"), canary.raises(ValueError):
        names["read"]([f"{canary.value()}"])  # type: ignore[operator]


def test_what_counts_as_shown() -> None:
    canary = Canary()
    value = canary.value()
    shown = [value, f"a{value}b", value.encode(), [value], {"a": value}, value.encode().hex()]
    shown += [base64.b64encode(b"x" * n + value.encode()) for n in range(4)]
    assert all(map(canary.shows, shown))
    hidden = ["", b"", None, value[:-20], value.upper(), "canary", Canary().value()]
    assert not any(map(canary.shows, hidden))
    assert not canary.leaks


def test_a_leak_does_not_repeat_the_secret() -> None:
    canary = Canary()
    canary.look(f"the file {canary.value()}", canary.value())
    assert canary.leaks == ["the file <the secret>-1"]
