"""The reader of files that others write, by itself: threads, forks, and what stays."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.components.config_file.watched import QUIET, Watched
from cloud_runtimes.errors import CloudRuntimesError, InvalidArgumentError, UnavailableError
from tests.support.forked import in_child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_an_older_look_that_ends_later_changes_nothing(path: Path, clocks: Any) -> None:
    """Two threads: the first has read the old file when the second reads the new one."""
    read, go_on = threading.Event(), threading.Event()

    def parse(data: bytes) -> str:
        if data == b"old":
            read.set()
            assert go_on.wait(30)
        return data.decode()

    watched = Watched(str(path), parse, clocks, keep=True)
    clocks.write(path, "old")
    clocks.passed = 10
    late: list[str | None] = []
    thread = threading.Thread(target=lambda: late.append(watched.look().value))
    thread.start()
    assert read.wait(30)
    path.with_name("beside").write_text("new")
    path.with_name("beside").replace(path)
    clocks.passed = 20
    assert watched.look().value == "new"
    go_on.set()
    thread.join(30)
    assert late == ["new"]
    assert watched.look().value == "new"


@pytest.mark.process
def test_a_child_that_is_forked_in_the_middle_of_a_look(path: Path, clocks: Any) -> None:
    """Whatever another thread of the parent was about to do, and even while it holds the lock."""
    watched = Watched(str(path), bytes.decode, clocks, keep=True)
    clocks.write(path, "x")
    clocks.passed = 10
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with watched._lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    try:
        assert in_child(lambda: watched.look().value) == "x"
    finally:
        done.set()
        thread.join(30)


@pytest.mark.parametrize("keep", [True, False])
def test_what_stays_of_a_file_that_is_gone(path: Path, clocks: Any, keep: bool) -> None:
    watched = Watched(str(path), bytes.decode, clocks, keep=keep)
    clocks.write(path, "x")
    clocks.passed = 10
    assert watched.look().value == "x"
    path.unlink()
    result = watched.look()
    assert result.value == ("x" if keep else None)
    assert isinstance(result.problem, UnavailableError)


def test_a_look_without_news_keeps_what_another_brought(
    path: Path, clocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads: the first reads a whole file, the second, which began later, finds it being written."""
    real = os.stat
    main = threading.main_thread()
    reading, begun, over = threading.Event(), threading.Event(), threading.Event()

    def parse(data: bytes) -> str:
        reading.set()
        assert begun.wait(30)
        return data.decode()

    def stat(name: Any, **arguments: Any) -> os.stat_result:
        if name == str(path) and threading.current_thread() is main:
            begun.set()
            assert over.wait(30)
            clocks.write(path, "new")
            clocks.skew = -3600  # so that it is not old, however slow this machine is
        return real(name, **arguments)

    def first() -> None:
        try:
            seen.append(watched.look().value)
        finally:
            over.set()

    watched = Watched(str(path), parse, clocks, keep=True)
    clocks.write(path, "old")
    clocks.passed = 10
    seen: list[str | None] = []
    thread = threading.Thread(target=first)
    thread.start()
    assert reading.wait(30)
    monkeypatch.setattr(os, "stat", stat)
    result = watched.look()
    thread.join(30)
    assert seen == ["old"]
    assert (result.value, result.again_in) == ("old", QUIET)


def test_an_error_is_a_problem_and_not_a_value(path: Path, clocks: Any) -> None:
    def parse(data: bytes) -> str | CloudRuntimesError:
        return InvalidArgumentError("no") if data == b"bad" else data.decode()

    watched = Watched(str(path), parse, clocks, keep=False)
    clocks.write(path, "good")
    clocks.passed = 10
    assert watched.look().problem is None
    clocks.write(path, "bad")
    clocks.passed = 20
    result = watched.look()
    assert result.value == "good", "half-written, perhaps: its owner decides by the age"
    assert isinstance(result.problem, InvalidArgumentError)
    clocks.passed += 100
    assert watched.look().age == pytest.approx(result.age + 100, abs=0.01)
    path.unlink()
    assert watched.look().value is None
