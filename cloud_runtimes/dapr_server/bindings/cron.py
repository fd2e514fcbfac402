"""``bindings.cron``: calls of the application at times (components-contrib, ``bindings/cron``; dapr/dapr ``pkg/runtime/processor/binding``).

As in daprd each sidecar calls its application, and what was due while it did not run is not made up for.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from ..._core.backoff import Backoff
from ..._core.logs import logger, repeated
from ...codec.payload import JSON
from ...protocols.dapr.messages import messages
from ...schedule.times import occurrences, to_ms
from ..app.channel import AppCall, AppChannel, NotReached
from ..context import Context
from ..settings import CronBinding

_LONGEST: Final = 60.0
"""Seconds of one sleep: the clock may be set meanwhile."""


class Timers:
    """All of one sidecar."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin, once the application listens."""
        if (app := self._context.app) is not None:
            self._tasks = {asyncio.create_task(self._run(app, each)) for each in self._context.settings.timers}

    async def stop(self) -> None:
        """Call no more, and let calls under way end within the grace."""
        for task in self._tasks:
            task.cancel()
        if running := [*self._tasks, *self._calls]:
            _, late = await asyncio.wait(running, timeout=self._context.settings.grace)
            for task in late:
                task.cancel()

    async def _run(self, app: AppChannel, binding: CronBinding) -> None:
        await app.ready()
        if binding.asks and not await _wanted(app, binding):
            logger().info("the application does not take the binding %r", binding.name)
            return
        times = occurrences(binding.schedule, binding.timezone)
        due = times.after(_now())
        while due is not None:
            while (remaining := (due - _now()) / 1000) > 0:
                await asyncio.sleep(min(remaining, _LONGEST))
            call = asyncio.create_task(_call(app, binding))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            following, now = times.after(due), _now()
            due = following if following is None or following > now else times.after(now)


def _now() -> int:
    return to_ms(datetime.now(UTC))


async def _wanted(app: AppChannel, binding: CronBinding) -> bool:
    """Ask the application whether it takes a binding, until it answers."""
    pauses = Backoff(0.5, 30.0)
    while True:
        try:
            if app.protocol == "grpc":
                return binding.name in await _listed(app)
            answer = await app.invoke(AppCall("OPTIONS", _path(binding)))
            return 200 <= answer.status < 300 or answer.status == 405
        except NotReached as error:
            repeated(f"binding {binding.name}", "the binding %r: %s; trying again", binding.name, error.message)
            await asyncio.sleep(pauses.next())


async def _listed(app: Any) -> list[str]:
    from grpc import StatusCode, aio

    from ..app.grpc import CALLBACK

    try:
        reply, _ = await app.unary(f"{CALLBACK}ListInputBindings", messages().Empty(), "ListInputBindingsResponse")
    except aio.AioRpcError as error:
        if error.code() is StatusCode.UNIMPLEMENTED:
            return []
        raise NotReached(f"the application: {error.details()}", sent=True) from error
    return list(reply.bindings)


async def _call(app: AppChannel, binding: CronBinding) -> None:
    fields = {"timeZone": binding.timezone, "readTimeUTC": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} +0000 UTC"}
    try:
        if app.protocol == "grpc":
            await _call_over_grpc(app, binding, fields)
            return
        answer = await app.post(f"/{_path(binding)}", b"", JSON, fields)
    except NotReached as error:
        why = error.message
    else:
        if 200 <= answer.status < 300:
            return
        why = f"the application answered with status {answer.status}"
    repeated(f"binding {binding.name}", "a call of the binding %r failed: %s", binding.name, why)


async def _call_over_grpc(app: Any, binding: CronBinding, fields: dict[str, str]) -> None:
    from grpc import aio

    from ..app.grpc import CALLBACK

    request = messages().BindingEventRequest(name=binding.name, metadata=fields)
    try:
        await app.unary(f"{CALLBACK}OnBindingEvent", request, "BindingEventResponse")
    except aio.AioRpcError as error:
        raise NotReached(f"the application: {error.code().name}: {error.details()}", sent=True) from error


def _path(binding: CronBinding) -> str:
    return quote(binding.route or binding.name, safe="/").lstrip("/")
