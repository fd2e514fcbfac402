"""Requests and streams to a sidecar over one gRPC channel for all threads and loops of a client.

The library's synchronous channel has futures, which an event loop can wait for; its asynchronous one belongs to a loop.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from ... import errors
from ..._core import fork
from ..._core.threads import Mutex
from ..._http.proof import CALLER_HEADER, TIMEOUT_HEADER
from ..._version import __version__
from ...errors import CloudRuntimesError
from ...protocols.dapr.failures import GRPC_TO_HTTP
from ...spi.operation import Method, Operation
from .grpc_stream import GrpcStream, active, serialized
from .transport import Ended, ErrorReply, Flow, Receive, SidecarError, Stream, Transport

if TYPE_CHECKING:
    import grpc

_NEVER_SENT: Final = re.compile(
    r"failed to connect to all addresses|Sent message larger than max|DNS resolution failed"
)
"""Of the gRPC library here: nothing has left this process."""
_TOO_LARGE: Final = re.compile(r"(Sent|Received) message larger than max")
_READS: Final = ("Get", "List", "SayHello")
"""What the names of methods begin with that change nothing."""
MOST: Final = 1000
"""Characters of a sidecar's text in an error."""
_TICK: Final = 0.1
"""Seconds by which the library's clock may be ahead of a deadline."""
_STREAM: Final = Method("client", "stream", repeatable=False, writes=False)


class Call(NamedTuple):
    """Request to the sidecar."""

    name: str
    message: Any  # an iterator: several, one after another
    reply: str
    headers: Mapping[str, str] | None = (
        None  # of a call of an application, which is answered by a message and its headers
    )


class StreamMethod(NamedTuple):
    """A kind of stream: the method, the kind of message that comes, and whether more can be sent after the first message."""

    name: str
    reply: str
    both_ways: bool = True


class GrpcCalls(Transport):
    """See the module. ``url`` is for messages; ``metadata`` goes with every call; TLS is by the system's certificates."""

    exact = True
    streams = True
    # seconds that an attempt to connect may take
    connecting: ClassVar[float] = 5.0
    # seconds of silence in a call after which the sidecar is asked whether it is still there, and those it has to answer; Dapr bears one such ping in 8 s (dapr/dapr ``pkg/api/grpc/server.go``)
    keepalive: ClassVar[float] = 10.0
    keepalive_answer: ClassVar[float] = 5.0
    # path of the gRPC service, with ``/`` at both ends
    service: ClassVar[str]
    # kind of a stream → how it is opened
    stream_methods: ClassVar[Mapping[str, StreamMethod]]
    # what a refusal is raised as
    refused: ClassVar[type[SidecarError]]
    # for messages: the table of the configuration, what the token is called, and what to do where there is no sidecar
    table: ClassVar[str]
    token_name: ClassVar[str]
    remedy: ClassVar[str]

    def __init__(
        self,
        target: str,
        url: str,
        *,
        secure: bool,
        metadata: tuple[tuple[str, str], ...] = (),
        app_id: str,
        largest: int,
    ) -> None:
        super().__init__(url)
        self._target = target
        self._secure = secure
        self._metadata = metadata
        self._app_id = app_id
        self.largest = largest
        self._lock = Mutex()  # a signal handler may close the client
        self._channel: grpc.Channel | None = None
        # what makes requests, by the method's name: making one takes as long as a tenth of a call
        self._methods: dict[str, Any] = {}
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: the channel is the parent's."""
        fork.keep(self._channel, self._methods)
        self._channel = None
        self._methods = {}

    def native(self) -> grpc.Channel:
        if (channel := self._channel) is not None:
            return channel
        with fork.importing, self._lock:
            if self._channel is None:
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
                    trust = grpc.ssl_channel_credentials(_certificates())
                    self._channel = grpc.secure_channel(self._target, trust, options)
                else:
                    self._channel = grpc.insecure_channel(self._target, options)
                if self._closed:  # just now
                    self._channel.close()
            return self._channel

    def close(self) -> None:
        self._closed = True
        with self._lock:
            if self._channel is not None:
                self._channel.close()

    @staticmethod
    @abstractmethod
    def pb() -> Any:
        """Return the classes of messages."""

    @abstractmethod
    def ready(self) -> Flow[str]:
        """Return ``""`` once the sidecar answers, else why it does not yet."""

    # -- one request --------------------------------------------------------

    def _prepared(self, op: Operation, call: Call) -> tuple[Any, dict[str, Any]]:
        method = self._methods.get(call.name)
        if method is None:
            channel = self.native()
            make = channel.stream_unary if isinstance(call.message, Iterator) else channel.unary_unary
            method = self._methods[call.name] = make(
                self.service + call.name,
                request_serializer=serialized,
                response_deserializer=getattr(self.pb(), call.reply).FromString,
            )
        remaining = op.remaining()
        metadata = self._metadata
        if call.headers is not None:
            metadata += (*call.headers.items(), (CALLER_HEADER, self._app_id), *self._limits(remaining))
        return method, {"timeout": remaining, "metadata": metadata}

    def _limits(self, remaining: float | None) -> tuple[tuple[str, str], ...]:
        """Return the headers that tell an application how many seconds are left."""
        return () if remaining is None else ((TIMEOUT_HEADER, str(int(remaining * 1000) + 1)),)

    def exchange(self, op: Operation, request: Call) -> Any:
        import grpc

        active.begin()
        try:
            method, options = self._prepared(op, request)
            # not by a future, which takes half as long again
            reply, call = method.with_call(request.message, **options)
        except grpc.RpcError as error:
            raise self._failed(op, request, error) from None
        except ValueError:
            if not self._closed:
                raise
            raise self._gone(False) from None
        finally:
            active.end()
        return self._replied(request, reply, call)

    async def exchange_async(self, op: Operation, request: Call) -> Any:
        import grpc

        await active.begin_async()
        try:
            method, options = self._prepared(op, request)
            future = method.future(request.message, **options)
            await _done(future)
            reply = future.result()
        except grpc.FutureCancelledError:
            raise self._gone(True) from None
        except grpc.RpcError:
            raise self._failed(op, request, future) from None
        except ValueError:
            if not self._closed:
                raise
            raise self._gone(False) from None
        finally:
            active.end()
        return self._replied(request, reply, future)

    @staticmethod
    def _replied(request: Call, reply: Any, call: Any) -> Any:
        return reply if request.headers is None else (reply, _headers_of(call))

    def _failed(self, op: Operation, request: Call, call: Any) -> Exception:
        """Return what the sidecar says, or what happened on the way."""
        code, details = call.code().name, str(call.details() or "")[:MOST]
        if code == "CANCELLED" and self._closed:
            return self._gone(True)
        error_reply, info = self._read(code, details, call.trailing_metadata() or ())
        # a status that came from the sidecar is its word; else it is this library's
        if not error_reply.reason and not info and not self._from_sidecar(request, code, details):
            error = self._local_error(op, code, details)
            if error is not None:
                return error
        refused = self.refusal(request.name, error_reply)
        refused.headers, refused.info = _headers_of(call), info
        return refused

    def _read(self, code: str, details: str, trailing: Any) -> tuple[ErrorReply, Mapping[str, str]]:
        """Return what a status says, and the metadata of its details."""
        return ErrorReply(GRPC_TO_HTTP.get(code, 500), f"grpc {code}", "", details or code), {}

    def _from_sidecar(self, request: Call, code: str, details: str) -> bool:
        """Return whether a status without details is the sidecar's all the same."""
        return False

    def _local_error(self, op: Operation, code: str, details: str) -> CloudRuntimesError | None:
        """Return the error of a call that failed on the way."""
        sent = not never_sent(details)
        if code == "UNAVAILABLE":
            return errors.UnavailableError(
                f"the sidecar at {self.url} cannot be reached: {details}; {self.remedy}, "
                'or work without: runtime="capa"',
                maybe_applied=sent,
            )
        # the sidecar knows the deadline too: it may end a call that is late first, without a word
        late = code == "DEADLINE_EXCEEDED" or (code in ("CANCELLED", "UNKNOWN") and "RST_STREAM" in details)
        if late and (remaining := op.remaining()) is not None and remaining < _TICK:
            return op.timed_out("the sidecar", maybe_applied=sent)
        if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE.search(details):
            return errors.ResourceExhaustedError(
                f"the sidecar at {self.url}: {details}; bytes of state and events go as base64, a third larger; "
                f"max_message in {self.table} raises the limit here",
                maybe_applied=sent,
            )
        if code == "UNAUTHENTICATED":
            return errors.UnauthenticatedError(
                f"the sidecar at {self.url} refuses the token: give its {self.token_name}, in the environment or as api_token="
            )
        return None

    @staticmethod
    def _gone(maybe_applied: bool) -> errors.ClosedError:
        return errors.ClosedError("the client was closed while this call was under way", maybe_applied=maybe_applied)

    def writes(self, op: Operation, request: Call) -> bool:
        return not request.name.startswith(_READS) or request.name == "GetNextId"

    # -- streams ------------------------------------------------------------

    def open(self, kind: str, first: Any, receive: Receive, ended: Ended) -> Stream:
        """Begin a stream of a kind that this sidecar has; ``receive`` gets each message and ``ended`` its end, in a thread of its own."""
        self._check()
        opening = self.stream_methods[kind]
        return GrpcStream(
            self.native(),
            self.service + opening.name,
            getattr(self.pb(), opening.reply),
            first,
            both_ways=opening.both_ways,
            metadata=self._metadata,
            receive=receive,
            ended=lambda failure: ended(None if failure is None else self._ended(*failure)),
        )

    def _ended(self, code: str, details: str, trailing: Any) -> Exception:
        """Return why a stream ended: `SidecarError`, or one of our errors."""
        if code == "CANCELLED":
            return errors.UnavailableError(f"the stream from the sidecar at {self.url} has ended")
        error_reply, _ = self._read(code, details[:MOST], trailing)
        if not error_reply.reason and code in ("UNAVAILABLE", "UNAUTHENTICATED"):
            error = self._local_error(Operation(_STREAM, "sidecar", None), code, details[:MOST])
            if error is not None:
                error.maybe_applied = False
                return error
        return self.refused(error_reply)

    def ask(self, name: str, message: Any, reply: str = "Empty") -> Flow[Any]:
        """Make a request and return its reply."""
        return (yield Call(name, message, reply))

    def refusal(self, name: str, error_reply: ErrorReply) -> SidecarError:
        return self.refused(error_reply)


def never_sent(details: str) -> bool:
    """Return whether the text of a failed call says that nothing of it has left this process."""
    return _NEVER_SENT.search(details) is not None


def _headers_of(call: Any) -> dict[str, str]:
    return {key: value for key, value in call.initial_metadata() or () if isinstance(value, str)}


async def _done(future: Any) -> None:
    """Wait in the running loop for a future of the library."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def done(_: Any) -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:
            pass  # that loop is closed

    future.add_done_callback(done)
    try:
        await waiter
    except BaseException:
        future.cancel()
        raise


def _certificates() -> bytes | None:
    """Return the system's certificates, as HTTPS has them; ``None``: gRPC's own."""
    import ssl
    from pathlib import Path

    path = ssl.get_default_verify_paths().cafile
    return None if path is None else Path(path).read_bytes()
