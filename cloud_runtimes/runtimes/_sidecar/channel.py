"""The calls that Dapr and Layotto share, over gRPC: state, secrets, locks and publishing are the same in both, down to the names of messages and fields, since Layotto's API began as Dapr's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from ... import errors
from ...spi.rpc import RpcCall, RpcReply
from ...spi.secret import Secret
from .grpc_calls import MOST, GrpcCalls
from .transport import Flow, StateItem, StateValue

_CONSISTENCY: Final = {"eventual": 1, "strong": 2}
_VERBS: Final = {
    name: number
    for number, name in enumerate(["", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"])
}
_PARALLEL: Final = 10


class Channel(GrpcCalls):
    """See the module."""

    # names of the methods that take and release a lock, and of the field with its time
    lock_methods: ClassVar[tuple[str, str, str]]
    # kind of message that a called application gets
    invoked: ClassVar[str]
    # for messages: where a call goes that does not go over gRPC
    http_hint: ClassVar[str]

    @abstractmethod
    def invoke(self, service: str, call: RpcCall) -> Flow[RpcReply]:
        """Return an application's answer, whatever its status; `SidecarError` is a failure of the sidecar's own."""

    def invocation(self, service: str, call: RpcCall) -> Any:
        """Return the request for a call of an application, or raise `UnsupportedError` for an HTTP method that gRPC has no verb for."""
        if call.http_method not in _VERBS:
            raise errors.UnsupportedError(f"{call.http_method} {self.http_hint}")
        pb = self.pb()
        return pb.InvokeServiceRequest(
            id=service,
            message=getattr(pb, self.invoked)(
                method=call.path,
                data=pb.Any(value=call.body),  # the driver has collected it
                content_type=call.content_type or "",
                http_extension=pb.HTTPExtension(verb=_VERBS[call.http_method], querystring=call.query),
            ),
        )

    def get_state(
        self, store: str, key: str, consistency: str | None, metadata: Mapping[str, str]
    ) -> Flow[StateValue | None]:
        message = self.pb().GetStateRequest(
            store_name=store, key=key, consistency=_CONSISTENCY.get(consistency or "", 0), metadata=metadata
        )
        reply = yield from self.ask("GetState", message, "GetStateResponse")
        return _value(reply) if reply.data or reply.etag else None

    def get_states(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> Flow[dict[str, StateValue]]:
        message = self.pb().GetBulkStateRequest(store_name=store, keys=keys, parallelism=_PARALLEL, metadata=metadata)
        answer = yield from self.ask("GetBulkState", message, "GetBulkStateResponse")
        for each in answer.items:
            if each.error:
                raise errors.InternalError(f"the sidecar cannot read {each.key!r}: {each.error[:MOST]}")
        return {each.key: _value(each) for each in answer.items if each.data or each.etag}

    def save_states(self, store: str, items: Sequence[StateItem]) -> Flow[None]:
        message = self.pb().SaveStateRequest(store_name=store, states=map(self.item, items))
        yield from self.ask("SaveState", message)

    def delete_state(self, store: str, item: StateItem) -> Flow[None]:
        one = self.item(item)
        message = self.pb().DeleteStateRequest(store_name=store, key=item.key, metadata=item.metadata)
        for name in ("etag", "options"):
            if one.HasField(name):
                getattr(message, name).CopyFrom(getattr(one, name))
        yield from self.ask("DeleteState", message)

    def transact(self, store: str, items: Sequence[StateItem], metadata: Mapping[str, str]) -> Flow[None]:
        pb = self.pb()
        operations = [
            pb.TransactionalStateOperation(
                operationType="delete" if item.value is None else "upsert", request=self.item(item)
            )
            for item in items
        ]
        message = pb.ExecuteStateTransactionRequest(storeName=store, operations=operations, metadata=metadata)
        yield from self.ask("ExecuteStateTransaction", message)

    def item(self, item: StateItem) -> Any:
        message = self.pb().StateItem(key=item.key, value=item.value, metadata=item.metadata)
        if item.etag is not None:
            message.etag.value = item.etag
        if item.create or item.consistency is not None:
            message.options.concurrency = 1 if item.create else 0
            message.options.consistency = _CONSISTENCY.get(item.consistency or "", 0)
        return message

    def get_secret(self, store: str, key: str, metadata: Mapping[str, str]) -> Flow[Secret]:
        message = self.pb().GetSecretRequest(store_name=store, key=key, metadata=metadata)
        reply = yield from self.ask("GetSecret", message, "GetSecretResponse")
        return Secret(dict(reply.data))

    def get_secrets(self, store: str, metadata: Mapping[str, str]) -> Flow[dict[str, Secret]]:
        message = self.pb().GetBulkSecretRequest(store_name=store, metadata=metadata)
        reply = yield from self.ask("GetBulkSecret", message, "GetBulkSecretResponse")
        return {key: Secret(dict(each.secrets)) for key, each in reply.data.items()}

    def try_lock(self, store: str, resource: str, owner: str, seconds: int) -> Flow[bool]:
        method, _, expiry = self.lock_methods
        message = self.pb().TryLockRequest(
            store_name=store, resource_id=resource, lock_owner=owner, **{expiry: seconds}
        )
        reply = yield from self.ask(method, message, "TryLockResponse")
        return bool(reply.success)

    def unlock(self, store: str, resource: str, owner: str) -> Flow[int]:
        """Release a lock; returns Dapr's ``UnlockResponse.Status``."""
        message = self.pb().UnlockRequest(store_name=store, resource_id=resource, lock_owner=owner)
        reply = yield from self.ask(self.lock_methods[1], message, "UnlockResponse")
        return int(reply.status)

    def publish(
        self, pubsub: str, topic: str, data: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> Flow[None]:
        message = self.pb().PublishEventRequest(
            pubsub_name=pubsub, topic=topic, data=data, data_content_type=content_type, metadata=metadata
        )
        yield from self.ask("PublishEvent", message)


def _value(message: Any) -> StateValue:
    return StateValue(message.data, message.etag or None, message.metadata.get("ttlExpireTime"))
