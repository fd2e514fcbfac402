"""The application that the RPC suite calls: `register` gives its methods to a client, `main` serves them in a process of their own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import errors
from ..._service import context_of
from ...rpc import RpcRequest, RpcResponse

if TYPE_CHECKING:
    from ...client import CloudRuntimesClient

CANARY = "canary-7f3a"
"""Stands in what a handler raises and nobody may be told."""


@dataclass
class Order:
    """A typed value."""

    id: int
    tags: list[str]


class UserError(errors.ConflictError):
    """An application's own error."""


def _describe(data: Any, request: RpcRequest) -> dict[str, Any]:
    return {
        "data": data.decode("latin-1") if isinstance(data, bytes) else data,
        "method": request.method,
        "http_method": request.http_method,
        "headers": dict(request.headers),
        "query": dict(request.query),
        "content_type": request.content_type,
        "size": len(request.data),
        "caller": request.caller,
        "remaining": request.remaining(),
        "traceparent": request.traceparent,
        "process": os.getpid(),
    }


def register(client: CloudRuntimesClient) -> None:
    """Register all methods."""
    rpc = client.rpc
    calls: list[Any] = []

    @rpc.method("echo")
    def echo(data: Any) -> Any:
        return data

    @rpc.method("echo-async")
    async def echo_async(data: Any) -> Any:
        await asyncio.sleep(0)
        return data

    @rpc.method("mutate")
    def mutate(data: Any) -> Any:
        data["list"].append("changed")
        calls.append(data)
        return data

    rpc.register_method("describe", _describe)
    rpc.register_method("a/deep/näme%20%", _describe)  # percent-encoded on its way

    @rpc.method("nothing")
    def nothing() -> None:
        calls.append("nothing")

    @rpc.method("count")
    async def count() -> int:
        calls.append("count")
        return len(calls)

    @rpc.method("raw")
    def raw(data: bytes, request: RpcRequest) -> RpcResponse:
        return RpcResponse(201, {"X-Answer": "yes"}, request.content_type, request.data)

    @rpc.method("typed", type=Order)
    def typed(order: Order) -> Order:
        assert type(order) is Order
        return Order(order.id + 1, [*order.tags, "seen"])

    @rpc.method("fail")
    def fail(data: dict[str, Any]) -> None:
        cls = UserError if data["error"] == "UserError" else getattr(errors, data["error"])
        raise cls(data.get("message", "told"), **data.get("arguments", {}))

    @rpc.method("fail-async")
    async def fail_async(data: dict[str, Any]) -> None:
        fail(data)

    @rpc.method("crash")
    def crash() -> None:
        raise ValueError(CANARY)

    @rpc.method("crash-async")
    async def crash_async() -> None:
        raise LookupError(CANARY)

    @rpc.method("exit")
    async def leave() -> None:
        sys.exit(3)

    @rpc.method("cancel")
    async def cancel() -> None:
        raise asyncio.CancelledError

    @rpc.method("garbage")
    def garbage() -> Any:
        return object()

    @rpc.method("bad-response")
    def bad_response(data: str) -> RpcResponse:
        bad: dict[str, RpcResponse] = {
            "status": RpcResponse(99),
            "header": RpcResponse(200, {"x": "a\r\nset-cookie: b"}),
            "framing": RpcResponse(200, {"content-length": "3"}),
            "data": RpcResponse(200, {}, None, "text"),  # type: ignore[arg-type]
        }
        return bad[data]

    @rpc.method("status")
    def status(data: int) -> RpcResponse:
        return RpcResponse(data, {"x-told": "1"}, "text/plain", b"" if data in (204, 304) else b"told")

    @rpc.method("redirect")
    def redirect(data: str) -> RpcResponse:
        return RpcResponse(307, {"location": data})

    @rpc.method("sleep")
    def sleep(seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    @rpc.method("sleep-async")
    async def sleep_async(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @rpc.method("deaf")
    async def deaf(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                continue

    @rpc.method("chain")
    def chain(data: Any) -> Any:
        return rpc.invoke_method(context_of(client).settings.app_id, "describe", data)

    @rpc.method("chain-async")
    async def chain_async(data: Any) -> Any:
        return await rpc.invoke_method_async(context_of(client).settings.app_id, "describe", data)

    @rpc.method("die")
    def die() -> None:
        os._exit(9)


def main() -> None:
    """Serve, with the home and ``app_id`` of the arguments, until the standard input ends."""
    from ...client import CloudRuntimesClient

    home, app_id, token = sys.argv[1:]
    capa = {"home": home, **({"rpc_token": token} if token else {})}
    with CloudRuntimesClient(config={"capa": capa}, app_id=app_id) as client:
        register(client)
        with client.rpc.serving() as server:
            sys.stdout.write(f"{server.address}\n")
            sys.stdout.flush()
            sys.stdin.read()
