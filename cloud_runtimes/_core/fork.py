"""Hooks that run in a forked child, in one place.

Objects that own threads, descriptors or locks register here. The child frees every `Mutex` and calls `forked` on
each object, oldest first, before any other code of ours runs in it. Some objects have to be at rest at the moment of
the fork, such as a library with locks of its own. They have a `before_fork`, which the parent calls first, and an
`after_fork`. Work that resumes in the child, in a thread that uses other objects of ours, does so in `revived`, once
all have forgotten. `generation` counts the forks that led to this process, so that a handle can tell that it was
inherited.
"""

from __future__ import annotations

import itertools
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from .threads import Mutex, free_mutexes


class _Forkable(Protocol):
    def forked(self) -> None:
        """Forget what belongs to the parent; must not block, close or send."""


# Held around imports that happen on first use: a module that another thread imports in the moment of a fork
# would stay locked in the child (importlib's locks are not taken by fork).
importing = Mutex()

_generation = 0
_numbers = itertools.count(1)
_imports_rest = False
at_fork: Final[Callable[..., None]] = getattr(os, "register_at_fork", lambda **hooks: None)
"""`os.register_at_fork`; where no process can be forked it does nothing."""
_members: weakref.WeakValueDictionary[int, _Forkable] = weakref.WeakValueDictionary()
_kept: list[Any] = []


def generation() -> int:
    """Return how many forks lie between this process and the one that imported the package."""
    return _generation


def register(member: _Forkable) -> None:
    """Have ``member.forked()`` called in every child forked from now on; held weakly."""
    _members[next(_numbers)] = member  # one number for each, also where threads do this at once


def keep(*objects: Any) -> None:
    """Keep objects of the parent from being collected in a forked child. Closing a connection of TLS there would end it for the parent too."""
    _kept.extend(objects)


def _resting() -> list[Any]:
    return [member for _, member in sorted(_members.items()) if hasattr(member, "before_fork")]


def _before() -> None:
    global _imports_rest
    _imports_rest = importing.acquire(timeout=1.0)
    for member in _resting():
        member.before_fork()


def _after_in_parent() -> None:
    for member in _resting():
        member.after_fork()
    _release_imports()


def _release_imports() -> None:
    if _imports_rest:
        importing.release()


def _after_in_child() -> None:
    global _generation
    _generation += 1
    free_mutexes()
    _release_imports()
    # before any member draws an id; by name, since kernels may be loaded after this module, or not at all
    kernels: Any = sys.modules.get("cloud_runtimes._native")
    if hasattr(kernels, "forked"):
        kernels.forked()
    members = [member for _, member in sorted(_members.items())]
    for member in members:
        member.forked()
    for member in members:
        if hasattr(member, "revived"):
            member.revived()


at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
