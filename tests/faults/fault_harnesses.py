"""The sidecar runtimes whose faults are tried, each over a sidecar that stands in this process on SQLite in memory.

Another runtime is another subclass of `Beneath` in `FAULTS`.
"""

from __future__ import annotations

import itertools
import socket
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.runtimes.dapr.pubsub import DaprPubSub
from cloud_runtimes.sidecar import Sidecar, SidecarSettings

__all__ = ["FAULTS", "TOKEN", "Beneath", "DaprGrpcFaults", "DaprHttpFaults"]

TOKEN = "opens the sidecar"
LIMIT = 4 << 20
"""Bytes that the sidecar takes in one message."""
_homes = itertools.count()


class Beneath(ABC):
    """A sidecar, the client on which it stands, and how to reach it.

    Attributes:
        name: of the runtime and its transport.
        port: of the sidecar.
        behind: a client on the same data without a sidecar, for looking into the store and publishing.
        calls: what the sidecar's application, ``faults``, has been called with, by its method ``count``.
        streams: whether events and configuration can be subscribed to.
        larger: whether an answer that is larger than `LIMIT` comes.
        quiet: nothing but answers comes from the sidecar; else what breaks the way back may break a call before it is answered.
        sees_garbage: an error says that an answer was none; else it says that the connection broke.
    """

    name: ClassVar[str]
    streams: ClassVar[bool]
    larger: ClassVar[bool]
    quiet: ClassVar[bool]
    sees_garbage: ClassVar[bool]
    port: int
    behind: CloudRuntimesClient
    calls: list[Any]

    @abstractmethod
    def client(
        self, port: int, *, host: str = "127.0.0.1", token: str = TOKEN, tls: bool = False, **arguments: Any
    ) -> CloudRuntimesClient:
        """Return a client that believes the sidecar to be there; the caller closes it."""

    @abstractmethod
    def publish_in_parts(self, patched: pytest.MonkeyPatch, events: int) -> None:
        """Have a request carry so many events at most."""

    @abstractmethod
    def close(self) -> None:
        """End the sidecar."""


class DaprHttpFaults(Beneath):
    """The runtime dapr over HTTP, and a sidecar of ours."""

    name = "dapr"
    scheme: ClassVar[str] = "http"
    streams = False
    larger = True
    quiet = True
    sees_garbage = True

    def __init__(self) -> None:
        self.behind = CloudRuntimesClient(
            app_id="faults", config={"capa": {"home": f":memory:faults-{next(_homes)}"}}, timeout=20
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = SidecarSettings(
            app_id="faults", app_port=port, http_port=0, grpc_port=0, api_token=TOKEN, max_body=LIMIT
        )
        self._sidecar = Sidecar(self.behind, settings)
        self._sidecar.__enter__()
        self._app = CloudRuntimesClient(self._sidecar.http_address, app_id="faults", api_token=TOKEN)
        self.calls = []
        self._app.rpc.register_method("count", self.calls.append)
        self._serving = self._app.rpc.serving(port=port)
        self._serving.__enter__()
        self.port = int(self._address().rpartition(":")[2])

    def _address(self) -> str:
        return self._sidecar.http_address

    def client(
        self, port: int, *, host: str = "127.0.0.1", token: str = TOKEN, tls: bool = False, **arguments: Any
    ) -> CloudRuntimesClient:
        scheme = f"{self.scheme}s" if tls else self.scheme
        return CloudRuntimesClient(f"{scheme}://{host}:{port}", app_id="faults", api_token=token, **arguments)

    def publish_in_parts(self, patched: pytest.MonkeyPatch, events: int) -> None:
        patched.setattr(DaprPubSub, "bulk", events)

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        self._app.close()
        self._sidecar.close()
        self.behind.close()


class DaprGrpcFaults(DaprHttpFaults):
    """The runtime dapr over gRPC."""

    name = "dapr over gRPC"
    scheme = "grpc"
    streams = True
    larger = False
    quiet = False
    sees_garbage = False

    def _address(self) -> str:
        return self._sidecar.grpc_address


FAULTS: dict[str, type[Beneath]] = {each.name: each for each in (DaprHttpFaults, DaprGrpcFaults)}
