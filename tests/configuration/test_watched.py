"""When a file counts as whole, and what is kept while it does not: real files, on a clock that the test sets forward."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud_runtimes._clock import Clocks
from cloud_runtimes.components.file import watched as module
from cloud_runtimes.components.file.watched import LONGEST, QUIET, Watched
from cloud_runtimes.errors import InvalidArgumentError, PermissionDeniedError, UnavailableError


class SetClocks(Clocks):
    """What the test says has passed; `write` sets the wall clock to the kernel's, whose times files have."""

    __slots__ = ("passed", "skew", "wall")

    def __init__(self) -> None:
        self.passed = self.skew = 0.0
        self.set()

    def set(self) -> None:
        self.wall = time.time() - self.passed

    def monotonic(self) -> float:
        return 1000.0 + self.passed

    def wall_ms(self) -> int:
        return round((self.wall + self.passed + self.skew) * 1000)

    def write(self, path: Path, text: str) -> None:
        path.write_text(text)
        self.set()


@pytest.fixture
def clocks() -> SetClocks:
    return SetClocks()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.toml"


@pytest.fixture
def watched(path: Path, clocks: SetClocks) -> Watched:
    return Watched(path, ".toml", clocks)


def quiet(watched: Watched, clocks: SetClocks, seconds: float = 1.1 * QUIET) -> dict[str, str]:
    """Look, let time pass, look again; return the values."""
    watched.look()
    clocks.passed += seconds
    found, _ = watched.look()
    assert found is not None, watched.problem()
    return dict(found.values)


def test_a_new_file_is_read_once_it_is_quiet(path: Path, watched: Watched, clocks: SetClocks) -> None:
    clocks.write(path, "x = 1")
    assert watched.look() == (None, QUIET)
    clocks.passed += QUIET / 2
    assert watched.look() == (None, QUIET)
    clocks.passed += 0.6 * QUIET
    found, hurry = watched.look()
    assert found is not None
    assert (found.values, hurry, watched.problem()) == ({"x": "1"}, 0.0, None)


def test_an_old_file_is_read_at_once(path: Path, watched: Watched, clocks: SetClocks) -> None:
    clocks.write(path, "x = 1")
    clocks.passed = 10
    found, hurry = watched.look()
    assert found is not None
    assert (found.values, hurry) == ({"x": "1"}, 0.0)


def test_a_valid_beginning_is_not_taken(path: Path, watched: Watched, clocks: SetClocks) -> None:
    clocks.write(path, "x = 1\ny = 1\n")
    assert quiet(watched, clocks) == {"x": "1", "y": "1"}
    with path.open("w") as file:  # cut, and written anew in two goes
        for line in ("x = 2\n", "y = 2\n"):
            file.write(line)
            file.flush()
            clocks.set()
            found, hurry = watched.look()
            assert hurry == QUIET
            assert found is not None
            assert found.values == {"x": "1", "y": "1"}
            clocks.passed += QUIET / 2
    found, _ = watched.look()
    assert found is not None
    assert found.number == 1
    assert quiet(watched, clocks) == {"x": "2", "y": "2"}


@pytest.mark.parametrize("text", ["", "  \n", "x = ", "x = 1\nx = 2", "[a", "\0", "a = 'ü"])
def test_what_is_empty_or_broken_changes_nothing(
    path: Path, watched: Watched, clocks: SetClocks, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    clocks.write(path, text)
    with caplog.at_level(logging.WARNING, "cloud_runtimes"):
        assert quiet(watched, clocks) == {"x": "1"}
    assert caplog.records == [], "for a moment that is nothing to speak of"
    assert isinstance(watched.problem(), UnavailableError if not text.strip() else InvalidArgumentError)
    assert str(path) in str(watched.problem())
    clocks.write(path, "x = 2")
    assert quiet(watched, clocks) == {"x": "2"}
    assert watched.problem() is None
    clocks.write(path, text)
    assert quiet(watched, clocks) == {"x": "2"}
    clocks.write(path, "x = 2")  # as it was
    assert quiet(watched, clocks) == {"x": "2"}
    assert watched.problem() is None


def test_it_is_said_once_a_minute(
    path: Path,
    watched: Watched,
    clocks: SetClocks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module, "repeated", lambda key, message, *arguments: said.append(message % arguments))
    clocks.write(path, "x = 1")
    quiet(watched, clocks)
    clocks.write(path, "")
    for _ in range(600):
        clocks.passed += 0.25
        watched.look()
    assert len(said) == 3, "after a second, and twice in the 149 that follow"
    assert said[0].startswith(f"{path} is empty")
    assert said[0].endswith("its last good values are kept")


def test_nothing_is_said_without_values_to_keep(path: Path, watched: Watched, clocks: SetClocks) -> None:
    """There the call raises, which says it."""
    for _ in range(20):
        clocks.passed += 1
        assert watched.look() == (None, 0.0)
    error = watched.problem()
    assert isinstance(error, UnavailableError)
    assert isinstance(error.__cause__, FileNotFoundError)
    assert watched.problem() is not error, "each raises one of its own"


def test_deleted_and_made_again(path: Path, watched: Watched, clocks: SetClocks) -> None:
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    path.unlink()
    assert quiet(watched, clocks) == {"x": "1"}
    assert "does not exist" in str(watched.problem())
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    assert watched.problem() is None
    path.unlink()
    watched.look()
    clocks.write(path, "y = 1")
    assert quiet(watched, clocks) == {"y": "1"}


def test_renamed_over(path: Path, watched: Watched, clocks: SetClocks, tmp_path: Path) -> None:
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    (tmp_path / "new").write_text("x = 2")
    os.utime(tmp_path / "new", (1, 1))  # a time of modification of long ago
    (tmp_path / "new").replace(path)
    clocks.set()
    assert quiet(watched, clocks) == {"x": "2"}


def test_a_modification_from_the_future(path: Path, watched: Watched, clocks: SetClocks) -> None:
    clocks.write(path, "x = 1")
    os.utime(path, (2**32, 2**32))
    assert quiet(watched, clocks) == {"x": "1"}
    assert watched.look()[1] == 0.0


def test_a_symlink_that_is_swapped(watched: Watched, clocks: SetClocks, path: Path, tmp_path: Path) -> None:
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
        found, _ = watched.look()  # what is there has long been whole
        assert found is not None
        assert found.values == {"x": str(number)}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_never_quiet(path: Path, watched: Watched, clocks: SetClocks, replaced: bool) -> None:
    """One that is replaced again and again is whole every time; one that is rewritten may be whole at no time."""
    clocks.write(path, "x = 0")
    quiet(watched, clocks)
    number = 0
    while clocks.passed < 2 * LONGEST:
        number += 1
        target = path.with_name("beside") if replaced else path
        clocks.write(target, f"x = {number}")
        target.replace(path)
        found, _ = watched.look()
        clocks.passed += QUIET / 2
    assert found is not None
    assert (found.values != {"x": "0"}) is replaced
    assert replaced or "without a pause" in str(watched.problem())
    assert quiet(watched, clocks) == {"x": str(number)}
    assert watched.problem() is None


@pytest.mark.parametrize("seconds", [-3600, -0.5])
def test_a_clock_behind_the_files(path: Path, watched: Watched, clocks: SetClocks, seconds: float) -> None:
    """A stepped clock or a server's: then what is seen to stand still is whole, and it is read again to be sure."""
    clocks.skew = seconds
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    clocks.write(path, "x = 2")
    assert quiet(watched, clocks) == {"x": "2"}
    clocks.skew = 7200
    assert quiet(watched, clocks) == {"x": "2"}


def test_times_in_whole_seconds(
    path: Path, watched: Watched, clocks: SetClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes of one second, of one size: no time tells of the second one."""
    real: Callable[[os.stat_result], tuple[int, ...]] = module._signature
    monkeypatch.setattr(module, "_signature", lambda found: (*real(found)[:3], 10**9, int(clocks.wall) * 10**9))
    clocks.write(path, "x = 1")
    assert quiet(watched, clocks) == {"x": "1"}
    clocks.write(path, "x = 2")
    assert quiet(watched, clocks) == {"x": "2"}
    clocks.passed += 3
    assert quiet(watched, clocks) == {"x": "2"}
    reads: list[bytes | None] = []
    read = watched._read
    monkeypatch.setattr(watched, "_read", lambda signature: reads.append(read(signature)) or reads[-1])
    assert quiet(watched, clocks) == {"x": "2"}
    assert not reads, "later it is as good as any other"


def test_changes_of_one_size_within_a_tick(path: Path, tmp_path: Path) -> None:
    """On the real clock: however fast they come, the last one is seen."""
    watched = Watched(path, ".toml", Clocks())
    for round_ in range(10):
        for number in range(30):
            path.write_text(f"x = {number + 100}")
            watched.look()
        path.write_text(f"x = {round_ + 500}")
        end = time.monotonic() + 10
        while (found := watched.look()[0]) is None or found.values != {"x": str(round_ + 500)}:
            assert time.monotonic() < end
            time.sleep(0.005)


def test_what_is_no_file(tmp_path: Path, clocks: SetClocks) -> None:
    clocks.passed = 10
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name, kind, message in (
        ("pipe", InvalidArgumentError, "is no file"),
        ("folder", InvalidArgumentError, "is no file"),
        ("loop", UnavailableError, "cannot be read"),
        ("absent/app.toml", UnavailableError, "does not exist"),
    ):
        watched = Watched(tmp_path / name, ".toml", clocks)
        assert watched.look() == (None, 0.0)
        with pytest.raises(kind, match=message):
            raise watched.problem() or AssertionError


def test_a_file_of_somebody_else(
    path: Path, watched: Watched, clocks: SetClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    clocks.write(path, "x = 1")
    clocks.passed = 10
    monkeypatch.setattr(os, "open", refuse)  # a mode would not stop root
    assert watched.look() == (None, 0.0)
    assert isinstance(watched.problem(), PermissionDeniedError)
