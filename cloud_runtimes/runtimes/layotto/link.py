"""The calls of Layotto (``spec/proto/runtime/v1/runtime.proto``) over one gRPC channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from ..._layotto.messages import RUNTIME, messages
from ..._link.channel import Call, Channel, Opening, never_sent
from ..._link.failures import Refusal
from ..._link.transport import Flow, Found, Item, Stream
from ...errors import InternalError, UnsupportedError
from ...rpc._proof import CONTENT_TYPE_HEADER, STATUS_HEADER
from ...rpc.driver import RpcCall, RpcReply
from ...secret.types import Secret
from .address import LayottoSettings
from .failures import Refused
from .shared import share

__all__ = ["LayottoLink"]

_CONSISTENCY: Final = {"eventual": 1, "strong": 2}
_VERBS: Final = {
    name: number
    for number, name in enumerate(["", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"])
}
_PARALLEL: Final = 10
_MOST: Final = 1000
_TIMEOUT: Final = "rpc_request_timeout"
"""Header of a call: milliseconds, without which it is 3,000."""
_NO_LIMIT: Final = str(24 * 3600 * 1000)


class LayottoLink(Channel):
    """See the module.

    Args:
        own: settings of the runtime.

    Attributes:
        bridge: of the client; a copy has none.
    """

    # it leaves what clients may do to Go's library, which ends connections with more than one ping in five minutes (grpc-go ``keepalive.EnforcementPolicy``)
    keepalive = 320.0
    keepalive_answer = 20.0
    service = RUNTIME
    reads = frozenset(
        [
            "GetBulkSecret",
            "GetBulkState",
            "GetConfiguration",
            "GetFile",
            "GetFileMeta",
            "GetSecret",
            "GetState",
            "ListFile",
            "SayHello",
        ]
    )
    opens: ClassVar[Mapping[str, Opening]] = {
        "configuration": Opening("SubscribeConfiguration", "SubscribeConfigurationResponse"),
        "events": Opening("SubscribeTopicEvents", "SubscribeTopicEventsResponse"),
        "get": Opening("GetFile", "GetFileResponse", both_ways=False),
        "put": Opening("PutFile", "Empty"),
    }
    refused = Refused
    table = "[layotto]"
    remedy = "start one (layotto start -c config.json)"
    token_name = "token"

    def __init__(self, target: str, url: str, *, secure: bool, app_id: str, own: LayottoSettings) -> None:
        super().__init__(target, url, secure=secure, app_id=app_id, largest=own.max_message)
        self.own = own
        self.app_id = app_id
        self.bridge: Any = None

    def copy(self) -> LayottoLink:
        """Return another link to the same sidecar, with a channel of its own."""
        return LayottoLink(self._target, self.url, secure=self._secure, app_id=self.app_id, own=self.own)

    @staticmethod
    def kinds() -> Any:
        return messages()

    def _is_word(self, request: Call, code: str, details: str) -> bool:
        # of a call that went out, UNAVAILABLE is mostly what became of it behind the sidecar
        return request.name == "InvokeService" and code == "UNAVAILABLE" and not never_sent(details)

    def _limits(self, left: float | None) -> tuple[tuple[str, str], ...]:
        milliseconds = _NO_LIMIT if left is None else str(int(left * 1000) + 1)
        return (*super()._limits(left), (_TIMEOUT, milliseconds))

    def ask(self, name: str, message: Any, reply: str = "Empty") -> Flow[Any]:
        """Make a request and return a reply that is no refusal."""
        answer = yield Call(name, message, reply)
        if isinstance(answer, Refusal):
            raise Refused(answer, rpc=name)
        return answer

    def open(
        self, kind: str, first: Any, receive: Callable[[Any], None], ended: Callable[[Exception | None], None]
    ) -> Stream:
        """Begin a stream. One that a sidecar has but once is shared by all of this process that ask for the same."""
        self._check()
        if kind == "configuration":
            return share(self, kind, (first.store_name,), first, receive, ended)
        if kind == "events":
            asked = first.initial_request
            return share(self, kind, (asked.pubsub_name, asked.topic), first, receive, ended)
        return self.open_alone(kind, first, receive, ended)

    def open_alone(
        self, kind: str, first: Any, receive: Callable[[Any], None], ended: Callable[[Exception | None], None]
    ) -> Stream:
        """Begin a stream of this link alone."""
        return super().open(kind, first, receive, ended)

    # -- the sidecar --------------------------------------------------------

    def ready(self) -> Flow[str]:
        # also a refusal shows that it serves: it may have no component that says hello
        yield Call("SayHello", messages().SayHelloRequest(service_name=self.own.hello), "SayHelloResponse")
        return ""

    def invoke(self, service: str, call: RpcCall) -> Flow[RpcReply]:
        if not isinstance(call.body, bytes):
            raise UnsupportedError("a body that is a stream does not go over Layotto: give bytes")
        if call.http_method not in _VERBS:
            raise UnsupportedError(f"{call.http_method} does not go over Layotto")
        kinds = messages()
        request = kinds.InvokeServiceRequest(
            id=service,
            message=kinds.CommonInvokeRequest(
                method=call.path,
                data=kinds.Any(value=call.body),
                content_type=call.content_type or "",
                http_extension=kinds.HTTPExtension(verb=_VERBS[call.http_method], querystring=call.query),
            ),
        )
        headers = dict(call.headers)
        headers[CONTENT_TYPE_HEADER] = call.content_type or ""  # Layotto passes none on
        answer = yield Call("InvokeService", request, "InvokeResponse", tuple(headers.items()), whole=True)
        if answer.refusal is not None:
            raise Refused(answer.refusal, rpc="InvokeService")
        told = dict(answer.headers)
        # an application of ours tells what Layotto would not pass on, or make up: of a reply without a type it says that it is text
        status = told.pop(STATUS_HEADER, "")
        content_type = told.pop(CONTENT_TYPE_HEADER, "") or (not status and answer.message.content_type) or None
        return RpcReply(int(status) if status.isdigit() else 200, told, content_type, answer.message.data.value)

    # -- state --------------------------------------------------------------

    def get_state(
        self, store: str, key: str, consistency: str | None, metadata: Mapping[str, str]
    ) -> Flow[Found | None]:
        message = messages().GetStateRequest(
            store_name=store, key=key, consistency=_CONSISTENCY.get(consistency or "", 0), metadata=metadata
        )
        found = yield from self.ask("GetState", message, "GetStateResponse")
        if not found.data and not found.etag:
            return None
        return Found(found.data, found.etag or None, None)

    def get_states(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> Flow[dict[str, Found]]:
        message = messages().GetBulkStateRequest(store_name=store, keys=keys, parallelism=_PARALLEL, metadata=metadata)
        answer = yield from self.ask("GetBulkState", message, "GetBulkStateResponse")
        found: dict[str, Found] = {}
        for each in answer.items:
            if each.error:
                raise InternalError(f"the sidecar cannot read {each.key!r}: {each.error[:_MOST]}")
            if each.data or each.etag:
                found[each.key] = Found(each.data, each.etag or None, None)
        return found

    def save_states(self, store: str, items: Sequence[Item]) -> Flow[None]:
        message = messages().SaveStateRequest(store_name=store, states=map(_item, items))
        yield from self.ask("SaveState", message)

    def delete_state(self, store: str, item: Item) -> Flow[None]:
        one = _item(item)
        if item.etag is None:  # DeleteState would fail for a key that is there
            yield from self.ask("DeleteBulkState", messages().DeleteBulkStateRequest(store_name=store, states=[one]))
            return
        message = messages().DeleteStateRequest(store_name=store, key=item.key, etag=one.etag, metadata=item.metadata)
        if one.HasField("options"):
            message.options.CopyFrom(one.options)
        yield from self.ask("DeleteState", message)

    def transact(self, store: str, items: Sequence[Item], metadata: Mapping[str, str]) -> Flow[None]:
        kinds = messages()
        operations = [
            kinds.TransactionalStateOperation(
                operationType="delete" if item.value is None else "upsert", request=_item(item)
            )
            for item in items
        ]
        message = kinds.ExecuteStateTransactionRequest(storeName=store, operations=operations, metadata=metadata)
        yield from self.ask("ExecuteStateTransaction", message)

    # -- secrets and locks --------------------------------------------------

    def get_secret(self, store: str, key: str, metadata: Mapping[str, str]) -> Flow[Secret]:
        message = messages().GetSecretRequest(store_name=store, key=key, metadata=metadata)
        found = yield from self.ask("GetSecret", message, "GetSecretResponse")
        return Secret(dict(found.data))

    def get_secrets(self, store: str, metadata: Mapping[str, str]) -> Flow[dict[str, Secret]]:
        message = messages().GetBulkSecretRequest(store_name=store, metadata=metadata)
        found = yield from self.ask("GetBulkSecret", message, "GetBulkSecretResponse")
        return {key: Secret(dict(each.secrets)) for key, each in found.data.items()}

    def try_lock(self, store: str, resource: str, owner: str, seconds: int) -> Flow[bool]:
        message = messages().TryLockRequest(store_name=store, resource_id=resource, lock_owner=owner, expire=seconds)
        found = yield from self.ask("TryLock", message, "TryLockResponse")
        return bool(found.success)

    def unlock(self, store: str, resource: str, owner: str) -> Flow[int]:
        message = messages().UnlockRequest(store_name=store, resource_id=resource, lock_owner=owner)
        found = yield from self.ask("Unlock", message, "UnlockResponse")
        return int(found.status)

    # -- publishing ---------------------------------------------------------

    def publish(
        self, pubsub: str, topic: str, data: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> Flow[None]:
        message = messages().PublishEventRequest(
            pubsub_name=pubsub, topic=topic, data=data, data_content_type=content_type, metadata=metadata
        )
        yield from self.ask("PublishEvent", message)


def _item(item: Item) -> Any:
    kinds = messages()
    made = kinds.StateItem(key=item.key, metadata=item.metadata)
    if item.value is not None:
        made.value = item.value
    if item.etag is not None:
        made.etag.value = item.etag
    if item.create or item.consistency is not None:
        made.options.concurrency = 1 if item.create else 0
        made.options.consistency = _CONSISTENCY.get(item.consistency or "", 0)
    return made
