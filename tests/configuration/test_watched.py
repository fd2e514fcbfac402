"""When a file counts as whole, and what is kept while it does not: real files, on a clock that the test sets forward."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.components.config_file import configuration
from cloud_runtimes.components.config_file import watched as module
from cloud_runtimes.components.config_file.configuration import ConfigurationFile
from cloud_runtimes.components.config_file.watched import LONGEST, QUIET, fresh
from cloud_runtimes.errors import (
    CloudRuntimesError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.toml"


@pytest.fixture
def watched(path: Path, clocks: Any) -> ConfigurationFile:
    return ConfigurationFile(path, ".toml", clocks)


def look(watched: ConfigurationFile) -> tuple[Mapping[str, str] | None, float]:
    """Look once; return the values, and when to look again."""
    result = watched.look()
    return result.value, result.again_in


def problem(watched: ConfigurationFile) -> CloudRuntimesError | None:
    """Return what is wrong with the file."""
    return watched.look().problem


def quiet(watched: ConfigurationFile, clocks: Any, seconds: float = 1.1 * QUIET) -> Mapping[str, str]:
    """Look, let time pass, look again; return the values."""
    watched.look()
    clocks.passed += seconds
    result = watched.look()
    assert result.value is not None, result.problem
    return result.value


def test_a_new_file_is_read_once_it_is_quiet(path: Path, watched: ConfigurationFile, clocks: Any) -> None:
    clocks.write(path, "x = 1")
    for _ in range(2):
        values, again_in = look(watched)
        assert values is None
        assert 0 < again_in <= QUIET
        clocks.passed += 0.55 * QUIET
    values, again_in = look(watched)
    assert values is not None
    assert (values, again_in, problem(watched)) == ({"x": "1"}, 0.0, None)


def test_an_old_file_is_read_at_once(path: Path, watched: ConfigurationFile, clocks: Any) -> None:
    clocks.write(path, "x = 1")
    clocks.passed = 10
    values, again_in = look(watched)
    assert values is not None
    assert (values, again_in) == ({"x": "1"}, 0.0)


def test_a_valid_beginning_is_not_taken(path: Path, watched: ConfigurationFile, clocks: Any) -> None:
    clocks.write(path, "x = 1\ny = 1\n")
    first = quiet(watched, clocks)
    assert first == {"x": "1", "y": "1"}
    with path.open("w") as file:  # cut, and written anew in two goes
        for line in ("x = 2\n", "y = 2\n"):
            file.write(line)
            file.flush()
            clocks.set(path)
            values, again_in = look(watched)
            assert 0 < again_in <= QUIET
            assert values is not None
            assert values == {"x": "1", "y": "1"}
            clocks.passed += QUIET / 2
    values, _ = look(watched)
    assert values is not None
    assert values is first, "no change of values"
    assert quiet(watched, clocks) == {"x": "2", "y": "2"}


@pytest.mark.parametrize("text", ["", "  \n", "x = ", "x = 1\nx = 2", "[a", "\0", "a = 'ü"])
def test_what_is_empty_or_broken_changes_nothing(
    path: Path, watched: ConfigurationFile, clocks: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    clocks.write(path, text)
    with caplog.at_level(logging.WARNING, "cloud_runtimes"):
        assert quiet(watched, clocks) == {"x": "1"}
    assert caplog.records == [], "for a moment that is nothing to speak of"
    assert isinstance(problem(watched), UnavailableError if not text.strip() else InvalidArgumentError)
    assert str(path) in str(problem(watched))
    clocks.write(path, "x = 2")
    assert quiet(watched, clocks) == {"x": "2"}
    assert problem(watched) is None
    clocks.write(path, text)
    assert quiet(watched, clocks) == {"x": "2"}
    clocks.write(path, "x = 2")  # as it was
    assert quiet(watched, clocks) == {"x": "2"}
    assert problem(watched) is None


def test_it_is_said_once_a_minute(
    path: Path, watched: ConfigurationFile, clocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(configuration, "repeated", lambda key, message, *arguments: said.append(message % arguments))
    clocks.write(path, "x = 1")
    quiet(watched, clocks)
    clocks.write(path, "")
    for _ in range(600):
        clocks.passed += 0.25
        watched.look()
    assert len(said) == 3, "after a second, and twice in the 149 that follow"
    assert said[0].startswith(f"{path} is empty")
    assert said[0].endswith("its last good values are kept")


def test_nothing_is_said_without_values_to_keep(path: Path, watched: ConfigurationFile, clocks: Any) -> None:
    """There the call raises, which says it."""
    for _ in range(20):
        clocks.passed += 1
        assert look(watched) == (None, 0.0)
    error = problem(watched)
    assert isinstance(error, UnavailableError)
    assert isinstance(error.__cause__, FileNotFoundError)
    mine = fresh(error)
    assert mine is not error, "each raises one of its own"
    assert (type(mine), str(mine), mine.__cause__) == (type(error), str(error), error.__cause__)
    assert error.__traceback__ is None
    assert error.__cause__.__traceback__ is None, "what is kept holds no frames"


def test_deleted_and_made_again(path: Path, watched: ConfigurationFile, clocks: Any) -> None:
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    path.unlink()
    assert quiet(watched, clocks) == {"x": "1"}
    assert "does not exist" in str(problem(watched))
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    assert problem(watched) is None
    path.unlink()
    watched.look()
    clocks.write(path, "y = 1")
    assert quiet(watched, clocks) == {"y": "1"}


def test_renamed_over(path: Path, watched: ConfigurationFile, clocks: Any, tmp_path: Path) -> None:
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    (tmp_path / "new").write_text("x = 2")
    os.utime(tmp_path / "new", (1, 1))  # a time of modification of long ago
    (tmp_path / "new").replace(path)
    clocks.set(path)
    assert quiet(watched, clocks) == {"x": "2"}


def test_a_modification_from_the_future(path: Path, watched: ConfigurationFile, clocks: Any) -> None:
    clocks.write(path, "x = 1")
    os.utime(path, (2**32, 2**32))
    assert quiet(watched, clocks) == {"x": "1"}
    assert look(watched)[1] == 0.0


def test_a_symlink_that_is_swapped(watched: ConfigurationFile, clocks: Any, path: Path, tmp_path: Path) -> None:
    """As Kubernetes does: the file is a link through the link ``..data``, and that is renamed over."""
    for number in range(3):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "app.toml").write_text(f"x = {number}")
    (tmp_path / "..data").symlink_to("..0")
    path.symlink_to("..data/app.toml")
    assert quiet(watched, clocks) == {"x": "0"}
    clocks.passed += 100
    for number in (1, 2):
        (tmp_path / "..data_tmp").symlink_to(f"..{number}")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        values, _ = look(watched)  # what is there has long been whole
        assert values is not None
        assert values == {"x": str(number)}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_never_quiet(path: Path, watched: ConfigurationFile, clocks: Any, replaced: bool) -> None:
    """A file that is replaced again and again is whole every time. A file that is rewritten may be whole at no time."""
    clocks.write(path, "x = 0")
    quiet(watched, clocks)
    number = 0
    while clocks.passed < 2 * LONGEST:
        number += 1
        target = path.with_name("beside") if replaced else path
        clocks.write(target, f"x = {number}")
        target.replace(path)
        clocks.set(path)
        values, _ = look(watched)
        clocks.passed += QUIET / 2
    assert values is not None
    assert (values != {"x": "0"}) is replaced
    assert replaced or "without a pause" in str(problem(watched))
    assert quiet(watched, clocks) == {"x": str(number)}
    assert problem(watched) is None


@pytest.mark.parametrize("seconds", [-3600, -0.5])
def test_a_clock_behind_the_files(path: Path, watched: ConfigurationFile, clocks: Any, seconds: float) -> None:
    """A stepped clock or a server's: then what is seen to stand still is whole, and it is read again to be sure."""
    clocks.skew = seconds
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    clocks.write(path, "x = 2")
    assert quiet(watched, clocks) == {"x": "2"}
    clocks.skew = 7200
    assert quiet(watched, clocks) == {"x": "2"}


def test_times_in_whole_seconds(
    path: Path, watched: ConfigurationFile, clocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes of one second, of one size: no time tells of the second one."""
    real: Callable[[os.stat_result], tuple[int, ...]] = module.signature_of
    monkeypatch.setattr(module, "signature_of", lambda status: (*real(status)[:3], 10**9, int(clocks.wall) * 10**9))
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    clocks.write(path, "x = 2")
    assert quiet(watched, clocks) == {"x": "2"}
    clocks.passed += 3
    assert quiet(watched, clocks) == {"x": "2"}
    reads: list[object] = []
    read = watched._file._read
    monkeypatch.setattr(watched._file, "_read", lambda signature: reads.append(read(signature)) or reads[-1])
    assert quiet(watched, clocks) == {"x": "2"}
    assert not reads, "later it is as good as any other"


def test_changes_of_one_size_within_a_tick(path: Path, tmp_path: Path) -> None:
    """On the real clock: however fast they come, the last one is seen."""
    watched = ConfigurationFile(path, ".toml", Clocks())
    for round_ in range(10):
        for number in range(30):
            path.write_text(f"x = {number + 100}")
            watched.look()
        path.write_text(f"x = {round_ + 500}")
        end = time.monotonic() + 30
        while (values := look(watched)[0]) is None or values != {"x": str(round_ + 500)}:
            assert time.monotonic() < end
            time.sleep(0.005)


def test_what_is_no_file(tmp_path: Path, clocks: Any) -> None:
    clocks.passed = 10
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name, kind, message in (
        ("pipe", InvalidArgumentError, "is no regular file"),
        ("folder", InvalidArgumentError, "is no regular file"),
        ("loop", InvalidArgumentError, "is no regular file"),
        ("absent/app.toml", UnavailableError, "does not exist"),
    ):
        watched = ConfigurationFile(tmp_path / name, ".toml", clocks)
        assert look(watched) == (None, 0.0)
        with pytest.raises(kind, match=message):
            raise problem(watched) or AssertionError


def test_a_file_of_somebody_else(
    path: Path, watched: ConfigurationFile, clocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    clocks.write(path, "x = 1")
    clocks.passed = 10
    monkeypatch.setattr(os, "open", refuse)  # a mode would not stop root
    assert look(watched) == (None, 0.0)
    assert isinstance(problem(watched), PermissionDeniedError)


def test_a_file_that_is_too_large(path: Path, watched: ConfigurationFile, clocks: Any) -> None:
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    with path.open("wb") as file:
        file.truncate(module.MAX_BYTES + 1)
    assert quiet(watched, clocks) == {"x": "1"}
    assert isinstance(problem(watched), ResourceExhaustedError)
    assert "16,777,217 bytes" in str(problem(watched))


def test_what_turns_into_a_pipe_is_not_waited_for(
    path: Path, watched: ConfigurationFile, clocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its status and its opening."""
    clocks.write(path, "x = 1")
    clocks.passed = 10
    real = os.open

    def swapped(*arguments: Any) -> int:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", swapped)
        assert look(watched) == (None, QUIET)
    assert look(watched) == (None, 0.0)
    assert isinstance(problem(watched), InvalidArgumentError)


def test_times_in_whole_seconds_tell_nothing_of_the_last_one(
    path: Path, watched: ConfigurationFile, clocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time that is rounded down may look old and be new: what counts is what is seen to stand still."""
    real: Callable[[os.stat_result], tuple[int, ...]] = module.signature_of
    monkeypatch.setattr(module, "signature_of", lambda status: (*real(status)[:3], 10**9, int(clocks.wall) * 10**9))
    clocks.write(path, "x = 1")
    clocks.wall = int(clocks.wall) + 0.9
    assert look(watched) == (None, QUIET)
    clocks.passed += 1.1 * QUIET
    assert look(watched) == ({"x": "1"}, 0.0)


def test_a_file_from_the_future_is_waited_for_once(path: Path, watched: ConfigurationFile, clocks: Any) -> None:
    clocks.skew = -3600
    clocks.write(path, "x = 1")
    assert look(watched) == (None, QUIET)
    clocks.passed += QUIET / 4
    assert look(watched) == (None, pytest.approx(0.75 * QUIET)), "what is left"
    clocks.passed += 0.9 * QUIET
    for _ in range(3):
        assert look(watched) == ({"x": "1"}, 0.0)
