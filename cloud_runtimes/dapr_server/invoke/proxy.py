"""Calls of gRPC that are passed on as they are: any method, unary or streaming, with the metadata ``dapr-app-id`` (Dapr, "How-To: Invoke services using gRPC")."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Any, Final

import grpc
from grpc import StatusCode, aio

from ...codec import json
from ...errors import CloudRuntimesError, PayloadError
from ...protocols.dapr.failures import DaprError
from ...resiliency.policies import Policy
from ...spi.operation import Method, Operation
from ...spi.rpc import RpcCall
from ..app.grpc import GrpcChannel
from ..context import Context
from .announced import PEER
from .api import CALLEE, CALLER, NAMESPACE, InvokeApi
from .policies import Attempts, not_invoked

_APP_ID: Final = "dapr-app-id"
_KEPT_BACK: Final = frozenset(
    [_APP_ID, CALLEE, CALLER, NAMESPACE, "dapr-api-token", "user-agent", "te", "content-type"]
)
_TRUE: Final = frozenset(["1", "on", "t", "true", "y", "yes"])
_ASK: Final = Method("rpc", "invoke", repeatable=True, writes=False)


class Proxy:
    """See the module."""

    def __init__(self, context: Context, api: InvokeApi) -> None:
        self._context = context
        self._api = api
        self._channels: dict[str, aio.Channel] = {}

    def handler(self, details: grpc.HandlerCallDetails) -> Any:
        """Return who passes a call on, ``None``: it says not to whom."""
        metadata = [(str(name), value) for name, value in details.invocation_metadata or ()]
        headers = dict(metadata)
        target = headers.get(CALLEE) or headers.get(_APP_ID)
        if not isinstance(target, str):
            return None
        target = self._api.app_id_of(target)
        kept = [(name, value) for name, value in metadata if name not in _KEPT_BACK and not name.startswith("grpc-")]
        kept += self._caller(headers)
        # without serializers: bytes go through, and what is unary is a stream of one
        return grpc.stream_stream_rpc_method_handler(partial(self._pass_on, str(details.method), target, kept))

    def _caller(self, headers: dict[str, Any]) -> list[tuple[str, str]]:
        """Return who calls: the own application, or whom another sidecar names, which proves itself by its token."""
        settings = self._context.settings
        token, given = self._context.peer_token, str(headers.get("dapr-api-token"))
        named = headers if token is not None and hmac.compare_digest(given.encode(), token.encode()) else {}
        return [
            (CALLER, str(named.get(CALLER, settings.app_id))),
            (NAMESPACE, str(named.get(NAMESPACE, settings.namespace))),
        ]

    async def _pass_on(
        self, method: str, target: str, metadata: list[tuple[str, Any]], requests: Any, context: Any
    ) -> AsyncGenerator[bytes, None]:
        attempts = self._attempts(method, target, metadata)
        kept = _Kept(requests) if attempts.repeats else None
        begun = False
        code: int | None
        end: tuple[Any, ...]
        try:
            while True:
                attempts.begin()
                sent = requests if kept is None else kept.all()
                passing = self._attempt(method, target, metadata, sent, context, attempts)
                try:
                    async with aclosing(passing) as messages:
                        async for message in messages:
                            begun = True  # what has been passed on cannot be taken back
                            yield message
                    await attempts.again(0)
                    return
                except CloudRuntimesError as error:
                    code, end = None, (StatusCode.UNKNOWN, not_invoked(target, error.message).message, ())
                except aio.AioRpcError as error:
                    code = error.code().value[0]
                    end = (error.code(), error.details() or "", _shown(error.trailing_metadata()))
                if not await attempts.again(code, repeatable=kept is not None and kept.whole and not begun):
                    await context.abort(*end)
        except DaprError as error:
            await context.abort(StatusCode.UNKNOWN, error.message)
        finally:
            if kept is not None:
                kept.close()

    def _attempts(self, method: str, target: str, metadata: list[tuple[str, Any]]) -> Attempts:
        """Return what decides of the attempts: nothing for the own application and for streams that say so, as in daprd."""
        free = self._api.is_own(target) or str(dict(metadata).get("dapr-stream")).lower() in _TRUE
        return Attempts(target, Policy(), None) if free else self._api.policies.attempts(target, method)

    async def _attempt(
        self,
        method: str,
        target: str,
        metadata: list[tuple[str, Any]],
        requests: Any,
        context: Any,
        attempts: Attempts,
    ) -> AsyncGenerator[bytes, None]:
        """Make one attempt. Where another may follow, the caller gets nothing of it before its first message."""
        with ExitStack() as used:
            channel, more = await self._channel(target, used)
            limits = [each for each in (context.time_remaining(), attempts.timeout) if each is not None]
            call: Any = channel.stream_stream(method)(
                timeout=min(limits, default=None), metadata=aio.Metadata(*metadata, *more)
            )
            feeding = asyncio.create_task(_feed(call, requests))
            used.callback(call.cancel)  # nothing, once it is over
            used.callback(feeding.cancel)
            headers_sent = False
            if not attempts.repeats:
                await context.send_initial_metadata(_shown(await call.initial_metadata()))
                headers_sent = True
            async for message in call:
                if not headers_sent:
                    await context.send_initial_metadata(_shown(await call.initial_metadata()))
                    headers_sent = True
                yield message
            context.set_trailing_metadata(_shown(await call.trailing_metadata()))

    async def _channel(self, target: str, used: ExitStack) -> tuple[aio.Channel, tuple[tuple[str, str], ...]]:
        """Return the way to an application, which is given back by ``used``, and what is sent besides the metadata of the call."""
        if self._api.is_own(target):
            app = self._context.app
            if not isinstance(app, GrpcChannel):
                why = "it speaks HTTP: give --app-protocol grpc" if app else "it has no port: give --app-port"
                raise CloudRuntimesError(f"the application takes no calls of gRPC: {why}")
            return used.enter_context(app.channel()), ((CALLEE, target), *app.token)
        address, token = await self._peer(target)
        channel = self._channels.get(address)
        if channel is None:
            if len(self._channels) >= 256:
                _, oldest = self._channels.popitem()
                await oldest.close()
            channel = self._channels[address] = aio.insecure_channel(
                address,
                options=(
                    ("grpc.max_receive_message_length", self._context.settings.max_body),
                    ("grpc.max_send_message_length", -1),
                    ("grpc.enable_http_proxy", 0),
                ),
            )
        return channel, ((CALLEE, target), (_APP_ID, target), ("dapr-api-token", token))

    async def _peer(self, target: str) -> tuple[str, str]:
        """Ask the sidecar of an application for its address, by our registry, which proves who it is."""
        driver = self._context.driver("rpc", target)
        op = Operation(_ASK, target, self._context.settings.timeout)
        reply = await driver.invoke_async(op, RpcCall(PEER, PEER, "GET", b"", None, {}, ""))
        try:
            peer = json.decode(reply.data) if reply.status == 200 else None
        except PayloadError:
            peer = None
        if not isinstance(peer, dict) or not peer.get("grpc"):
            raise CloudRuntimesError(f"{target!r} is no application beside a sidecar that serves gRPC")
        return str(peer["grpc"]), str(peer["token"])

    async def close(self) -> None:
        """Close the ways to other sidecars; calls under way may end within the grace."""
        grace = self._context.settings.grace
        await asyncio.gather(*(channel.close(grace) for channel in self._channels.values()))


class _Kept:
    """Messages of a caller, kept for further attempts while there is one, as of a unary call.

    Attributes:
        whole: all that came is still there.
    """

    def __init__(self, requests: Any) -> None:
        self.whole = True
        self._first: list[bytes] = []
        self._coming: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._ended = False
        # a read of grpcio that is cancelled takes the next message with it
        self._reading = asyncio.create_task(self._read(requests))

    async def _read(self, requests: Any) -> None:
        async for each in requests:
            await self._coming.put(each)
        await self._coming.put(None)

    async def all(self) -> AsyncGenerator[bytes, None]:
        """Yield what came, and what comes."""
        for each in self._first:
            yield each
        while not self._ended:
            message = await self._coming.get()
            if message is None:
                self._ended = True
                return
            if self._first:
                self.whole = False
            else:
                self._first.append(message)
            yield message

    def close(self) -> None:
        """Read no more."""
        self._reading.cancel()


async def _feed(call: Any, requests: Any) -> None:
    """Send what the caller sends. A message that comes too late, since the call has been ended, is nothing: how it ended is told by reading.

    `aio.StreamStreamCall.write` would then put an internal error in the place of the application's own status (grpcio 1.66 to 1.85), so its inner method is used.
    """
    try:
        await call.wait_for_connection()
        send = getattr(getattr(call, "_cython_call", None), "send_serialized_message", None) or call.write
        async for each in requests:
            await send(each)
        await call.done_writing()
    except Exception:
        return


def _shown(metadata: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (name, value) for name, value in metadata or () if not name.startswith("grpc-") or name.endswith("-bin")
    )
