"""Writes of one database: jobs gather into rounds, a round is one transaction and one fsync.

A caller that finds nobody writing and nobody waiting writes its own job on its own thread. Everything else goes to the writer thread, which takes all that waits as one round: so an interrupt in a caller's thread concerns that caller's job alone. A job that has not begun can be withdrawn, so a caller that gives up knows whether its write may happen.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import cache
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any, Final

from ..._core.heap import keep_freed
from ..._core.logs import logger
from ..._core.sqlite_failures import explain
from ..._core.threads import Background, Mutex
from ...errors import ClosedError, CloudRuntimesError, InternalError, UnavailableError
from ...spi.operation import Operation, mark_interrupted
from .gate import Gate, NoGate
from .job import Job

__all__ = ["Rounds"]

MAX_JOBS: Final = 1000
MAX_BYTES: Final = 8 * 1024 * 1024
_COLUMNS: Final = 5
_KEPT: Final = 64 * 1024
_UNBOUND: Final = object()
_IDLE, _STATEMENT, _TRANSACTION, _COMMIT, _DONE = range(5)
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Rounds:
    """The write side of an engine.

    Args:
        connection: for writing only, autocommit; nobody else uses it.
        gate: before other processes.
        path: for messages.
        gone: returns the error to refuse with where the database's files are not in their places any more.
        ring: wakes the waiters of committed jobs.
        sweep: called now and then on the writer thread, outside a round; returns seconds until the next time.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        gate: Gate | NoGate,
        path: str,
        *,
        gone: Callable[[], CloudRuntimesError | None],
        ring: Callable[[Iterable[str]], None],
        sweep: Callable[[], float],
    ) -> None:
        self.connection = connection
        self.mutex = Mutex()
        self._gate = gate
        self._path = path
        self._gone = gone
        self._ring = ring
        self._sweep = sweep
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Background(self._write, "cloud-runtimes-writer")
        self._closed = self._ended = False
        self._synchronous: bool | None = None
        self._version: int | None = None
        # held while SQLite works, so that a fork can wait for its end
        self.working = Mutex()
        # what an interrupted caller needs to know: whether its job was being written, and how far that was
        self._writing: Job | None = None
        self._stage = _IDLE
        self._changes = 0
        # the writer thread has jobs in hand: callers queue behind it, or one thread would take every turn
        self._turn = False
        keep_freed(MAX_BYTES)

    # -- callers ----------------------------------------------------------

    def run(self, job: Job, op: Operation) -> Any:
        """Run a job and return its result, within the operation's deadline.

        Raises:
            DeadlineExceededError: time was up; ``maybe_applied`` tells whether the write had begun.
            CloudRuntimesError: what the write ended with.
        """
        if self.is_inside():
            raise UnavailableError(
                "a signal handler or __del__ writes while a write of its own thread is under way: write later, or by a publisher",
                retryable=False,  # its thread goes on once it has returned
            )
        try:
            if not self._write_alone(job):
                self._wait(job, op)
            elif job.bells:
                self._ring(job.bells)
            self._thread.start()  # who writes also sweeps
        except BaseException as error:
            self._heal(job, error)
            raise
        job.rows = None  # the last job stays in hand until the next one, its frames need not
        if job.error is not None:
            raise job.error
        return job.result

    def _write_alone(self, job: Job) -> bool:
        """Write a job on its caller's thread, if nobody writes or waits; tells whether it was done."""
        if self._turn or not self.mutex.acquire(blocking=False):
            return False
        done = False
        if self._jobs.empty() and not self._closed and self._gate.try_enter():
            job.take()
            try:
                self._commit([job])
                done = True
            except sqlite3.OperationalError:  # a stranger has the database locked
                job.give_back()
            self._stage = _DONE if done else _IDLE
            self._gate.leave()
        self.mutex.release()
        return done

    def is_inside(self) -> bool:
        """Tell whether the thread is in a write already: this is a signal handler or a ``__del__``."""
        return bool(self.mutex._is_owned())

    def _wait(self, job: Job, op: Operation) -> None:
        """Leave the job to the writer thread and wait for it."""
        if self._thread.is_current():
            raise UnavailableError(
                f"{self._path}: a __del__ on the writer thread cannot write: it would wait for itself",
                retryable=False,
            )
        done = job.done = threading.Lock()
        done.acquire()
        self._put(job)
        remaining = op.remaining()
        if not done.acquire(timeout=-1 if remaining is None else remaining):
            if job.take():
                raise op.timed_out(f"the turn to write {self._path}")
            # it has begun, so it ends with the commit: a moment more tells how
            if not done.acquire(timeout=job.grace):
                raise op.timed_out(f"the disk of {self._path}", maybe_applied=True)

    async def run_async(self, job: Job, op: Operation) -> Any:
        """Asynchronous `run`: never waits on the loop's thread."""
        import asyncio

        loop = job.loop = asyncio.get_running_loop()
        future = job.future = loop.create_future()
        timer = None
        if op.deadline is not None:
            timer = loop.call_later(max(0.0, op.deadline - monotonic()), self._expire, job, op)
        self._put(job)
        try:
            return await future
        except asyncio.CancelledError as error:
            mark_interrupted(error, not job.take())
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, job: Job, op: Operation) -> None:
        future = job.future
        if future is None or future.done():
            return
        if job.take():
            future.set_exception(op.timed_out(f"the turn to write {self._path}"))
        elif job.loop is not None:
            # it has begun, so it ends with the commit: a moment more tells how
            job.loop.call_later(job.grace, self._give_up, job, op)

    def _give_up(self, job: Job, op: Operation) -> None:
        if job.future is not None and not job.future.done():
            job.future.set_exception(op.timed_out(f"the disk of {self._path}", maybe_applied=True))

    def submit(self, job: Job) -> None:
        """Hand a job to the writer thread and do not wait; its error is logged."""
        self._put(job)

    def others_wrote(self) -> bool:
        """Tell whether another process has written since the last time. A connection's data version counts only what others commit (sqlite.org/pragma.html)."""
        if not self.mutex.acquire(timeout=0.05):
            return False  # asked again soon; whoever writes here rings its bells
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

    def _put(self, job: Job) -> None:
        if self._closed:
            raise self._gone() or ClosedError(f"{self._path} is closed")
        self._jobs.put(job)
        self._thread.start()
        if self._ended:  # closed meanwhile: nobody else takes it
            self._drain()

    def _heal(self, job: Job, error: BaseException) -> None:
        """Leave nothing locked behind an interrupted call, and tell whether its write may have happened."""
        if self.is_inside():
            if not self._applied(job):
                job.give_back()
            self._gate.reset()
            self.mutex.release()
        if not isinstance(error, Exception):
            mark_interrupted(error, not job.take())

    # -- rounds -----------------------------------------------------------

    def _gather(self, first: Job) -> list[Job]:
        """Take a job and what waits behind it, up to one round's worth."""
        jobs: list[Job] = []
        size = 0
        job: Job | None = first
        while True:
            if job is not None and job.take():
                jobs.append(job)
                size += job.size
            if len(jobs) >= MAX_JOBS or size >= MAX_BYTES:
                return jobs
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs
            if job is None:  # the end mark, for after this round
                self._jobs.put(None)
                return jobs

    def _commit(self, jobs: list[Job]) -> None:
        """Run jobs in one transaction; sets their results and errors.

        Raises:
            sqlite3.OperationalError: locked by a stranger; nothing was applied.
        """
        with self.working:
            self._commit_jobs(jobs)

    def _commit_jobs(self, jobs: list[Job]) -> None:
        connection = self.connection
        if connection.in_transaction:  # left by an interrupted call whose cleaning was interrupted too
            connection.execute("ROLLBACK")
        durable = any(job.durable for job in jobs)
        if durable is not self._synchronous:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._synchronous = durable
        self._stage, self._changes, self._writing = _STATEMENT, connection.total_changes, jobs[0]
        if self._refused(jobs):
            return
        try:
            if all(job.rows is not None for job in jobs):
                _insert(connection, [row for job in jobs for row in job.rows or ()])
            elif len(jobs) == 1 and jobs[0].single and jobs[0].body is not None:
                jobs[0].result = jobs[0].body(connection)
            else:
                self._stage = _TRANSACTION
                connection.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    self._step(connection, job, alone=len(jobs) == 1)
                if self._refused(jobs):  # it may have taken a while
                    self._rollback()
                    return
                self._stage = _COMMIT
                connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._rollback()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
                raise
            self._fail(jobs, error)
        except Exception as error:
            self._rollback()
            self._fail(jobs, error)

    def _refused(self, jobs: list[Job]) -> bool:
        """Refuse to write to files that nobody else would find."""
        error = self._gone()
        if error is None:
            return False
        for job in jobs:
            job.error = error
            error = self._gone()  # an exception each: its caller may change it
        return True

    def _step(self, connection: sqlite3.Connection, job: Job, alone: bool) -> None:
        """Run one job of several; its failure is its own, unless SQLite gave up the whole transaction."""
        job.error = None
        if job.rows is not None:
            _insert(connection, job.rows)
            return
        assert job.body is not None
        guarded = not job.single and not alone
        if guarded:
            connection.execute("SAVEPOINT job")
        try:
            job.result = job.body(connection)
        except Exception as error:
            if alone or not connection.in_transaction:
                raise
            if guarded:
                connection.execute("ROLLBACK TO job")
            job.error = self._explained(error)
        if guarded:
            connection.execute("RELEASE job")

    def _rollback(self) -> None:
        """Undo an open transaction, if there is one."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _committed(self) -> bool:
        """Tell whether the write of a job alone, wherever it was interrupted, is in the file."""
        if self.connection.in_transaction:
            return False
        if self._stage == _STATEMENT:
            return self.connection.total_changes != self._changes
        return self._stage in (_COMMIT, _DONE)

    def _applied(self, job: Job) -> bool:
        """Tell whether an interrupted write of a job alone was committed; if not, undo it."""
        applied = self._writing is job and self._committed()
        self._rollback()
        return applied

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            explained = explain(error, self._path)
            explained.__cause__ = error
            return explained
        return error

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        for job in jobs:  # an exception each: its caller may change it
            job.error = self._explained(error)
            if job.error is error and len(jobs) > 1:
                job.error = InternalError(f"writing to {self._path} failed: {type(error).__name__}: {error}")
                job.error.__cause__ = error

    def _finish(self, jobs: list[Job]) -> None:
        """Tell the callers; the futures of one loop in one hop."""
        by_loop: dict[Any, list[Job]] = {}
        bells: set[str] = set()
        for job in jobs:
            job.rows = None
            if job.error is None:
                bells.update(job.bells)
            if job.done is not None:
                if job.done.locked():
                    job.done.release()
            elif job.loop is not None:
                by_loop.setdefault(job.loop, []).append(job)
            elif job.error is not None:
                logger().warning("a background write to %s failed: %s", self._path, job.error)
        for loop, members in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, members)
            except RuntimeError:
                continue  # that loop is closed: nobody waits any more
        if bells:
            self._ring(bells)

    # -- the writer thread ------------------------------------------------

    def _write(self) -> None:
        next_sweep = monotonic() + 1.0
        while True:
            if monotonic() >= next_sweep:  # however much waits: under a load that never ends too
                next_sweep = monotonic() + self._swept()
            try:
                job = self._jobs.get(timeout=max(0.0, next_sweep - monotonic()))
            except Empty:
                continue
            if job is None:
                return
            self._turn = True
            with self.mutex:
                self._gate.enter()
                try:
                    self._write_round(job)
                finally:
                    self._gate.leave()
                    self._turn = not self._jobs.empty()

    def _swept(self) -> float:
        """Sweep; returns seconds until the next time."""
        try:
            return self._sweep()
        except ClosedError:
            return 60.0  # it is being closed
        except Exception as error:
            logger().warning("sweeping %s failed: %s", self._path, error)
            return 60.0

    def _write_round(self, job: Job) -> None:
        jobs = self._gather(job)
        pause = 0.001
        while jobs:
            try:
                self._commit(jobs)
                self._finish(jobs)
                return
            except sqlite3.OperationalError as error:
                # a stranger without manners holds the database: ask again, and let callers withdraw meanwhile
                if self._closed:
                    self._fail(jobs, error)
                    self._finish(jobs)
                    return
                for each in jobs:
                    each.give_back()
                sleep(pause)
                pause = min(pause * 2, 0.05)
                jobs = [each for each in jobs if each.take()]

    def close(self, timeout: float | None) -> None:
        """End the writer thread; what waits is still written, what comes later is refused."""
        self._closed = True
        self._jobs.put(None)
        if self.is_inside():
            return  # a signal handler in the middle of a write, for which the writer thread may be waiting
        self._thread.join(timeout)
        self._ended = True
        self._drain()

    def _drain(self) -> None:
        """Refuse what was not begun when it was closed."""
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is not None and job.take():
                job.error = self._gone() or ClosedError(f"{self._path} was closed before this write began")
                self._finish([job])


def _insert(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    """Store frames by one statement, so that the GIL is handed over once.

    It is one of a few, of 1, 2, 4, 8 … rows, filled up with empty ones: `sqlite3` keeps statements, and each keeps what was bound last until something else is.
    """
    size = 1 << (len(rows) - 1).bit_length()
    parameters = [field for row in rows for field in row]
    parameters += [None] * (_COLUMNS * (size - len(rows)) + 1)
    connection.execute(_insertion(size), parameters)
    if sum(len(row[-1]) for row in rows) > _KEPT:
        parameters = [None] * (_COLUMNS * size)
        try:
            # what cannot be bound comes last: all else is bound anew, and nothing is run
            connection.execute(_insertion(size), [*parameters, _UNBOUND])
        except sqlite3.Error:
            pass


@cache
def _insertion(rows: int) -> str:
    values = ",".join(["(?,?,?,?,?)"] * rows)
    return (
        "INSERT INTO frames (topic, count, size, created, body)"
        f" SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL AND ? IS NULL"
    )


def _resolve(jobs: list[Job]) -> None:
    for job in jobs:
        future = job.future
        if future is not None and not future.done():
            if job.error is not None:
                future.set_exception(job.error)
            else:
                future.set_result(job.result)
