"""Dapr's calls over its gRPC API (dapr/dapr ``dapr/proto/runtime/v1/dapr.proto``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from ..._dapr.failures import GRPC_TO_HTTP
from ..._dapr.messages import messages
from ..._link.channel import Call, Channel, Opening
from ..._link.failures import Refusal
from ..._link.transport import Flow, Found, Item
from ...errors import InternalError, UnsupportedError
from ...rpc.driver import RpcCall, RpcReply
from ...secret.types import Secret
from .failures import Refused
from .jobs_grpc import job_message, job_of
from .transport import DaprJob, DaprTransport, Entry, Setting

__all__ = ["GrpcTransport"]

_CLOUD_EVENT: Final = "application/cloudevents+json"
_CONSISTENCY: Final = {"eventual": 1, "strong": 2}
_VERBS: Final = {
    name: number
    for number, name in enumerate(["", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"])
}
_MOST: Final = 1000


class GrpcTransport(Channel, DaprTransport):
    """See the module."""

    service = "/dapr.proto.runtime.v1.Dapr/"
    reads = frozenset(
        [
            "GetMetadata",
            "GetState",
            "GetBulkState",
            "GetSecret",
            "GetBulkSecret",
            "GetConfiguration",
            "GetJobAlpha1",
            "ListJobsAlpha1",
        ]
    )
    opens: ClassVar[Mapping[str, Opening]] = {
        "configuration": Opening("SubscribeConfiguration", "SubscribeConfigurationResponse", both_ways=False),
        "events": Opening("SubscribeTopicEventsAlpha1", "SubscribeTopicEventsResponseAlpha1"),
    }
    refused = Refused
    table = "[dapr]"
    remedy = "start one (cloud-runtimes serve, dapr run)"
    token_name = "DAPR_API_TOKEN"

    @staticmethod
    def kinds() -> Any:
        return messages()

    def _read(self, code: str, details: str, trailing: Any) -> tuple[Refusal, Mapping[str, str]]:
        reason: str = ""
        info: dict[str, str] = {}
        for key, value in trailing:
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                reason, info = _info(value)
        return Refusal(GRPC_TO_HTTP.get(code, 500), f"grpc {code}", reason, details or code), info

    def _ask(self, name: str, message: Any, reply: str = "Empty") -> Flow[Any]:
        """Make a request and return a reply that is no refusal."""
        answer = yield Call(name, message, reply)
        if isinstance(answer, Refusal):
            raise Refused(answer)
        return answer

    # -- the sidecar --------------------------------------------------------

    def ready(self) -> Flow[str]:
        answer = yield Call("GetMetadata", messages().GetMetadataRequest(), "GetMetadataResponse")
        return answer.message if isinstance(answer, Refusal) else ""

    def components(self) -> Flow[dict[str, str]]:
        answer = yield Call("GetMetadata", messages().GetMetadataRequest(), "GetMetadataResponse")
        if isinstance(answer, Refusal):
            return {}
        return {each.name: each.type for each in answer.registered_components}

    def invoke(self, service: str, call: RpcCall) -> Flow[RpcReply]:
        if not isinstance(call.body, bytes):
            raise UnsupportedError("a body that is a stream goes over HTTP alone: give the sidecar's HTTP address")
        if call.http_method not in _VERBS:
            raise UnsupportedError(f"{call.http_method} goes over HTTP alone: give the sidecar's HTTP address")
        kinds = messages()
        request = kinds.InvokeServiceRequest(
            id=service,
            message=kinds.InvokeRequest(
                method=call.path,
                data=kinds.Any(value=call.body),
                content_type=call.content_type or "",
                http_extension=kinds.HTTPExtension(verb=_VERBS.get(call.http_method, 0), querystring=call.query),
            ),
        )
        headers = tuple(call.headers.items())
        answer = yield Call("InvokeService", request, "InvokeResponse", headers, whole=True)
        if answer.refusal is not None:
            code = answer.info.get("http.code", "")
            if not code.isdigit():
                raise Refused(answer.refusal._replace(code="ERR_DIRECT_INVOKE"))
            # of the application's body only the beginning is told
            return RpcReply(int(code), answer.headers, None, answer.info.get("http.error_message", "").encode())
        status = answer.headers.get("dapr-http-status", "")
        body = answer.message.data.value
        content_type = answer.message.content_type or None
        return RpcReply(int(status) if status.isdigit() else 200, answer.headers, content_type, body)

    # -- state --------------------------------------------------------------

    def get_state(
        self, store: str, key: str, consistency: str | None, metadata: Mapping[str, str]
    ) -> Flow[Found | None]:
        message = messages().GetStateRequest(
            store_name=store, key=key, consistency=_CONSISTENCY.get(consistency or "", 0), metadata=metadata
        )
        found = yield from self._ask("GetState", message, "GetStateResponse")
        if not found.data and not found.etag:
            return None
        return Found(found.data, found.etag or None, found.metadata.get("ttlExpireTime"))

    def get_states(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> Flow[dict[str, Found]]:
        message = messages().GetBulkStateRequest(store_name=store, keys=keys, parallelism=10, metadata=metadata)
        answer = yield from self._ask("GetBulkState", message, "GetBulkStateResponse")
        found: dict[str, Found] = {}
        for each in answer.items:
            if each.error:
                raise InternalError(f"the sidecar cannot read {each.key!r}: {each.error[:_MOST]}")
            if each.data or each.etag:
                found[each.key] = Found(each.data, each.etag or None, each.metadata.get("ttlExpireTime"))
        return found

    def save_states(self, store: str, items: Sequence[Item]) -> Flow[None]:
        message = messages().SaveStateRequest(store_name=store, states=map(_item, items))
        yield from self._ask("SaveState", message)

    def delete_state(self, store: str, item: Item) -> Flow[None]:
        one = _item(item)
        message = messages().DeleteStateRequest(
            store_name=store, key=item.key, etag=one.etag if one.HasField("etag") else None, metadata=item.metadata
        )
        if one.HasField("options"):
            message.options.CopyFrom(one.options)
        yield from self._ask("DeleteState", message)

    def transact(self, store: str, items: Sequence[Item], metadata: Mapping[str, str]) -> Flow[None]:
        kinds = messages()
        operations = [
            kinds.TransactionalStateOperation(
                operationType="delete" if item.value is None else "upsert", request=_item(item)
            )
            for item in items
        ]
        message = kinds.ExecuteStateTransactionRequest(storeName=store, operations=operations, metadata=metadata)
        yield from self._ask("ExecuteStateTransaction", message)

    # -- secrets, configuration, locks --------------------------------------

    def get_secret(self, store: str, key: str, metadata: Mapping[str, str]) -> Flow[Secret]:
        message = messages().GetSecretRequest(store_name=store, key=key, metadata=metadata)
        found = yield from self._ask("GetSecret", message, "GetSecretResponse")
        return Secret(dict(found.data))

    def get_secrets(self, store: str, metadata: Mapping[str, str]) -> Flow[dict[str, Secret]]:
        message = messages().GetBulkSecretRequest(store_name=store, metadata=metadata)
        found = yield from self._ask("GetBulkSecret", message, "GetBulkSecretResponse")
        return {key: Secret(dict(each.secrets)) for key, each in found.data.items()}

    def get_configuration(
        self, store: str, keys: Sequence[str], metadata: Mapping[str, str]
    ) -> Flow[dict[str, Setting]]:
        message = messages().GetConfigurationRequest(store_name=store, keys=keys, metadata=metadata)
        found = yield from self._ask("GetConfiguration", message, "GetConfigurationResponse")
        return {key: Setting(each.value, each.version, dict(each.metadata)) for key, each in found.items.items()}

    def try_lock(self, store: str, resource: str, owner: str, seconds: int) -> Flow[bool]:
        message = messages().TryLockRequest(
            store_name=store, resource_id=resource, lock_owner=owner, expiry_in_seconds=seconds
        )
        found = yield from self._ask("TryLockAlpha1", message, "TryLockResponse")
        return bool(found.success)

    def unlock(self, store: str, resource: str, owner: str) -> Flow[int]:
        message = messages().UnlockRequest(store_name=store, resource_id=resource, lock_owner=owner)
        found = yield from self._ask("UnlockAlpha1", message, "UnlockResponse")
        return int(found.status)

    # -- publishing ---------------------------------------------------------

    def publish(
        self, pubsub: str, topic: str, data: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> Flow[None]:
        message = messages().PublishEventRequest(
            pubsub_name=pubsub, topic=topic, data=data, data_content_type=content_type, metadata=metadata
        )
        yield from self._ask("PublishEvent", message)

    def publish_bulk(self, pubsub: str, topic: str, entries: Sequence[Entry]) -> Flow[None]:
        kinds = messages()
        made = [
            kinds.BulkPublishRequestEntry(
                entry_id=entry.entry_id, event=entry.event, content_type=_CLOUD_EVENT, metadata=entry.metadata
            )
            for entry in entries
        ]
        message = kinds.BulkPublishRequest(pubsub_name=pubsub, topic=topic, entries=made)
        answer = yield from self._ask("BulkPublishEvent", message, "BulkPublishResponse")
        if answer.failedEntries:
            first = answer.failedEntries[0]
            said = Refusal(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "", str(first.error)[:_MOST])
            raise Refused(said, frozenset(each.entry_id for each in answer.failedEntries))

    # -- jobs -----------------------------------------------------------------

    def schedule_job(self, job: DaprJob, overwrite: bool) -> Flow[None]:
        message = messages().ScheduleJobRequest(job=job_message(job), overwrite=overwrite)
        yield from self._ask("ScheduleJobAlpha1", message, "ScheduleJobResponse")

    def get_job(self, name: str) -> Flow[DaprJob]:
        found = yield from self._ask("GetJobAlpha1", messages().GetJobRequest(name=name), "GetJobResponse")
        return job_of(found.job)

    def list_jobs(self) -> Flow[list[DaprJob]]:
        found = yield from self._ask("ListJobsAlpha1", messages().ListJobsRequest(), "ListJobsResponse")
        return [job_of(each) for each in found.jobs]

    def delete_job(self, name: str) -> Flow[None]:
        yield from self._ask("DeleteJobAlpha1", messages().DeleteJobRequest(name=name), "DeleteJobResponse")

    # -- bindings -------------------------------------------------------------

    def invoke_binding(
        self, name: str, operation: str, data: bytes | None, metadata: Mapping[str, str]
    ) -> Flow[tuple[bytes, Mapping[str, str]]]:
        message = messages().InvokeBindingRequest(name=name, data=data, metadata=metadata, operation=operation)
        found = yield from self._ask("InvokeBinding", message, "InvokeBindingResponse")
        return found.data, dict(found.metadata)


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
