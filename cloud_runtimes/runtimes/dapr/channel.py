"""One gRPC channel for all threads and loops of a client, and what failed on it.

The library's synchronous channel has futures, which an event loop can wait for; its asynchronous one belongs to a loop.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

from ... import __version__, _fork
from ..._dapr.failures import GRPC_TO_HTTP
from ..._dapr.messages import messages
from ..._operation import Method, Operation
from ...errors import (
    ClosedError,
    CloudRuntimesError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from ...rpc._proof import CALLER_HEADER, TIMEOUT_HEADER
from .failures import Refusal, Refused
from .streams import GrpcStream
from .transport import Stream, Transport

if TYPE_CHECKING:
    import grpc

__all__ = ["Call", "Channel", "Whole"]

_SERVICE: Final = "/dapr.proto.runtime.v1.Dapr/"
_READS: Final = frozenset(["GetMetadata", "GetState", "GetBulkState", "GetSecret", "GetBulkSecret", "GetConfiguration"])
_NEVER_SENT: Final = re.compile(
    r"failed to connect to all addresses|Sent message larger than max|DNS resolution failed"
)
"""Of the gRPC library here: nothing has left this process."""
_TOO_LARGE: Final = re.compile(r"(Sent|Received) message larger than max")
_MOST: Final = 1000
_TICK: Final = 0.1
"""Seconds by which the library's clock may be ahead of a deadline."""
_STREAM: Final = Method("client", "stream", repeatable=False, writes=False)
# channels of a parent: kept, since letting go of one would close it
_inherited: list[Any] = []


class Call(NamedTuple):
    """One request.

    Attributes:
        name: of the method.
        message: what is sent.
        reply: the kind of message that comes.
        headers: metadata beside the token.
        whole: it is a call of an application: it tells caller and deadline, and the reply is to come with its headers.
    """

    name: str
    message: Any
    reply: str
    headers: tuple[tuple[str, str], ...] = ()
    whole: bool = False


class Whole(NamedTuple):
    """A reply with its headers; of a failure with what the ``ErrorInfo`` tells."""

    message: Any
    headers: Mapping[str, str]
    refusal: Refusal | None
    info: Mapping[str, str]


class Channel(Transport):
    """Requests and streams; the calls are its subclass's.

    Args:
        target: as gRPC names it, ``host:port`` or ``unix:path``.
        url: for messages.
        secure: TLS, with the system's certificates.
        token: of the sidecar's API.
        app_id: of this application, for those that it calls.
        largest: bytes of a message.

    Attributes:
        connecting: seconds that an attempt to connect may take.
        keepalive: seconds of silence in a call after which the sidecar is asked whether it is still there; Dapr bears one such ping in 8 s (dapr/dapr ``pkg/api/grpc/server.go``).
        keepalive_answer: seconds in which it has to answer, else the connection is taken for dead.
    """

    connecting: ClassVar[float] = 5.0
    keepalive: ClassVar[float] = 10.0
    keepalive_answer: ClassVar[float] = 5.0
    exact = True
    streams = True

    def __init__(self, target: str, url: str, *, secure: bool, token: str | None, app_id: str, largest: int) -> None:
        super().__init__(url)
        self._target = target
        self._secure = secure
        self._metadata: tuple[tuple[str, str], ...] = () if token is None else (("dapr-api-token", token),)
        self._app_id = app_id
        self.largest = largest
        self._lock = threading.RLock()  # a signal handler may close the client
        self._made: grpc.Channel | None = None
        # what makes requests, by the method's name: making one takes as long as a tenth of a call
        self._methods: dict[str, Any] = {}
        _fork.register(self)

    def forked(self) -> None:
        """In a forked child: the channel is the parent's."""
        _inherited.append((self._made, self._methods))
        self._lock = threading.RLock()
        self._made = None
        self._methods = {}

    def _channel(self) -> grpc.Channel:
        if (channel := self._made) is not None:
            return channel
        with _fork.importing, self._lock:
            if self._made is None:
                import grpc

                options = (
                    ("grpc.primary_user_agent", f"cloud-runtimes-python/{__version__}"),
                    ("grpc.max_receive_message_length", self.largest),
                    ("grpc.max_send_message_length", self.largest),
                    ("grpc.enable_retries", 0),  # the service's
                    # a sidecar that is stopped, or behind a way that is cut, ends no connection
                    ("grpc.keepalive_time_ms", int(self.keepalive * 1000)),
                    ("grpc.keepalive_timeout_ms", int(self.keepalive_answer * 1000)),
                    ("grpc.http2.ping_timeout_ms", int(self.keepalive_answer * 1000)),  # this is what ends it
                    ("grpc.http2.max_pings_without_data", 0),  # a subscription to what seldom comes has none
                    ("grpc.initial_reconnect_backoff_ms", 100),
                    ("grpc.min_reconnect_backoff_ms", int(self.connecting * 1000)),  # what an attempt has
                    ("grpc.max_reconnect_backoff_ms", 2000),
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.enable_http_proxy", 0),
                )
                if self._secure:
                    self._made = grpc.secure_channel(
                        self._target, grpc.ssl_channel_credentials(_certificates()), options
                    )
                else:
                    self._made = grpc.insecure_channel(self._target, options)
                if self._closed:  # just now
                    self._made.close()
            return self._made

    def close(self) -> None:
        self._closed = True
        with self._lock:
            if self._made is not None:
                self._made.close()

    # -- one request --------------------------------------------------------

    def _prepared(self, op: Operation, call: Call) -> tuple[Any, dict[str, Any]]:
        """Return what makes a request, and its options."""
        method = self._methods.get(call.name)
        if method is None:
            method = self._methods[call.name] = self._channel().unary_unary(
                _SERVICE + call.name,
                request_serializer=_serialized,
                response_deserializer=getattr(messages(), call.reply).FromString,
            )
        left = op.remaining()
        metadata = self._metadata + call.headers
        if call.whole:
            metadata += ((CALLER_HEADER, self._app_id),)
            if left is not None:
                metadata += ((TIMEOUT_HEADER, str(int(left * 1000) + 1)),)
        return method, {"timeout": left, "metadata": metadata}

    def _send(self, op: Operation, request: Call) -> Any:
        method, options = self._prepared(op, request)
        import grpc

        try:
            # not by a future, which takes half as long again
            reply, call = method.with_call(request.message, **options)
        except grpc.RpcError as error:
            return self._failed(op, request, error)
        except ValueError:
            if not self._closed:
                raise
            raise self._gone(False) from None
        return self._replied(request, reply, call)

    async def _send_async(self, op: Operation, request: Call) -> Any:
        import asyncio

        method, options = self._prepared(op, request)
        try:
            future = method.future(request.message, **options)
        except ValueError:
            if not self._closed:
                raise
            raise self._gone(False) from None
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()

        def resolve() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def done(_: Any) -> None:
            try:
                loop.call_soon_threadsafe(resolve)
            except RuntimeError:
                pass  # that loop is closed

        future.add_done_callback(done)
        try:
            await waiter
        except BaseException:
            future.cancel()
            raise
        if future.cancelled():
            raise self._gone(op.method.writes and request.name not in _READS)
        import grpc

        try:
            reply = future.result()
        except grpc.RpcError:
            return self._failed(op, request, future)
        return self._replied(request, reply, future)

    @staticmethod
    def _replied(request: Call, reply: Any, call: Any) -> Any:
        return Whole(reply, _texts_of(call.initial_metadata() or ()), None, {}) if request.whole else reply

    def _failed(self, op: Operation, request: Call, call: Any) -> Any:
        """Return what the sidecar says; raise what happened on the way."""
        writes = op.method.writes and request.name not in _READS
        code = call.code().name
        details = str(call.details() or "")[:_MOST]
        if code == "CANCELLED" and self._closed:
            raise self._gone(writes)
        trailing = call.trailing_metadata() or ()
        said, info = refusal_of(code, details, trailing)
        # a status that came from the sidecar is its word; else it is this library's
        if not said.reason and not info and (error := self._own(op, code, details, writes)):
            raise error
        if request.whole:
            return Whole(None, _texts_of(call.initial_metadata() or ()), said, info)
        return said

    def _own(self, op: Operation, code: str, details: str, writes: bool) -> CloudRuntimesError | None:
        """Return the error of a call that failed on the way."""
        sent = writes and _NEVER_SENT.search(details) is None
        if code == "UNAVAILABLE":
            return UnavailableError(
                f"the sidecar at {self.url} cannot be reached: {details}; start one (cloud-runtimes serve, dapr run), "
                'or work without: runtime="capa"',
                maybe_applied=sent,
            )
        if code == "DEADLINE_EXCEEDED" and (left := op.remaining()) is not None and left < _TICK:
            return op.timed_out("the sidecar", maybe_applied=sent)
        if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE.search(details):
            return ResourceExhaustedError(
                f"the sidecar at {self.url}: {details}; max_message in [dapr] raises the limit here", maybe_applied=sent
            )
        if code == "UNAUTHENTICATED":
            return UnauthenticatedError(
                f"the sidecar at {self.url} refuses the token: give its DAPR_API_TOKEN, in the environment or as api_token="
            )
        return None

    def _gone(self, maybe_applied: bool) -> ClosedError:
        return ClosedError("the client was closed while this call was under way", maybe_applied=maybe_applied)

    def _wrote(self, request: Call, reply: Any) -> bool:
        refused = reply.refusal if isinstance(reply, Whole) else reply
        return request.name not in _READS and not isinstance(refused, Refusal)

    # -- streams ------------------------------------------------------------

    def open(
        self,
        kind: Literal["events", "configuration"],
        first: Any,
        receive: Callable[[Any], None],
        ended: Callable[[Exception | None], None],
    ) -> Stream:
        self._check()
        events = kind == "events"
        return GrpcStream(
            self._channel(),
            _SERVICE + ("SubscribeTopicEventsAlpha1" if events else "SubscribeConfiguration"),
            getattr(messages(), "SubscribeTopicEventsResponseAlpha1" if events else "SubscribeConfigurationResponse"),
            first,
            both_ways=events,
            metadata=self._metadata,
            receive=receive,
            ended=lambda failure: ended(None if failure is None else self._ended(*failure)),
        )

    def _ended(self, code: str, details: str, trailing: Any) -> Exception:
        """Return why a stream ended: `Refused`, or one of our errors."""
        said, _ = refusal_of(code, details[:_MOST], trailing)
        if code == "CANCELLED":
            return UnavailableError(f"the stream from the sidecar at {self.url} has ended")
        if not said.reason and code in ("UNAVAILABLE", "UNAUTHENTICATED"):
            op = Operation(_STREAM, "sidecar", None)
            return self._own(op, code, details[:_MOST], False) or Refused(said)
        return Refused(said)


def refusal_of(code: str, details: str, trailing: Any) -> tuple[Refusal, Mapping[str, str]]:
    """Return what a status says, and the metadata of its ``ErrorInfo``."""
    reason: str = ""
    info: dict[str, str] = {}
    for key, value in trailing:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            reason, info = _info(value)
    return Refusal(GRPC_TO_HTTP.get(code, 500), f"grpc {code}", reason, details or code), info


def _info(data: bytes) -> tuple[str, dict[str, str]]:
    from google.protobuf.message import DecodeError

    kinds = messages()
    try:
        for each in kinds.Status.FromString(data).details:
            if each.type_url.endswith("/google.rpc.ErrorInfo"):
                found = kinds.ErrorInfo.FromString(each.value)
                return found.reason, dict(found.metadata)
    except DecodeError:
        pass
    return "", {}


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _texts_of(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata if isinstance(value, str)}


def _certificates() -> bytes | None:
    """Return the system's certificates, as HTTPS has them; ``None``: gRPC's own."""
    import ssl
    from pathlib import Path

    path = ssl.get_default_verify_paths().cafile
    return None if path is None else Path(path).read_bytes()
