"""The sidecar runtimes whose faults are tried, each over a sidecar, or a fake of one, that stands in this process on SQLite in memory.

Another runtime is another subclass of `Beneath` in `FAULTS`.
"""

from __future__ import annotations

import base64
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.pubsub import Event
from cloud_runtimes.runtimes.dapr.pubsub import DaprPubSub
from tests.support.fake_layotto import FakeLayotto, Quirks
from tests.support.ports import reserved_port

__all__ = ["FAULTS", "LIMIT", "TOKEN", "Beneath", "DaprGrpcFaults", "DaprHttpFaults", "LayottoFaults"]

TOKEN = "opens the sidecar"
LIMIT = 4 << 20
"""Bytes that the sidecar takes in one message."""
_homes = itertools.count()


class Beneath(ABC):
    """A sidecar, the client on which it stands, and how to reach it.

    Attributes:
        name: of the runtime and its transport.
        table: of the runtime, in a configuration.
        port: of the sidecar.
        server: a client on the same data without a sidecar, for looking into the store and publishing.
        calls: what the sidecar's application, ``faults``, has been called with, by its method ``count``.
        streams: whether what is subscribed to comes again at once when a stream has ended.
        bulk: a request may carry several events.
        asks_first: before the first write the sidecar is asked what the store is.
        larger: whether an answer that is larger than `LIMIT` comes.
        quiet: nothing but answers comes from the sidecar; else what breaks the way back may break a call before it is answered.
        sees_garbage: an error says that an answer was none; else it says that the connection broke.
        has_token: callers prove themselves by one.
    """

    name: ClassVar[str]
    table: ClassVar[str]
    streams: ClassVar[bool]
    larger: ClassVar[bool]
    quiet: ClassVar[bool]
    sees_garbage: ClassVar[bool]
    has_token: ClassVar[bool]
    bulk: ClassVar[bool]
    asks_first: ClassVar[bool]
    port: int
    server: CloudRuntimesClient
    calls: list[Any]

    @abstractmethod
    def client(
        self, port: int, *, host: str = "127.0.0.1", token: str = TOKEN, tls: bool = False, **arguments: Any
    ) -> CloudRuntimesClient:
        """Return a client that believes the sidecar to be there; the caller closes it."""

    @abstractmethod
    def publish_in_parts(self, patched: pytest.MonkeyPatch, events: int) -> None:
        """Have a request carry so many events at most."""

    @staticmethod
    def data_of(event: Event[Any]) -> Any:
        """Return what was published, of an event that came past the sidecar."""
        return event.data

    def publish(self, topic: str, values: Sequence[Any]) -> None:
        """Publish to ``bus``, past the proxy."""
        self.server.pubsub.publish_bulk("bus", topic, values)

    def forget(self) -> None:
        """End what the sidecar keeps of streams that have ended."""

    @abstractmethod
    def close(self) -> None:
        """End the sidecar."""


class DaprHttpFaults(Beneath):
    """The runtime dapr over HTTP, and a sidecar of ours."""

    name = "dapr"
    table = "dapr"
    scheme: ClassVar[str] = "http"
    streams = False
    larger = True
    quiet = True
    sees_garbage = True
    has_token = True
    bulk = True
    asks_first = True

    def __init__(self) -> None:
        self.server = CloudRuntimesClient(
            app_id="faults", config={"capa": {"home": f":memory:faults-{next(_homes)}"}}, timeout=20
        )
        self._resources = ExitStack()
        port = self._resources.enter_context(reserved_port())
        settings = SidecarSettings(
            app_id="faults", app_port=port, http_port=0, grpc_port=0, api_token=TOKEN, max_body=LIMIT
        )
        self._sidecar = Sidecar(self.server, settings)
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
        self.server.close()
        self._resources.close()


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


class LayottoFaults(Beneath):
    """The runtime layotto, and the fake of it.

    Attributes:
        quirks: of the fake.
    """

    name = "layotto"
    table = "layotto"
    streams = True
    larger = False
    quiet = False
    sees_garbage = False
    has_token = False
    bulk = False
    asks_first = False

    def __init__(self) -> None:
        self.server = CloudRuntimesClient(
            app_id="faults", config={"capa": {"home": f":memory:faults-{next(_homes)}"}}, timeout=20
        )
        options = {
            "grpc.max_receive_message_length": LIMIT,
            "grpc.http2.min_ping_interval_without_data_ms": 50,
            "grpc.keepalive_time_ms": 1000,
            "grpc.keepalive_timeout_ms": 1000,
            "grpc.http2.ping_timeout_ms": 1000,
        }
        self.quirks = Quirks()
        self._fake = FakeLayotto(self.server, self.quirks, app_id="faults", options=options)
        self.port = int(self._fake.address.rpartition(":")[2])
        self._app = self.client(self.port)
        self.calls = []
        self._app.rpc.register_method("count", self.calls.append)
        self._serving = self._app.rpc.serving()
        self._serving.__enter__()
        self._fake.invoke.routes["faults"] = self._serving.address.removeprefix("http://")

    def client(
        self, port: int, *, host: str = "127.0.0.1", token: str = TOKEN, tls: bool = False, **arguments: Any
    ) -> CloudRuntimesClient:
        config = arguments.pop("config", {})
        own = {"configuration_refresh": 0.2, **config.get(self.table, {})}
        return CloudRuntimesClient(
            f"{'grpcs' if tls else 'grpc'}://{host}:{port}",
            runtime="layotto",
            app_id="faults",
            config={**config, self.table: own},
            **arguments,
        )

    def publish_in_parts(self, patched: pytest.MonkeyPatch, events: int) -> None:
        """It carries one at all times."""

    @staticmethod
    def data_of(event: Event[Any]) -> Any:
        if not isinstance(event.data, bytes):
            return event.data
        envelope = json.loads(event.data)  # of the sidecar, around ours
        return json.loads(base64.b64decode(envelope["data_base64"]))["data"]

    def publish(self, topic: str, values: Sequence[Any]) -> None:
        self._app.pubsub.publish_bulk("bus", topic, values)

    def forget(self) -> None:
        self._fake.reset()

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        self._app.close()
        self._fake.close()
        self.server.close()


FAULTS: dict[str, type[Beneath]] = {each.name: each for each in (DaprHttpFaults, DaprGrpcFaults, LayottoFaults)}
