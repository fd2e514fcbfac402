"""The gRPC server: each rpc of Layotto (``tests/golden/layotto.txt``) is a method of one of the blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.protocols.layotto.messages import messages

from .configuration import Configuration
from .files import Files
from .invoke import Invoke
from .locks import Locks, Secrets
from .pubsub import PubSub
from .quirks import NONE, Quirks, Refuse
from .state import State

__all__ = ["NONE", "FakeLayotto"]

_SERVICE = "spec.proto.runtime.v1.Runtime"
_GOLDEN = Path(__file__).parents[2] / "golden" / "layotto.txt"
_RPC = re.compile(rf"^/{_SERVICE}/(\w+) (stream )?(?:[\w.]+\.)?(\w+) -> (stream )?(?:[\w.]+\.)?(\w+)$", re.MULTILINE)
_WORKERS = 200
_LARGEST = 64 << 20


class FakeLayotto:
    """See the package.

    Args:
        client: of the embedded runtime; what it stands on.
        quirks: what it does that is odd.
        address: where it listens; port 0: a free one.
        app_id: group of its subscriptions.
        callback_port: where the application takes events; asked once, when this starts.
        options: of the gRPC server.
        clocks: by which the time of events is up.
    """

    def __init__(
        self,
        client: CloudRuntimesClient,
        quirks: Quirks | None = None,
        *,
        address: str = "127.0.0.1:0",
        app_id: str = "suite",
        callback_port: int | None = None,
        options: Mapping[str, Any] | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        self.client = client
        self.quirks = quirks or Quirks()
        self.invoke = Invoke(self.quirks)
        self.pubsub = PubSub(client, self.quirks, app_id, callback_port, clocks or Clocks())
        self.files = Files(client, self.quirks)
        self._blocks = [
            self.invoke,
            self.pubsub,
            self.files,
            Configuration(client, self.quirks),
            Locks(client, self.quirks),
            Secrets(client),
            State(client, self.quirks),
        ]
        every = {
            "grpc.so_reuseport": 0,
            "grpc.max_receive_message_length": _LARGEST,
            "grpc.max_send_message_length": _LARGEST,
            **(options or {}),
        }
        self._pool = ThreadPoolExecutor(_WORKERS, "fake-layotto")
        self._server = grpc.server(self._pool, options=list(every.items()))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, self._handlers()),))
        port = self._server.add_insecure_port(address)
        self.address = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
        self._server.start()
        self.pubsub.begin()

    @property
    def endpoint(self) -> str:
        """For a client."""
        return self.address if self.address.startswith("unix:") else f"grpc://{self.address}"

    def reset(self) -> None:
        """Forget the subscriptions of streams that have ended."""
        self.pubsub.reset()

    def close(self) -> None:
        """End it at once, streams included."""
        stopped = self._server.stop(0)
        self.pubsub.close()
        stopped.wait()
        self._pool.shutdown()

    def __enter__(self) -> FakeLayotto:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        kinds = messages()
        handlers = {}
        for name, asks, request, tells, reply in _RPC.findall(_GOLDEN.read_text(encoding="utf-8")):
            call = next((getattr(block, name) for block in self._blocks if hasattr(block, name)), None)
            if call is not None:
                kind = f"{'stream' if asks else 'unary'}_{'stream' if tells else 'unary'}"
                handlers[name] = getattr(grpc, f"{kind}_rpc_method_handler")(
                    _streamed(call) if tells else _guarded(call),
                    request_deserializer=getattr(kinds, request).FromString,
                    response_serializer=getattr(kinds, reply).SerializeToString,
                )
        return handlers


def _refused(context: grpc.ServicerContext, error: Exception) -> None:
    code = error.code if isinstance(error, Refuse) else "UNKNOWN"
    context.abort(getattr(grpc.StatusCode, code), str(error))


def _guarded(call: Callable[[Any, Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    def run(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(request, context)
        except Exception as error:
            return _refused(context, error)

    return run


def _streamed(call: Callable[[Any, Any], Iterator[Any]]) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
    def run(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from call(request, context)
        except Exception as error:
            _refused(context, error)

    return run
