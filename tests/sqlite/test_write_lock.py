"""The write lock: who gets it, and what a refusal leaves behind."""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.components.sqlite import files as module
from cloud_runtimes.components.sqlite.files import WriteLock


@pytest.fixture(params=["with the GIL", "without a C library", "without ctypes"])
def locks(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[WriteLock]]:
    """Two of one database, as two processes have them."""
    if request.param == "with the GIL":
        assert module._at_once is not flock, "the fast way is not in use where it could be"
    else:

        def refuse(*arguments: Any, **options: Any) -> Any:
            raise OSError("not linked dynamically")

        if request.param == "without ctypes":
            monkeypatch.setitem(sys.modules, "ctypes", None)
        else:
            monkeypatch.setattr(ctypes, "PyDLL", refuse)
        monkeypatch.setattr(module, "_at_once", module._with_the_gil())
        assert module._at_once is flock
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
    with open(tmp_path / "db-turn", "rb") as turn:
        flock(turn, LOCK_EX | LOCK_NB)
        first.release()
        assert not second.try_acquire(), "it passed one who waits"
        flock(turn, LOCK_UN)
    assert second.try_acquire()


def test_an_error_is_told() -> None:
    with pytest.raises(OSError) as caught:
        module._at_once(-1, LOCK_EX | LOCK_NB)
    assert caught.value.errno == errno.EBADF
