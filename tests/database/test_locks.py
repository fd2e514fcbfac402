"""Permits are given in order, and never lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from cloud_runtimes.components.sqlalchemy.calls import Call
from cloud_runtimes.components.sqlalchemy.locks import FairSemaphore, wait_in_task, wait_in_thread
from cloud_runtimes.components.sqlalchemy.threads import Threads
from cloud_runtimes.errors import ClosedError, DeadlineExceededError
from cloud_runtimes.spi.flow import run_sync
from cloud_runtimes.spi.operation import Method, Operation

READ = Method("database", "query", repeatable=True, writes=False)


def call(seconds: float = 10.0) -> Call:
    return Call(Operation(READ, "main", seconds))


def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_threads_and_tasks_wait_in_one_order() -> None:
    semaphore, order = FairSemaphore(1, "a permit"), list[int]()
    run_sync(semaphore.acquire(wait_in_thread, call()))

    def thread(number: int) -> None:
        run_sync(semaphore.acquire(wait_in_thread, call()))
        order.append(number)
        semaphore.release()

    async def task(number: int) -> None:
        await semaphore.acquire(wait_in_task, call())
        order.append(number)
        semaphore.release()

    waiting = []
    for number in range(6):
        work = (lambda n=number: asyncio.run(task(n))) if number % 2 else (lambda n=number: thread(n))
        waiting.append(threading.Thread(target=work))
        waiting[-1].start()
        eventually(lambda: len(semaphore._waiters) == number + 1)  # noqa: B023
    semaphore.release()
    for each in waiting:
        each.join(10)
    assert order == list(range(6))
    assert semaphore.is_unused


def test_who_gives_up_takes_no_permit() -> None:
    semaphore = FairSemaphore(1, "a permit")
    run_sync(semaphore.acquire(wait_in_thread, call()))
    with pytest.raises(DeadlineExceededError, match="waiting for a permit"):
        run_sync(semaphore.acquire(wait_in_thread, call(0.05)))
    stopped = call()
    timer = threading.Timer(0.05, stopped.stop)
    timer.start()
    begin = time.monotonic()
    with pytest.raises(ClosedError):
        run_sync(semaphore.acquire(wait_in_thread, stopped))
    assert time.monotonic() < begin + 5
    timer.join()

    async def cancelled() -> None:
        task = asyncio.create_task(semaphore.acquire(wait_in_task, call()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    semaphore.release()
    assert semaphore.is_unused


def test_an_error_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    threads = Threads("test-threads")

    def work() -> None:
        raise ArithmeticError("secret")

    threads.post(work)
    eventually(lambda: "could not be ended: ArithmeticError" in caplog.text)
    assert "secret" not in caplog.text
    assert threads.run(lambda: 5) == 5
    threads.close()
