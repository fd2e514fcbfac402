"""The write lock: who gets it, and what a refusal leaves behind."""

from __future__ import annotations

import ctypes
import errno
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes._core import os_locks
from cloud_runtimes.components.sqlite.files import WriteLock

fcntl: Any = importlib.import_module("fcntl") if hasattr(os_locks, "_at_once") else None
WAYS = ["with the GIL", "without a C library", "without ctypes"] if fcntl else ["by a byte"]


@pytest.fixture(params=WAYS)
def locks(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[WriteLock]]:
    """Two of one database, as two processes have them."""
    if request.param == "with the GIL":
        assert os_locks._at_once is not fcntl.flock, "the fast way is not in use where it could be"
    elif fcntl:

        def refuse(*arguments: Any, **options: Any) -> Any:
            raise OSError("not linked dynamically")

        if request.param == "without ctypes":
            monkeypatch.setitem(sys.modules, "ctypes", None)
        else:
            monkeypatch.setattr(ctypes, "PyDLL", refuse)
        monkeypatch.setattr(os_locks, "_at_once", os_locks._with_the_gil())
        assert os_locks._at_once is fcntl.flock
    locks = [WriteLock(str(tmp_path / "db")) for _ in range(2)]
    yield locks
    for each in locks:
        each.close()


def test_one_holds_it(locks: list[WriteLock]) -> None:
    first, second = locks
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    second.acquire()
    assert not first.try_acquire()
    second.reset()
    assert first.try_acquire()


def test_a_refusal_leaves_the_turn_free(locks: list[WriteLock], tmp_path: Path) -> None:
    first, second = locks
    assert first.try_acquire()
    assert not second.try_acquire()
    with open(tmp_path / "db-turn", "r+b") as turn:
        assert os_locks.try_lock(turn.fileno())
        first.release()
        assert not second.try_acquire(), "it passed one who waits"
        os_locks.unlock(turn.fileno())
    assert second.try_acquire()


def test_an_error_is_told() -> None:
    with pytest.raises(OSError) as caught:
        os_locks.try_lock(-1)
    assert caught.value.errno == errno.EBADF
