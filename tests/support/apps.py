"""Applications beside a sidecar, of HTTP and of gRPC, that say what they got; and waiting for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from cloud_runtimes.protocols.dapr.messages import messages
from tests.support.listening import Answer, HttpServer

PATIENCE = 60.0


@dataclass(frozen=True)
class Got:
    """Request that an application received; header names are in lower case."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass
class Reply:
    """Response of an application."""

    status: int = 200
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)


class App(HttpServer):
    """An application over HTTP: ``answer`` gives the reply to what it got, except to ``/dapr/subscribe``, which tells ``subscriptions``."""

    def __init__(
        self, subscriptions: Any = None, answer: Callable[[Got], Reply | None] | None = None, *, port: int = 0
    ) -> None:
        self.got: list[Got] = []
        self.asked: list[Got] = []
        self.subscriptions = subscriptions
        self.answer = answer
        self.closing = False
        """Answer each request on a connection of its own."""
        super().__init__(port, start=False)

    def answered(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        reply = self.take(Got(method, path, [(name.lower(), value) for name, value in headers.items()], body))
        return reply.status, reply.body, [*reply.headers, *([("connection", "close")] if self.closing else [])]

    def take(self, got: Got) -> Reply:
        """Answer a request."""
        if got.path.startswith("/dapr/"):
            self.asked.append(got)
            if got.path != "/dapr/subscribe" or self.subscriptions is None:
                return Reply(404)
            return Reply(200, json.dumps(self.subscriptions).encode(), [("content-type", "application/json")])
        self.got.append(got)
        return (self.answer and self.answer(got)) or Reply()

    def at(self, path: str) -> list[Got]:
        """Return the requests to a path."""
        return [each for each in self.got if each.path == path]


class GrpcApp(grpc.GenericRpcHandler):
    """An application over gRPC: ``answers`` has a function for each method (the last part of its path) that it knows."""

    def __init__(self, **answers: tuple[str, Callable[[Any, Any], Any]]) -> None:
        self.answers = answers
        self.got: list[tuple[str, Any, dict[str, Any]]] = []
        self.others: dict[str, Any] = {}
        self.port = 0

    def service(self, handler_call_details: Any) -> Any:
        """Return who answers."""
        path = handler_call_details.method
        if path in self.others:
            return self.others[path]
        name = path.rpartition("/")[2]
        if name not in self.answers:
            return None
        kind, function = self.answers[name]

        def answer(request: Any, context: Any) -> Any:
            self.got.append((name, request, dict(context.invocation_metadata())))
            return function(request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer, getattr(messages(), kind).FromString, lambda message: message.SerializeToString()
        )

    def named(self, name: str) -> list[Any]:
        """The requests to one method."""
        return [request for method, request, _ in self.got if method == name]


@contextmanager
def serving_grpc(app: GrpcApp, port: int = 0, *, streams: int = 1000) -> Iterator[GrpcApp]:
    """Serve an application, which allows so many streams on one connection."""
    options = (("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", streams))
    server = grpc.server(ThreadPoolExecutor(8), handlers=(app,), options=options)
    app.port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield app
    finally:
        server.stop(0).wait()
