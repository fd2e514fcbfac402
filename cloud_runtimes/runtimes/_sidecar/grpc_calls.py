"""The calls over gRPC that sidecars have alike, down to the names of messages and fields: Layotto's API began as Dapr's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from ...errors import InternalError, UnsupportedError
from ...spi.rpc import RpcCall
from ...spi.secret import Secret
from .channel import Call, Channel
from .failures import ErrorReply, SidecarError
from .transport import Flow, StateItem, StateValue

__all__ = ["GrpcCalls", "MethodNames"]

_CONSISTENCY: Final = {"eventual": 1, "strong": 2}
_VERBS: Final = {
    name: number
    for number, name in enumerate(["", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"])
}
_PARALLEL: Final = 10
_MOST: Final = 1000


class MethodNames(NamedTuple):
    """What one sidecar calls otherwise than another.

    Attributes:
        try_lock, unlock: methods.
        expiry: field of the request of the first.
        invoked: message that a called application gets.
    """

    try_lock: str
    unlock: str
    expiry: str
    invoked: str


class GrpcCalls(Channel):
    """See the module.

    Attributes:
        method_names: the sidecar's.
        instead: where a call goes that does not go over gRPC.
    """

    names: ClassVar[MethodNames]
    instead: ClassVar[str]

    def ask(self, name: str, message: Any, reply: str = "Empty") -> Flow[Any]:
        """Make a request and return a reply that is no refusal."""
        answer = yield Call(name, message, reply)
        if isinstance(answer, ErrorReply):
            raise self.refusal(name, answer)
        return answer

    def refusal(self, name: str, error_reply: ErrorReply) -> SidecarError:
        """Return what a refusal of a method is raised as."""
        return self.refused(error_reply)

    # -- applications -------------------------------------------------------

    def invocation(self, service: str, call: RpcCall) -> Any:
        """Return the request for a call of an application.

        Raises:
            UnsupportedError: it has a method that no verb is for.
        """
        assert isinstance(call.body, bytes)  # the driver has collected it
        if call.http_method not in _VERBS:
            raise UnsupportedError(f"{call.http_method} {self.instead}")
        pb = self.pb()
        return pb.InvokeServiceRequest(
            id=service,
            message=getattr(pb, self.names.invoked)(
                method=call.path,
                data=pb.Any(value=call.body),
                content_type=call.content_type or "",
                http_extension=pb.HTTPExtension(verb=_VERBS[call.http_method], querystring=call.query),
            ),
        )

    # -- state --------------------------------------------------------------

    def get_state(
        self, store: str, key: str, consistency: str | None, metadata: Mapping[str, str]
    ) -> Flow[StateValue | None]:
        message = self.pb().GetStateRequest(
            store_name=store, key=key, consistency=_CONSISTENCY.get(consistency or "", 0), metadata=metadata
        )
        found = yield from self.ask("GetState", message, "GetStateResponse")
        return _found(found) if found.data or found.etag else None

    def get_states(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> Flow[dict[str, StateValue]]:
        message = self.pb().GetBulkStateRequest(store_name=store, keys=keys, parallelism=_PARALLEL, metadata=metadata)
        answer = yield from self.ask("GetBulkState", message, "GetBulkStateResponse")
        found: dict[str, StateValue] = {}
        for each in answer.items:
            if each.error:
                raise InternalError(f"the sidecar cannot read {each.key!r}: {each.error[:_MOST]}")
            if each.data or each.etag:
                found[each.key] = _found(each)
        return found

    def save_states(self, store: str, items: Sequence[StateItem]) -> Flow[None]:
        message = self.pb().SaveStateRequest(store_name=store, states=map(self.item, items))
        yield from self.ask("SaveState", message)

    def delete_state(self, store: str, item: StateItem) -> Flow[None]:
        one = self.item(item)
        message = self.pb().DeleteStateRequest(
            store_name=store, key=item.key, etag=one.etag if one.HasField("etag") else None, metadata=item.metadata
        )
        if one.HasField("options"):
            message.options.CopyFrom(one.options)
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
        """Return what is sent of an item."""
        made = self.pb().StateItem(key=item.key, metadata=item.metadata)
        if item.value is not None:
            made.value = item.value
        if item.etag is not None:
            made.etag.value = item.etag
        if item.create or item.consistency is not None:
            made.options.concurrency = 1 if item.create else 0
            made.options.consistency = _CONSISTENCY.get(item.consistency or "", 0)
        return made

    # -- secrets and locks --------------------------------------------------

    def get_secret(self, store: str, key: str, metadata: Mapping[str, str]) -> Flow[Secret]:
        message = self.pb().GetSecretRequest(store_name=store, key=key, metadata=metadata)
        found = yield from self.ask("GetSecret", message, "GetSecretResponse")
        return Secret(dict(found.data))

    def get_secrets(self, store: str, metadata: Mapping[str, str]) -> Flow[dict[str, Secret]]:
        message = self.pb().GetBulkSecretRequest(store_name=store, metadata=metadata)
        found = yield from self.ask("GetBulkSecret", message, "GetBulkSecretResponse")
        return {key: Secret(dict(each.secrets)) for key, each in found.data.items()}

    def try_lock(self, store: str, resource: str, owner: str, seconds: int) -> Flow[bool]:
        message = self.pb().TryLockRequest(
            store_name=store, resource_id=resource, lock_owner=owner, **{self.names.expiry: seconds}
        )
        found = yield from self.ask(self.names.try_lock, message, "TryLockResponse")
        return bool(found.success)

    def unlock(self, store: str, resource: str, owner: str) -> Flow[int]:
        message = self.pb().UnlockRequest(store_name=store, resource_id=resource, lock_owner=owner)
        found = yield from self.ask(self.names.unlock, message, "UnlockResponse")
        return int(found.status)

    # -- publishing ---------------------------------------------------------

    def publish(
        self, pubsub: str, topic: str, data: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> Flow[None]:
        message = self.pb().PublishEventRequest(
            pubsub_name=pubsub, topic=topic, data=data, data_content_type=content_type, metadata=metadata
        )
        yield from self.ask("PublishEvent", message)


def _found(message: Any) -> StateValue:
    return StateValue(message.data, message.etag or None, message.metadata.get("ttlExpireTime"))
