"""Due jobs as the sidecar sends them to this application (``POST /job/<name>``): each waits for its outcome, which is the answer.

Dapr tells the job's name and its data, and neither the occurrence nor the attempt.
"""

from __future__ import annotations

from asyncio import wrap_future
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final
from uuid import uuid4

from ..._core.clocks import Clocks
from ..._core.logs import repeated
from ..._core.threads import Changes
from ...spi.rpc import RpcReply
from ...spi.schedule import DueRun, JobSpec, Outcome, RunSource
from .._sidecar.transport import resolve
from .callbacks import DaprCallbacks
from .jobs import opened

__all__ = ["DaprRuns"]

_DONE: Final = RpcReply(204, {}, None, b"")
_FAILED: Final = RpcReply(500, {}, None, b"")
_GIVEN_BACK: Final = RpcReply(503, {}, None, b"")
_MOST: Final = 1024
"""Runs that wait here; further ones are given back at once."""


class DaprRuns(RunSource):
    """See the module."""

    def __init__(self, callbacks: DaprCallbacks, handlers: Callable[[], frozenset[str]]) -> None:
        self._callbacks = callbacks
        self._handlers = handlers
        self._changes = Changes()
        self._woken = self._closed = False
        self._waiting: deque[DueRun] = deque()
        callbacks.joined(self)

    async def run(self, job: str, data: bytes) -> RpcReply | None:
        """Have a job run, and return what to answer; ``None``: it cannot be run here."""
        payload, content_type, target = opened(job, data)
        if self._closed or len(self._waiting) >= _MOST:
            return None
        if isinstance(target, str) and target not in self._handlers():
            repeated(f"no handler {target}", "job %r is due, and there is no handler %r in this process", job, target)
            return None
        # the sidecar knows what follows a failure
        spec = JobSpec(job, None, None, None, None, None, None, payload, content_type, target, "drop", "once", "UTC")
        reply: Future[RpcReply] = Future()
        self._waiting.append(DueRun(reply, str(uuid4()), Clocks().wall_ms(), 1, 0, spec))
        self._changes.announce()
        if self._closed:
            self._give_back()  # nobody else does any more
        return await wrap_future(reply)

    def exchange(self, outcomes: Sequence[Outcome], want: int, /) -> list[DueRun]:
        self._land(outcomes)
        runs: list[DueRun] = []
        while len(runs) < want and self._waiting:
            runs.append(self._waiting.popleft())
        return runs

    @staticmethod
    def _land(outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            assert isinstance(outcome.token, Future)
            resolve(outcome.token, _GIVEN_BACK if not outcome.begun else _DONE if outcome.error is None else _FAILED)

    def holds(self, token: object, /) -> bool:
        assert isinstance(token, Future)
        return not token.done()

    def wait(self, seconds: float, /) -> None:
        ticket = self._changes.ticket()
        self._changes.wait(ticket, 0.0 if self._woken or self._waiting else seconds)
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        self._changes.announce()

    def close(self, outcomes: Sequence[Outcome], /) -> None:
        self._closed = True
        self._callbacks.left(self)
        self._land(outcomes)
        self._give_back()

    def _give_back(self) -> None:
        while self._waiting:
            try:
                run = self._waiting.popleft()
            except IndexError:
                return
            self._land([Outcome(run.token, begun=False)])
