"""The calls over gRPC that sidecars have alike, down to the names of messages and fields: Layotto's API began as Dapr's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from ...errors import InternalError, UnsupportedError
from ...spi.rpc import RpcCall
from ...spi.secret import Secret
from .channel import Call, Channel
from .failures import Refusal, Refused
from .transport import Flow, Found, Item

__all__ = ["GrpcCalls", "Names"]

_CONSISTENCY: Final = {"eventual": 1, "strong": 2}
_VERBS: Final = {
    name: number
    for number, name in enumerate(["", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"])
}
_PARALLEL: Final = 10
_MOST: Final = 1000


class Names(NamedTuple):
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
        names: the sidecar's.
        instead: where a call goes that does not go over gRPC.
    """

    names: ClassVar[Names]
    instead: ClassVar[str]

    def ask(self, name: str, message: Any, reply: str = "Empty") -> Flow[Any]:
        """Make a request and return a reply that is no refusal."""
        answer = yield Call(name, message, reply)
        if isinstance(answer, Refusal):
            raise self.refusal(name, answer)
        return answer

    def refusal(self, name: str, said: Refusal) -> Refused:
        """Return what a refusal of a method is raised as."""
        return self.refused(said)

    # -- applications -------------------------------------------------------

    def invocation(self, service: str, call: RpcCall) -> Any:
        """Return the request for a call of an application.

        Raises:
            UnsupportedError: it has a method that no verb is for.
        """
        assert isinstance(call.body, bytes)  # the driver has collected it
        if call.http_method not in _VERBS:
            raise UnsupportedError(f"{call.http_method} {self.instead}")
        kinds = self.kinds()
        return kinds.InvokeServiceRequest(
            id=service,
            message=getattr(kinds, self.names.invoked)(
                method=call.path,
                data=kinds.Any(value=call.body),
                content_type=call.content_type or "",
                http_extension=kinds.HTTPExtension(verb=_VERBS[call.http_method], querystring=call.query),
            ),
        )

    # -- state --------------------------------------------------------------

    def get_state(
        self, store: str, key: str, consistency: str | None, metadata: Mapping[str, str]
    ) -> Flow[Found | None]:
        message = self.kinds().GetStateRequest(
            store_name=store, key=key, consistency=_CONSISTENCY.get(consistency or "", 0), metadata=metadata
        )
        found = yield from self.ask("GetState", message, "GetStateResponse")
        return _found(found) if found.data or found.etag else None

    def get_states(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> Flow[dict[str, Found]]:
        message = self.kinds().GetBulkStateRequest(
            store_name=store, keys=keys, parallelism=_PARALLEL, metadata=metadata
        )
        answer = yield from self.ask("GetBulkState", message, "GetBulkStateResponse")
        found: dict[str, Found] = {}
        for each in answer.items:
            if each.error:
                raise InternalError(f"the sidecar cannot read {each.key!r}: {each.error[:_MOST]}")
            if each.data or each.etag:
                found[each.key] = _found(each)
        return found

    def save_states(self, store: str, items: Sequence[Item]) -> Flow[None]:
        message = self.kinds().SaveStateRequest(store_name=store, states=map(self.item, items))
        yield from self.ask("SaveState", message)

    def delete_state(self, store: str, item: Item) -> Flow[None]:
        one = self.item(item)
        message = self.kinds().DeleteStateRequest(
            store_name=store, key=item.key, etag=one.etag if one.HasField("etag") else None, metadata=item.metadata
        )
        if one.HasField("options"):
            message.options.CopyFrom(one.options)
        yield from self.ask("DeleteState", message)

    def transact(self, store: str, items: Sequence[Item], metadata: Mapping[str, str]) -> Flow[None]:
        kinds = self.kinds()
        operations = [
            kinds.TransactionalStateOperation(
                operationType="delete" if item.value is None else "upsert", request=self.item(item)
            )
            for item in items
        ]
        message = kinds.ExecuteStateTransactionRequest(storeName=store, operations=operations, metadata=metadata)
        yield from self.ask("ExecuteStateTransaction", message)

    def item(self, item: Item) -> Any:
        """Return what is sent of an item."""
        made = self.kinds().StateItem(key=item.key, metadata=item.metadata)
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
        message = self.kinds().GetSecretRequest(store_name=store, key=key, metadata=metadata)
        found = yield from self.ask("GetSecret", message, "GetSecretResponse")
        return Secret(dict(found.data))

    def get_secrets(self, store: str, metadata: Mapping[str, str]) -> Flow[dict[str, Secret]]:
        message = self.kinds().GetBulkSecretRequest(store_name=store, metadata=metadata)
        found = yield from self.ask("GetBulkSecret", message, "GetBulkSecretResponse")
        return {key: Secret(dict(each.secrets)) for key, each in found.data.items()}

    def try_lock(self, store: str, resource: str, owner: str, seconds: int) -> Flow[bool]:
        message = self.kinds().TryLockRequest(
            store_name=store, resource_id=resource, lock_owner=owner, **{self.names.expiry: seconds}
        )
        found = yield from self.ask(self.names.try_lock, message, "TryLockResponse")
        return bool(found.success)

    def unlock(self, store: str, resource: str, owner: str) -> Flow[int]:
        message = self.kinds().UnlockRequest(store_name=store, resource_id=resource, lock_owner=owner)
        found = yield from self.ask(self.names.unlock, message, "UnlockResponse")
        return int(found.status)

    # -- publishing ---------------------------------------------------------

    def publish(
        self, pubsub: str, topic: str, data: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> Flow[None]:
        message = self.kinds().PublishEventRequest(
            pubsub_name=pubsub, topic=topic, data=data, data_content_type=content_type, metadata=metadata
        )
        yield from self.ask("PublishEvent", message)


def _found(message: Any) -> Found:
    return Found(message.data, message.etag or None, message.metadata.get("ttlExpireTime"))
