"""A due job on its way to the application: ``POST /job/<name>``, or ``AppCallback.OnJobEvent`` (dapr/dapr ``pkg/channel``)."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from ..._core.logs import logger
from ...codec import json
from ...codec.payload import JSON
from ...errors import CloudRuntimesError, UnavailableError
from ...protocols.dapr.messages import VALUE_TYPE
from ...schedule import JobRun
from ..app.channel import AppChannel, NotReached
from .job import JobData, any_message, data_of, json_of


class Trigger:
    """The handler of all jobs that a sidecar has scheduled."""

    def __init__(self, app: AppChannel) -> None:
        self._app = app
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, stored: Any, run: JobRun) -> None:
        """Trigger one run; an exception is a failure, which the job's policy answers for."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._send(stored, run)
        finally:
            self._running.discard(task)

    async def end(self) -> None:
        """Give up what is under way; it runs again."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _send(self, stored: Any, run: JobRun) -> None:
        held = stored.get("data") if isinstance(stored, dict) else None
        data = None if held is None else data_of(held)
        if self._app.protocol == "grpc":
            await self._over_grpc(self._app, run, data)
        else:
            await self._over_http(run, data)

    async def _over_http(self, run: JobRun, data: JobData | None) -> None:
        try:
            answer = await self._app.post(f"/job/{quote(run.name, safe='')}", _body(data), JSON)
        except NotReached as error:
            raise UnavailableError(error.message) from error
        if answer.status == 404:
            _unknown(run)
        elif not 200 <= answer.status < 300:
            raise CloudRuntimesError(f"the application answered with status {answer.status}")

    async def _over_grpc(self, app: Any, run: JobRun, data: JobData | None) -> None:
        from grpc import StatusCode, aio

        from ...protocols.dapr.messages import messages
        from ..app.grpc import ALPHA, CALLBACK

        kinds = messages()
        request = kinds.JobEventRequest(
            name=run.name, method=f"job/{run.name}", http_extension=kinds.HTTPExtension(verb=3)
        )
        if data is not None:
            packed = any_message(data)
            request.data.CopyFrom(packed)
            request.content_type = packed.type_url
        try:
            try:
                await app.unary(f"{CALLBACK}OnJobEvent", request, "JobEventResponse")
            except aio.AioRpcError as error:
                if error.code() is not StatusCode.UNIMPLEMENTED:
                    raise
                await app.unary(f"{ALPHA}OnJobEventAlpha1", request, "JobEventResponse")
        except aio.AioRpcError as error:
            if error.code() is StatusCode.NOT_FOUND:
                _unknown(run)
                return
            raise UnavailableError(f"the application: {error.code().name}: {error.details()}") from error


def _body(data: JobData | None) -> bytes:
    """Return the data over HTTP: JSON, else the bytes of the ``Any``."""
    if data is None:
        return b""
    if data.type_url is None:
        return json.encode(data.value)
    if data.type_url == VALUE_TYPE:
        return json_of(data)
    return data.body.strip()


def _unknown(run: JobRun) -> None:
    """An application that does not know a job has had it: so Dapr counts it."""
    logger().warning("the application does not know the job %r: its run is over", run.name)
