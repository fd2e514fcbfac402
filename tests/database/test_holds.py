"""What was entered is left: by those who are interrupted while they are forgotten, and whatever fails."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes._core import logs
from cloud_runtimes.components.sqlalchemy.holds import Debts, Holds
from cloud_runtimes.components.sqlalchemy.turns import Turns
from cloud_runtimes.components.sqlalchemy.workers import Workers
from cloud_runtimes.spi.operation import Method, Operation

OURS = str(Path(logs.__file__).parent)
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def nothing_was_said() -> None:
    """The log says the same thing once a minute."""
    logs._said.clear()


@pytest.fixture
def debts() -> Iterator[Debts]:
    made = Debts("test-debts")
    yield made
    made.close()


class Door:
    """Notes who left, and in which thread; ``broken`` ones raise."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.left: list[int] = []

    def leave(self, token: object) -> None:
        self.left.append(threading.get_ident())
        if self.broken:
            raise OSError("secret")


def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.001)


def interrupted_everywhere(call: Callable[[], Any]) -> int:
    """Run a call while every point of the package raises a KeyboardInterrupt; returns how many there were."""
    points = 0
    gc.collect()
    gc.disable()  # what else is garbage has points of its own

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal points
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(OURS):
            points += 1
            raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(before)
        gc.enable()
    return points


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("posted", [False, True])
def test_a_forgotten_one_cannot_be_interrupted(debts: Debts, posted: bool, cycle: bool) -> None:
    """The end of a `Holds` runs nothing that an interrupt can come into, however it ends."""
    workers = Workers("test-workers")
    doors = [Door(), Door()]
    held: list[Any] = [Holds(debts, workers.post if posted else None)]
    for door in doors:
        held[0].add(door)
    if cycle:
        held.append(held)
    if cycle:
        del held
        points = interrupted_everywhere(gc.collect)
        gc.collect()
    else:
        points = interrupted_everywhere(held.clear)
    assert points == 0
    eventually(lambda: all(len(door.left) == 1 for door in doors))
    assert doors[0].left[0] != threading.get_ident()
    eventually(lambda: not debts._open)
    workers.close()


def test_one_that_left_owes_nothing(debts: Debts) -> None:
    door = Door()
    holds = Holds(debts)
    holds.add(door)
    holds.leave()
    holds.leave()
    assert (len(door.left), debts._open) == (1, {})
    del holds
    time.sleep(0.02)
    assert len(door.left) == 1


def test_what_cannot_be_left_keeps_nothing_else(debts: Debts, caplog: pytest.LogCaptureFixture) -> None:
    doors = [Door(), Door(broken=True), Door()]
    holds = Holds(debts)
    for door in doors:
        holds.add(door)
    holds.leave()
    assert [len(door.left) for door in doors] == [1, 1, 1]
    assert "a Door of a database could not be left: OSError" in caplog.text
    assert "secret" not in caplog.text


def test_a_place_goes_to_the_next_one(debts: Debts) -> None:
    """Whoever waits gets the place of one that is forgotten."""

    def op() -> Operation:
        return Operation(Method("database", "query", repeatable=True, writes=False), "main", 10)

    turns = Turns(1, "a place")
    first, second = Holds(debts), Holds(debts)
    turns.enter(op(), first)
    thread = threading.Thread(target=lambda: turns.enter(op(), second))
    thread.start()
    eventually(lambda: bool(turns._queue))
    del first
    thread.join(10)
    assert not thread.is_alive()
    second.leave()
    assert not turns._inside


def test_it_works_to_the_end_after_its_close() -> None:
    debts = Debts("test-debts")
    door = Door()
    holds = Holds(debts)
    holds.add(door)
    debts.close()
    assert not debts._thread.join(0.02)
    del holds
    assert debts._thread.join(10)
    assert len(door.left) == 1


def test_an_error_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers("test-workers")

    def work() -> None:
        raise ValueError("secret")

    workers.post(work)
    eventually(lambda: "could not be ended: ValueError" in caplog.text)
    assert "secret" not in caplog.text
    assert workers.run(lambda: 5) == 5
    workers.close()
