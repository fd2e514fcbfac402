"""Group commit: writes that wait share a commit batch, which is one transaction and one fsync.

A caller that finds nobody writing and nobody waiting writes its own task on its own thread. Everything else goes to the writer thread, which takes all waiting tasks as one commit batch. So an interrupt in a caller concerns its own task alone. A task that has not begun can be withdrawn, so a caller that gives up knows whether its write may happen.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from ..._core.backoff import NONE, Backoff
from ..._core.heap import keep_freed
from ..._core.logs import logger, repeated
from ..._core.threads import Background, Mutex
from ...errors import ClosedError, UnavailableError
from ...spi.operation import Operation, mark_interrupted
from .connections import keep_forever
from .files import NoWriteLock, Watch, WriteLock
from .writes import Batches, WriteTask

if TYPE_CHECKING:
    from .engine import Engine

MAX_TASKS: Final = 1000
MAX_BYTES: Final = 8 * 1024 * 1024
_PAUSES: Final = Backoff(0.001, 0.05, jitter=NONE)


class GroupCommit:
    """The write side of an engine, by a connection that nobody else uses. The write lock excludes other processes."""

    def __init__(self, engine: Engine, connection: sqlite3.Connection, write_lock: WriteLock | NoWriteLock) -> None:
        self.connection = connection
        self.mutex = Mutex()
        self._engine = engine
        self._path = engine.path
        self._write_lock = write_lock
        self._tasks: SimpleQueue[WriteTask | None] = SimpleQueue()
        self._thread = Background(self._write, "cloud-runtimes-writer")
        self._closed = self._ended = False
        self._version: int | None = None
        self._batches = Batches(connection, engine.path, engine.look)
        self.working = self._batches.working
        # A mark for each task that the writer thread has not got under the mutex, though it may have it from the queue:
        # a caller's own write would overtake what it left to that thread, and callers would starve it.
        self._ahead: deque[None] = deque()
        keep_freed(MAX_BYTES)

    # -- callers ----------------------------------------------------------

    def run(self, task: WriteTask, op: Operation) -> Any:
        """Run a task and return its result, within the operation's deadline; an error says in ``maybe_applied`` whether the write had begun."""
        if self.is_inside():
            raise UnavailableError(
                "a signal handler or __del__ writes while a write of its own thread is under way: write later, or by a publisher",
                retryable=False,  # its thread goes on once it has returned
            )
        try:
            if not self._write_alone(task):
                self._wait(task, op)
            elif task.channels:
                self._engine.notifier.notify(task.channels)
            self._thread.start()  # it sweeps
        except BaseException as error:
            self._heal(task, error)
            raise
        task.rows = None  # the last task is referred to until the next one; free its frames now
        if task.error is not None:
            raise task.error
        return task.result

    def _write_alone(self, task: WriteTask) -> bool:
        """Write a task on its caller's thread if nobody writes or waits; returns whether it did."""
        if self._ahead or not self.mutex.acquire(blocking=False):
            return False
        done = False
        if not self._ahead and not self._closed and self._write_lock.try_acquire():
            task.take()
            try:
                self._batches.commit([task])
                done = True
            except sqlite3.OperationalError:  # another program has the database locked
                task.give_back()
            self._write_lock.release()
        self.mutex.release()
        return done

    def is_inside(self) -> bool:
        """Return whether this thread is in a write already, as in a signal handler or a ``__del__``."""
        return bool(self.mutex._is_owned())

    def _wait(self, task: WriteTask, op: Operation) -> None:
        """Leave a task to the writer thread and wait for it."""
        if self._thread.is_current():
            raise UnavailableError(
                f"{self._path}: a __del__ on the writer thread cannot write: it would wait for itself", retryable=False
            )
        task.done = threading.Lock()
        task.done.acquire()
        self.submit(task)
        task.wait(op, self._path)

    async def run_async(self, task: WriteTask, op: Operation) -> Any:
        """Asynchronous `run`; always by the writer thread."""
        import asyncio

        task.loop = asyncio.get_running_loop()
        task.future = task.loop.create_future()
        self.submit(task)
        return await task.wait_async(op, self._path)

    def others_wrote(self) -> bool:
        """Return whether another process has written since the last time. A connection's data version counts only what others commit (sqlite.org/pragma.html)."""
        if not self.mutex.acquire(timeout=0.05):
            return False  # the poller asks again soon; writers of this process notify
        try:
            with self.working:
                if self._closed:
                    return False
                (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return True
        finally:
            self.mutex.release()
        before, self._version = self._version, version
        return bool(version != before)

    def submit(self, task: WriteTask) -> None:
        """Hand a task to the writer thread without waiting; its error is logged."""
        if self._closed:
            raise self._engine.look() or ClosedError(f"{self._path} is closed")
        self._ahead.append(None)
        self._tasks.put(task)
        self._thread.start()
        if self._ended:  # closed meanwhile: nobody else takes it
            self._drain()

    def _heal(self, task: WriteTask, error: BaseException) -> None:
        """Unlock after an interrupted call, and say on its error whether the write may have happened."""
        if self.is_inside():
            if not self._batches.applied(task):
                task.give_back()
            self._write_lock.reset()
            self.mutex.release()
        if not isinstance(error, Exception):
            mark_interrupted(error, not task.take())

    # -- commit batches ---------------------------------------------------

    def _gather(self, first: WriteTask) -> list[WriteTask]:
        """Take a task and those behind it, up to the limits of a commit batch."""
        tasks: list[WriteTask] = []
        size = 0
        task: WriteTask | None = first
        while task is not None:
            if self._ahead:
                self._ahead.popleft()
            if task.take():
                tasks.append(task)
                size += task.size
            if len(tasks) >= MAX_TASKS or size >= MAX_BYTES:
                return tasks
            try:
                task = self._tasks.get_nowait()
            except Empty:
                return tasks
        self._tasks.put(None)  # the end mark, for after this commit batch
        return tasks

    def _finish(self, tasks: list[WriteTask]) -> None:
        """Hand outcomes to the callers; all futures of a loop in one call to it."""
        by_loop: dict[Any, list[WriteTask]] = {}
        channels: set[str] = set()
        for task in tasks:
            task.rows = None
            if task.error is None:
                channels.update(task.channels)
            if task.done is not None:
                if task.done.locked():
                    task.done.release()
            elif task.loop is not None:
                by_loop.setdefault(task.loop, []).append(task)
            elif task.error is not None:
                logger().warning("a background write to %s failed: %s", self._path, task.error)
        for loop, members in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, members)
            except RuntimeError:
                continue  # that loop is closed: nobody waits any more
        if channels:
            self._engine.notifier.notify(channels)

    # -- the writer thread ------------------------------------------------

    def _write(self) -> None:
        next_sweep = monotonic() + 1.0
        while True:
            if monotonic() >= next_sweep:  # under a load that never ends too
                next_sweep = monotonic() + self._swept()
            try:
                task = self._tasks.get(timeout=max(0.0, next_sweep - monotonic()))
            except Empty:
                self._ahead.clear()  # an interrupt may have left a mark and no task
                continue
            if task is None:
                return
            with self.mutex:
                self._write_lock.acquire()
                try:
                    self._write_batch(task)
                finally:
                    self._write_lock.release()

    def _swept(self) -> float:
        """Sweep; returns seconds until the next time."""
        try:
            return self._engine.sweep()
        except ClosedError:
            return 60.0  # it is being closed
        except Exception as error:
            logger().warning("sweeping %s failed: %s", self._path, error)
            return 60.0

    def _write_batch(self, task: WriteTask) -> None:
        tasks = self._gather(task)
        failures = 0
        while tasks:
            try:
                self._batches.commit(tasks)
                self._finish(tasks)
                return
            except sqlite3.OperationalError as error:
                # another program holds the database: ask again, and let callers withdraw meanwhile
                if self._closed:
                    self._batches.fail(tasks, error)
                    self._finish(tasks)
                    return
                for each in tasks:
                    each.give_back()
                failures += 1
                sleep(_PAUSES.after(failures))
                tasks = [each for each in tasks if each.take()]

    def close(self, timeout: float | None) -> None:
        """End the writer thread. Waiting tasks are still written, later ones refused."""
        self._closed = True
        self._tasks.put(None)
        if self.is_inside():
            return  # a signal handler in the middle of a write, for which the writer thread may be waiting
        self._thread.join(timeout)
        self._ended = True
        self._drain()

    def close_connections(
        self, readers: Sequence[sqlite3.Connection], timeout: float | None, watch: Watch | None
    ) -> None:
        """Close all connections under the write lock, since the last one to close checkpoints and deletes the log."""
        end = None if timeout is None else monotonic() + timeout
        connections = (*readers, self.connection)
        if self.is_inside() or not self.mutex.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            repeated(
                f"close {self._path}", "%s: a write is still waiting for its turn; left open to the end", self._path
            )
            for connection in connections:
                keep_forever(connection)
            return
        # another holder of the write lock has the file open, so that ours is not the last to close it
        while not (entered := self._write_lock.try_acquire()) and (end is None or monotonic() < end):
            sleep(0.005)
        try:
            # where the files went away, what the log holds is saved
            if entered and watch is not None and self._engine.look() is not None and watch.log_is_ours():
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            for connection in connections:
                connection.close()
        finally:
            if entered:
                self._write_lock.release()
            self._write_lock.close()
            self.mutex.release()
        if watch is not None:
            watch.closed()

    def _drain(self) -> None:
        """Refuse tasks that had not begun at the close."""
        while True:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                return
            if task is not None and task.take():
                task.error = self._engine.look() or ClosedError(f"{self._path} was closed before this write began")
                self._finish([task])


def _resolve(tasks: list[WriteTask]) -> None:
    for task in tasks:
        task.resolve()
