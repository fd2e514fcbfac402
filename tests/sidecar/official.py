"""The official SDK, sync and asynchronous, as one API."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloud_runtimes import CloudRuntimesClient


class Sdk:
    """A client of it.

    Attributes:
        client: itself.
        ours: our own client over the same stores as the sidecar's.
    """

    def __init__(self, client: Any, ours: CloudRuntimesClient, loop: asyncio.AbstractEventLoop | None) -> None:
        self.client = client
        self.ours = ours
        self._loop = loop

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method, and wait for it where it is a coroutine."""
        result = getattr(self.client, method)(*args, **kwargs)
        if inspect.isawaitable(result):
            assert self._loop is not None
            return self._loop.run_until_complete(result)
        return result

    def refused(self, method: str, *args: Any, **kwargs: Any) -> tuple[str | None, str]:
        """Call a method that is refused; return gRPC's code, where the SDK keeps it, and the text."""
        import grpc
        from dapr.clients.exceptions import DaprInternalError

        with pytest.raises((grpc.RpcError, DaprInternalError)) as caught:
            self.call(method, *args, **kwargs)
        error: Any = caught.value
        if isinstance(error, grpc.RpcError):
            return error.code().name, error.details() or ""
        return None, str(error)


def point(patch: pytest.MonkeyPatch, http: str, grpc: str) -> None:
    """Have the SDK, whose settings are the process's, find a sidecar."""
    from dapr.conf import settings

    for name, value in {
        "DAPR_RUNTIME_HOST": "127.0.0.1",
        "DAPR_HTTP_PORT": urlsplit(http).port,
        "DAPR_GRPC_PORT": int(grpc.rpartition(":")[2]),
        "DAPR_HTTP_ENDPOINT": None,
        "DAPR_GRPC_ENDPOINT": None,
        "DAPR_API_TOKEN": None,
        "DAPR_HEALTH_TIMEOUT": 30,
    }.items():
        patch.setattr(settings, name, value)


@contextmanager
def sync_sdk(http: str, grpc: str, ours: CloudRuntimesClient) -> Iterator[Sdk]:
    """The sync one."""
    from dapr.clients import DaprClient

    with pytest.MonkeyPatch.context() as patch:
        point(patch, http, grpc)
        with DaprClient() as client:
            yield Sdk(client, ours, None)


@contextmanager
def aio_sdk(http: str, grpc: str, ours: CloudRuntimesClient) -> Iterator[Sdk]:
    """The asynchronous one, on a loop that runs while it is called."""
    from dapr.aio.clients import DaprClient

    loop = asyncio.new_event_loop()
    try:
        with pytest.MonkeyPatch.context() as patch:
            point(patch, http, grpc)

            async def make() -> Any:
                return DaprClient()

            client = loop.run_until_complete(make())
            try:
                yield Sdk(client, ours, loop)
            finally:
                loop.run_until_complete(client.close())
    finally:
        loop.close()
