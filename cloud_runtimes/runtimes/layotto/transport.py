"""The calls of Layotto (``spec/proto/runtime/v1/runtime.proto``) over one gRPC channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ... import errors
from ..._http.proof import CONTENT_TYPE_HEADER, STATUS_HEADER
from ...errors import CloudRuntimesError
from ...protocols.layotto.messages import RUNTIME, messages
from ...spi.rpc import RpcCall, RpcReply
from .._sidecar.channel import Channel
from .._sidecar.grpc_calls import Call, StreamMethod, never_sent
from .._sidecar.transport import Ended, ErrorReply, Flow, Receive, SidecarError, StateItem, Stream
from .shared_streams import share

if TYPE_CHECKING:
    from . import LayottoSettings

_TIMEOUT: Final = "rpc_request_timeout"
"""Header of a call: milliseconds, without which it is 3,000."""
_NO_LIMIT: Final = str(24 * 3600 * 1000)
_BY_CODE: Final[dict[str, type[CloudRuntimesError]]] = {
    "ABORTED": errors.ConflictError,
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "FAILED_PRECONDITION": errors.ComponentNotFoundError,  # nothing of the kind is configured
    "INVALID_ARGUMENT": errors.ComponentNotFoundError,  # all else has been checked here
    "NOT_FOUND": errors.NotFoundError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "RESOURCE_EXHAUSTED": errors.ResourceExhaustedError,
    "UNAUTHENTICATED": errors.UnauthenticatedError,
    "UNAVAILABLE": errors.UnavailableError,
    "UNIMPLEMENTED": errors.UnsupportedError,
}


class LayottoSidecarError(SidecarError):
    """The sidecar said no to an rpc; ``""``: it ended a stream. There are no details, so the code decides, then the rpc."""

    rpc: str = ""

    @property
    def status(self) -> str:
        return self.error_reply.code.removeprefix("grpc ")

    def error(self, *, applied: bool) -> CloudRuntimesError:
        cls = _BY_CODE.get(self.status, errors.InternalError)
        if self.status == "INVALID_ARGUMENT" and self.rpc == "InvokeService":  # it may be about more than a name
            cls = errors.InvalidArgumentError
        unknown = applied and issubclass(
            cls, errors.InternalError | errors.DeadlineExceededError | errors.UnavailableError
        )
        return cls(f"the sidecar says: {self.error_reply.message} ({self.status})", maybe_applied=unknown)


class LayottoTransport(Channel):
    """See the module."""

    # it leaves what clients may do to Go's library, which ends connections with more than one ping in five minutes (grpc-go ``keepalive.EnforcementPolicy``)
    keepalive = 320.0
    keepalive_answer = 20.0
    service = RUNTIME
    stream_methods: ClassVar[Mapping[str, StreamMethod]] = {
        "configuration": StreamMethod("SubscribeConfiguration", "SubscribeConfigurationResponse"),
        "events": StreamMethod("SubscribeTopicEvents", "SubscribeTopicEventsResponse"),
        "get": StreamMethod("GetFile", "GetFileResponse", both_ways=False),
    }
    refused = LayottoSidecarError
    table = "[layotto]"
    remedy = "start one (layotto start -c config.json)"
    token_name = "token"
    lock_methods = ("TryLock", "Unlock", "expire")
    invoked = "CommonInvokeRequest"
    http_hint = "does not go over Layotto: give bytes, and a method that HTTP itself names"

    def __init__(self, target: str, url: str, *, secure: bool, app_id: str, own: LayottoSettings) -> None:
        super().__init__(target, url, secure=secure, app_id=app_id, largest=own.max_message)
        self.own = own
        self.app_id = app_id

    def copy(self) -> LayottoTransport:
        """Return another transport to the same sidecar, with a channel of its own."""
        return LayottoTransport(self._target, self.url, secure=self._secure, app_id=self.app_id, own=self.own)

    @staticmethod
    def pb() -> Any:
        return messages()

    def _from_sidecar(self, request: Call, code: str, details: str) -> bool:
        # of a call that went out, UNAVAILABLE is mostly what became of it behind the sidecar
        return request.name == "InvokeService" and code == "UNAVAILABLE" and not never_sent(details)

    def _limits(self, remaining: float | None) -> tuple[tuple[str, str], ...]:
        milliseconds = _NO_LIMIT if remaining is None else str(int(remaining * 1000) + 1)
        return (*super()._limits(remaining), (_TIMEOUT, milliseconds))

    def refusal(self, name: str, error_reply: ErrorReply) -> LayottoSidecarError:
        refused = LayottoSidecarError(error_reply)
        refused.rpc = name
        return refused

    def open(self, kind: str, first: Any, receive: Receive, ended: Ended) -> Stream:
        """Begin a stream. One that a sidecar has but once is shared by all of this process that ask for the same."""
        self._check()
        if kind in ("configuration", "events"):
            return share(self, kind, first, receive, ended)
        return self.open_alone(kind, first, receive, ended)

    def open_alone(self, kind: str, first: Any, receive: Receive, ended: Ended) -> Stream:
        """Begin a stream of this transport alone."""
        return super().open(kind, first, receive, ended)

    def ready(self) -> Flow[str]:
        # also a refusal shows that it serves: it may have no component that says hello
        try:
            yield Call("SayHello", messages().SayHelloRequest(service_name=self.own.hello), "SayHelloResponse")
        except LayottoSidecarError:
            pass
        return ""

    def invoke(self, service: str, call: RpcCall) -> Flow[RpcReply]:
        request = self.invocation(service, call)
        headers = dict(call.headers)
        headers[CONTENT_TYPE_HEADER] = call.content_type or ""  # Layotto passes none on
        message, answered = yield Call("InvokeService", request, "InvokeResponse", headers)
        reply_headers = dict(answered)
        # an application of ours tells what Layotto would not pass on, or make up: of a reply without a type it says that it is text
        status = reply_headers.pop(STATUS_HEADER, "")
        content_type = reply_headers.pop(CONTENT_TYPE_HEADER, "") or (not status and message.content_type) or None
        return RpcReply(int(status) if status.isdigit() else 200, reply_headers, content_type, message.data.value)

    def delete_state(self, store: str, item: StateItem) -> Flow[None]:
        if item.etag is not None:
            yield from super().delete_state(store, item)
            return
        # DeleteState would fail for a key that is there
        message = messages().DeleteBulkStateRequest(store_name=store, states=[self.item(item)])
        yield from self.ask("DeleteBulkState", message)
