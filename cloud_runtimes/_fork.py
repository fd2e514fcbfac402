"""What must happen in a forked child, in one place.

Objects that own threads, descriptors or locks enter themselves here; the child calls `forked` on each of them, oldest first, before any other code of ours runs in it. `generation` counts the forks that led to this process, so that a handle can tell that it was inherited.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["generation", "register"]


class _Forkable(Protocol):
    def forked(self) -> None:
        """Forget what belongs to the parent; must not block, close or send."""


_generation = 0
_count = 0
_members: weakref.WeakValueDictionary[int, _Forkable] = weakref.WeakValueDictionary()


def generation() -> int:
    """Return how many forks lie between this process and the one that imported the package."""
    return _generation


def register(member: _Forkable) -> None:
    """Have ``member.forked()`` called in every child forked from now on; held weakly."""
    global _count
    _count += 1
    _members[_count] = member


def _after_in_child() -> None:
    global _generation
    _generation += 1
    for _, member in sorted(_members.items()):
        member.forked()


os.register_at_fork(after_in_child=_after_in_child)
