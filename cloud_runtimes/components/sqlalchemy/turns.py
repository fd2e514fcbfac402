"""Who may go on: places of a pool, and the turn to write an SQLite file. First come, first served; both faces wait without holding a thread of the pool.

Whoever enters gives a `Holds` (``holds.py``), which lists what it has to leave, so that an interrupt at any point loses nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import weakref
from collections import deque
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from time import sleep
from typing import Final

from ..._core.threads import Mutex
from ...spi.operation import Operation
from .holds import Holds

__all__ = ["FileTurn", "Turns"]

_POLL: Final = 0.0005
_MAX_POLL: Final = 0.004


class _Waiter:
    """One who waits; ``given`` once a place is theirs."""

    __slots__ = ("future", "given", "holds", "ticket")

    def __init__(self, holds: Holds, future: asyncio.Future[None] | None) -> None:
        self.holds = holds
        self.future = future
        self.given = False
        self.ticket: threading.Lock | None = None
        if future is None:
            self.ticket = threading.Lock()
            self.ticket.acquire()

    def wake(self) -> bool:
        """Tell it, perhaps once more; ``False`` where its loop is closed."""
        if self.ticket is not None:
            try:
                self.ticket.release()
            except RuntimeError:  # it was told already
                pass
            return True
        assert self.future is not None
        try:
            self.future.get_loop().call_soon_threadsafe(_resolve, self.future)
        except RuntimeError:
            return False
        return True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Turns:
    """So many places; who finds none waits for the next in order."""

    def __init__(self, places: int, what: str) -> None:
        self._what = what
        self._places = places
        self._inside: set[object] = set()
        self._queue: deque[_Waiter] = deque()
        self._lock = Mutex()

    def _try(self, holds: Holds, future: asyncio.Future[None] | None) -> _Waiter | None:
        with self._lock:
            holds.add(self)
            if len(self._inside) < self._places and not self._queue:
                self._inside.add(holds.token)
                return None
            waiter = _Waiter(holds, future)
            self._queue.append(waiter)
            return waiter

    def enter(self, op: Operation, holds: Holds) -> None:
        """Wait for a place, at most to the operation's deadline."""
        waiter = self._try(holds, None)
        if waiter is None:
            return
        left = op.remaining()
        assert waiter.ticket is not None
        try:
            came = waiter.ticket.acquire(timeout=-1 if left is None else left)
        except BaseException:
            self._give_up(waiter)
            raise
        if not came and not self._give_up(waiter):
            raise op.timed_out(self._what)

    async def enter_async(self, op: Operation, holds: Holds) -> None:
        """Asynchronous `enter`."""
        waiter = self._try(holds, asyncio.get_running_loop().create_future())
        if waiter is None:
            return
        assert waiter.future is not None
        try:
            done, _ = await asyncio.wait((waiter.future,), timeout=op.remaining())
        except BaseException:
            self._give_up(waiter)
            raise
        if not done and not self._give_up(waiter):
            raise op.timed_out(self._what)

    def _give_up(self, waiter: _Waiter) -> bool:
        """Leave the queue; tells whether the place came in the last moment."""
        with self._lock:
            if not waiter.given and waiter in self._queue:
                self._queue.remove(waiter)
            return waiter.given

    def leave(self, token: object) -> None:
        """Give the place to the next; each step may be interrupted and is done again then."""
        with self._lock:
            self._inside.discard(token)
            while self._queue:
                waiter = self._queue[0]
                if waiter.holds.token not in self._inside:
                    if len(self._inside) >= self._places:
                        return
                    self._inside.add(waiter.holds.token)
                waiter.given = True
                if not waiter.wake():
                    self._inside.discard(waiter.holds.token)
                self._queue.popleft()


class FileTurn:
    """The turn to write a file, between the threads of this process and between processes.

    SQLite lets waiting writers poll, so that of two busy processes one gets nothing. Here they queue on two ``flock`` files beside the database: whoever holds *turn* is next, whoever holds *gate* writes. The kernel lets go of both when a process dies. Waiting polls, so that it can be given up.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._inside = Turns(1, "another writer of the file")
        self._files: tuple[int, int] | None = None
        self._next = False

    def _open(self) -> tuple[int, int]:
        if self._files is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            turn = os.open(f"{self._path}-turn", flags, 0o600)
            try:
                self._files = turn, os.open(f"{self._path}-gate", flags, 0o600)
            except BaseException:
                os.close(turn)
                raise
        return self._files

    def _try(self) -> bool:
        turn, gate = self._open()
        if not self._next:
            if not _lock(turn):
                return False
            self._next = True
        if not _lock(gate):
            return False
        flock(turn, LOCK_UN)
        self._next = False
        return True

    def enter(self, op: Operation, holds: Holds) -> None:
        """Wait for the turn, at most to the operation's deadline."""
        self._inside.enter(op, holds)
        holds.add(self)
        pause = _POLL
        while not self._try():
            if op.remaining() == 0.0:
                raise op.timed_out("a writer in another process")
            sleep(pause)
            pause = min(pause * 1.5, _MAX_POLL)

    async def enter_async(self, op: Operation, holds: Holds) -> None:
        """Asynchronous `enter`."""
        await self._inside.enter_async(op, holds)
        holds.add(self)
        pause = _POLL
        while not self._try():
            if op.remaining() == 0.0:
                raise op.timed_out("a writer in another process")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _MAX_POLL)

    def leave(self, token: object) -> None:
        """Let the next one in; also who had only half entered."""
        self._next = False
        if self._files is not None:
            flock(self._files[0], LOCK_UN)
            flock(self._files[1], LOCK_UN)

    def forked(self) -> None:
        """In a forked child: close, which does not unlock, since the parent has the files open too."""
        files, self._files = self._files, None
        self._next = False
        self._inside = Turns(1, "another writer of the file")
        for file in files or ():
            os.close(file)

    def __del__(self) -> None:
        for file in getattr(self, "_files", None) or ():
            os.close(file)


def _lock(file: int) -> bool:
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


_turns: weakref.WeakValueDictionary[str, FileTurn] = weakref.WeakValueDictionary()
_turns_lock = Mutex()


def file_turn(path: str) -> FileTurn:
    """Return the process's turn for a file: one for all clients."""
    key = os.path.realpath(path)
    with _turns_lock:
        found = _turns.get(key)
        if found is None:
            found = _turns[key] = FileTurn(key)
        return found


def forget_turns() -> None:
    """In a forked child: let go of what it inherited."""
    global _turns_lock
    _turns_lock = Mutex()
    for turn in list(_turns.values()):
        turn.forked()
    _turns.clear()
