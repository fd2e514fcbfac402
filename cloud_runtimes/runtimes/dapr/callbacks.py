"""What the sidecar asks the server of this application for: its subscriptions, events and due jobs (Dapr, "Pub/sub API reference", "Jobs API reference")."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ...codec.payload import JSON
from ...rpc.driver import Callback, Callbacks, RpcReply

if TYPE_CHECKING:
    from .runs import DaprRuns

__all__ = ["DaprCallbacks"]

_JOB: Final = "job/"
_BUSY: Final = RpcReply(503, {}, None, b"")
"""Nobody runs jobs here (now): the job's failure policy answers for that."""


class DaprCallbacks(Callbacks):
    """See the module; one for each client."""

    def __init__(self) -> None:
        self._runs: list[DaprRuns] = []

    def subscriptions(self) -> RpcReply:
        return RpcReply(200, {}, JSON, b"[]")

    def find(self, http_method: str, name: str) -> Callback | None:
        if http_method == "POST" and name.startswith(_JOB):
            return partial(self._run, name.removeprefix(_JOB))
        return None

    # -- jobs ---------------------------------------------------------------

    def lacks_runner(self, name: str) -> bool:
        return name.startswith(_JOB) and not self._runs

    def joined(self, runs: DaprRuns) -> None:
        """Have somebody run jobs."""
        self._runs = [*self._runs, runs]

    def left(self, runs: DaprRuns) -> None:
        """Have him run them no more."""
        self._runs = [each for each in self._runs if each is not runs]

    async def _run(self, job: str, content_type: str | None, data: bytes) -> RpcReply:
        for each in self._runs:
            if (reply := await each.run(job, data)) is not None:
                return reply
        return _BUSY
