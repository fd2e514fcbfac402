"""A KeyboardInterrupt at every point of a call at which the interpreter can raise one: what is said is true, nothing stays locked or half-visible."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Rounds

# descriptors of what is interrupted while it is made; a callback of a weak reference swallows an interrupt
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def interrupted(call: Callable[[], Any], number: int) -> tuple[KeyboardInterrupt | None, bool]:
    """Run a call and interrupt it at a point; tells of the interrupt, and whether there is such a point."""
    points = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal points
        if event in ("call", "c_return") and frame.f_code.co_filename != __file__:
            points += 1
            if points == number:
                sys.setprofile(None)
                raise KeyboardInterrupt

    try:
        sys.setprofile(profile)
        call()
    except KeyboardInterrupt as error:
        return error, True
    finally:
        sys.setprofile(None)
    return None, points >= number


CALLS: dict[str, Callable[[CloudRuntimesClient], Any]] = {
    "put": lambda client: client.file.put_file("store", "f", b"new", metadata={"v": "new"}, timeout=5),
    "create": lambda client: client.file.put_file("store", "d/e", b"new", metadata={"v": "new"}, timeout=5),
    "aside": lambda client: client.file.put_file("store", "f/below", b"new", metadata={"v": "new"}, timeout=5),
    "move": lambda client: client.file.move_file("store", "g", "f", timeout=5),
    "delete": lambda client: client.file.delete_file("store", "f", timeout=5),
    "copy": lambda client: client.file.copy_file("store", "g", "f", timeout=5),
}


def contents(client: CloudRuntimesClient) -> dict[str, tuple[bytes, str]]:
    return {
        info.name: (client.file.get_file("store", info.name), info.metadata["v"])
        for info in client.file.list_files("store")
    }


@pytest.mark.parametrize("name", CALLS)
def test_writes(at: Any, root: Path, name: str, rounds: Rounds, figure: Any) -> None:
    before = {"f": (b"old", "old"), "g": (b"other", "other")}
    after = {
        "put": before | {"f": (b"new", "new")},
        "create": before | {"d/e": (b"new", "new")},
        "aside": before | {"f/below": (b"new", "new")},
        "move": {"f": (b"other", "other")},
        "delete": {"g": (b"other", "other")},
        "copy": before | {"f": (b"other", "other")},
    }[name]
    client = at(root, durability="relaxed")
    number, step, counts = 1, rounds(3, 1), {False: 0, True: 0}
    while True:
        for each in client.file.list_files("store"):
            client.file.delete_file("store", each.name)
        client.file.put_file("store", "f", b"old", metadata={"v": "old"})
        client.file.put_file("store", "g", b"other", metadata={"v": "other"})
        error, reached = interrupted(lambda: CALLS[name](client), number)
        state = contents(client)
        assert state in (before, after), (number, state)
        if error is not None:
            applied = getattr(error, "maybe_applied", True)
            counts[applied] += 1
            assert applied or state == before, (number, state)
        elif not reached:
            break
        number += step
    client.close()
    assert counts[False] > 5
    assert contents(at(root)) == after
    assert not os.listdir(root / "%%tmp") if (root / "%%tmp").exists() else True
    figure(
        f"KeyboardInterrupt at every point of {name}",
        f"{counts[False]} said not applied and were not, {counts[True]} said perhaps",
    )
