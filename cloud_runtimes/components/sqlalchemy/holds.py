"""What was entered and has to be left, also by those who are interrupted or forgotten.

A finalizer in Python would not do: the interpreter swallows an interrupt that comes in one, and never calls it again. So the end of a `Holds` is seen by a weak reference whose callback is one function of C, the ``put`` of a queue, between whose beginning and end no interrupt comes; a thread at the other end of the queue, which gets none, does the leaving.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from ..._core.logs import repeated
from ..._core.threads import Background

__all__ = ["Debts", "Holds", "told"]


class Leavable(Protocol):
    """A place, a turn, a connection."""

    def leave(self, token: object, /) -> None: ...


def leave_all(entered: list[Leavable], token: object) -> None:
    """Leave all, the last first; again does nothing, and one that cannot be left is no reason to keep the others."""
    while entered:
        last = entered[-1]
        try:
            last.leave(token)
        except Exception as error:
            told(f"a {type(last).__name__} of a database could not be left", error)
        if last in entered:
            entered.remove(last)


def told(what: str, error: BaseException) -> None:
    """Log an error that nobody waits for; by its class alone, since its text may be a driver's."""
    repeated(f"sqlalchemy {what} {type(error).__name__}", "%s: %s", what, type(error).__name__)


class _Debt(weakref.ref["Holds"]):
    """What the `Holds` that it refers to has entered and not left yet; outlives it."""

    __slots__ = ("entered", "later", "token")

    entered: list[Leavable]
    later: Callable[[Callable[[], None]], None] | None
    token: object

    def settle(self) -> None:
        """Leave what is left, for a `Holds` that is gone."""
        if not self.entered:
            return
        leave = partial(leave_all, self.entered, self.token)
        if self.later is None:
            leave()
        else:
            self.later(leave)


class Debts:
    """All that is entered, and the thread that leaves what nobody refers to any longer; started by the first who enters."""

    def __init__(self, name: str) -> None:
        self._gone: SimpleQueue[_Debt | None] = SimpleQueue()
        self._open: dict[object, _Debt] = {}  # or their callbacks would not be called
        self._thread = Background(self._run, name)
        self._closed = False

    def owed(self, holds: Holds, later: Callable[[Callable[[], None]], None] | None) -> _Debt:
        """Return what notes the debt of a new `Holds`."""
        made = _Debt(holds, self._gone.put)
        made.entered, made.later, made.token = [], later, object()
        return made

    def begin(self, debt: _Debt) -> None:
        """See to it from now on."""
        self._thread.start()
        self._open[debt.token] = debt

    def end(self, debt: _Debt) -> None:
        """It is settled."""
        if self._open.pop(debt.token, None) is not None and self._closed:
            self._gone.put(None)

    def is_owed(self) -> bool:
        """Tell whether something is still to be left that nobody refers to."""
        return any(debt() is None for debt in list(self._open.values()))

    def _run(self) -> None:
        while not self._closed or self._open:
            self._settle(self._gone.get())

    def _settle(self, debt: _Debt | None) -> None:
        if debt is not None:
            try:
                debt.settle()
            except Exception as error:
                told("what a call of a database had entered could not be left", error)
            self.end(debt)

    def close(self) -> None:
        """Let the thread end, once nothing is entered any longer."""
        self._closed = True
        self._gone.put(None)


class Holds:
    """What was entered and not left yet: a place, a turn, a connection.

    Leaving may be interrupted and begun again. What nobody refers to any longer is left in another thread: that is what ends an interrupted call, a forgotten stream or transaction.

    Args:
        debts: of the component.
        later: runs the leaving where something of SQLAlchemy's is among it.
    """

    __slots__ = ("__weakref__", "_debt", "_debts")

    def __init__(self, debts: Debts, later: Callable[[Callable[[], None]], None] | None = None) -> None:
        self._debts = debts
        self._debt = debts.owed(self, later)

    @property
    def token(self) -> object:
        """What stands for it where it has entered; does not keep it."""
        return self._debt.token

    def add(self, entered: Leavable) -> None:
        """Note it; before it is entered, so that an interrupt in between loses nothing."""
        if not self._debt.entered:
            self._debts.begin(self._debt)
        self._debt.entered.append(entered)

    @property
    def is_inside(self) -> bool:
        """Whether there is something to leave."""
        return bool(self._debt.entered)

    def leave(self) -> None:
        """Leave all, the last first; again does nothing."""
        leave_all(self._debt.entered, self._debt.token)
        self._debts.end(self._debt)
