"""The turnstile before writes: who gets in, and what a refusal leaves behind."""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.components.sqlite import gate as module
from cloud_runtimes.components.sqlite.gate import Gate


@pytest.fixture(params=["with the GIL", "without a C library", "without ctypes"])
def gates(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Gate]]:
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
    gates = [Gate(str(tmp_path / "db")) for _ in range(2)]
    yield gates
    for each in gates:
        each.close()


def test_one_is_inside(gates: list[Gate]) -> None:
    first, second = gates
    assert first.try_enter()
    assert not second.try_enter()
    first.leave()
    second.enter()
    assert not first.try_enter()
    second.reset()
    assert first.try_enter()


def test_a_refusal_leaves_the_turn_free(gates: list[Gate], tmp_path: Path) -> None:
    first, second = gates
    assert first.try_enter()
    assert not second.try_enter()
    with open(tmp_path / "db-turn", "rb") as turn:
        flock(turn, LOCK_EX | LOCK_NB)
        first.leave()
        assert not second.try_enter(), "it passed one who waits"
        flock(turn, LOCK_UN)
    assert second.try_enter()


def test_an_error_is_told() -> None:
    with pytest.raises(OSError) as caught:
        module._at_once(-1, LOCK_EX | LOCK_NB)
    assert caught.value.errno == errno.EBADF
