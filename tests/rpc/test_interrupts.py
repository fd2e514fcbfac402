"""A ``KeyboardInterrupt`` in a call: it says whether the call was sent, and the next call works."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.rpc import RpcServer
from tests.support import Rounds
from tests.support.alarms import silence


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Interrupt this thread after some seconds."""

    def raise_interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, raise_interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)  # type: ignore[func-returns-value]
    silence(before)


def test_while_it_waits_for_the_answer(
    server: RpcServer, serving: CloudRuntimesClient, caller: CloudRuntimesClient, alarm: Callable[[float], None]
) -> None:
    @serving.rpc.method("interrupts")
    async def interrupts() -> None:
        alarm(0.1)
        await asyncio.sleep(1)

    with pytest.raises(KeyboardInterrupt) as caught:
        caller.rpc.invoke_method("there", "interrupts")
    assert caught.value.maybe_applied  # type: ignore[attr-defined]
    assert caller.rpc.invoke_method("there", "echo", 2) == 2


# an interrupt within socket.create_connection leaves the socket to the garbage collector
def _came_in_call(error: BaseException) -> bool:
    """Return whether an interrupt came in the call; one that came behind it, in the test, says nothing about it."""
    entry = error.__traceback__ and error.__traceback__.tb_next
    return entry is not None and entry.tb_frame.f_code.co_name == "invoke_method"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_at_any_moment(
    server: RpcServer,
    serving: CloudRuntimesClient,
    caller: CloudRuntimesClient,
    alarm: Callable[[float], None],
    rounds: Rounds,
) -> None:
    calls = told_not = 0
    for _ in range(rounds(150, 1500)):
        try:
            alarm(random.uniform(0.00005, 0.0015))
            caller.rpc.invoke_method("there", "count")
            alarm(0)
            calls += 1
        except KeyboardInterrupt as error:
            told_not += _came_in_call(error) and not getattr(error, "maybe_applied", False)
            calls += 1
    alarm(0)
    # whatever said that it was not applied was not
    ran: int = caller.rpc.invoke_method("there", "count")
    assert ran - 1 <= calls - told_not
    for n in range(5):
        assert caller.rpc.invoke_method("there", "echo", n) == n
