"""A sidecar beside an application that it brings calls to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from tests.support.apps import App, GrpcApp
from tests.support.running import declared
from tests.support.waiting import until

__all__ = ["Streams", "beside"]


@contextmanager
def beside(app: App | GrpcApp | None, home: Path | str, app_id: str = "app", **settings: Any) -> Iterator[Sidecar]:
    """Serve a sidecar of that application id."""
    if app is not None:
        settings |= {"app_port": app.port, "app_protocol": "http" if isinstance(app, App) else "grpc"}
    config = declared(str(home)) if isinstance(home, Path) else {"capa": {"home": home}}
    with CloudRuntimesClient(config=config, app_id=app_id) as client:
        options = SidecarSettings(**{"app_id": app_id, "http_port": 0, "grpc_port": 0, "grace": 1.0, **settings})
        with Sidecar(client, options) as sidecar:
            if app is not None:
                until(lambda: sidecar.context.app is not None and sidecar.context.app.is_ready)
            yield sidecar


class Streams(GrpcApp):
    """An application with methods of its own, whose messages nobody else knows."""

    def service(self, handler_call_details: Any) -> Any:
        self.got.append((handler_call_details.method, None, dict(handler_call_details.invocation_metadata)))
        return {
            "/mine.Greeter/Hello": grpc.unary_unary_rpc_method_handler(self.hello),
            "/mine.Greeter/Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "/mine.Greeter/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }.get(handler_call_details.method)

    def hello(self, request: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("x-initial", "1"),))
        context.set_trailing_metadata((("x-trailing", "2"), ("x-bytes-bin", b"\x00\xff")))
        return b"hello " + request

    def chat(self, requests: Any, context: Any) -> Iterator[bytes]:
        for each in requests:
            yield b"> " + each

    def fail(self, request: bytes, context: Any) -> Any:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
