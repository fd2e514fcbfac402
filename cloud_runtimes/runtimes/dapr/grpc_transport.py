"""Dapr's calls over its gRPC API (dapr/dapr ``dapr/proto/runtime/v1/dapr.proto``), and over both APIs where both addresses are known."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from ..._http.http1 import Endpoint
from ...protocols.dapr.events import CLOUD_EVENT
from ...protocols.dapr.messages import VALUE_TYPE, messages, plain
from ...spi.configuration import ConfigurationItem
from ...spi.operation import Operation
from ...spi.rpc import RpcCall, RpcReply
from .._sidecar.channel import Channel
from .._sidecar.grpc_calls import Call, StreamMethod
from .._sidecar.stores import is_exact
from .._sidecar.transport import ErrorReply, Flow, StateItem
from .callbacks import DaprCallbacks
from .http_transport import HttpTransport
from .transport import DaprSidecarError

_MOST: Final = 1000


class GrpcTransport(Channel):
    """gRPC alone. `HttpTransport` has the same calls."""

    callbacks: DaprCallbacks

    service = "/dapr.proto.runtime.v1.Dapr/"
    stream_methods: ClassVar[Mapping[str, StreamMethod]] = {
        "configuration": StreamMethod("SubscribeConfiguration", "SubscribeConfigurationResponse", both_ways=False),
        "events": StreamMethod("SubscribeTopicEventsAlpha1", "SubscribeTopicEventsResponseAlpha1"),
    }
    buffers_calls = True
    refused = DaprSidecarError
    table = "[dapr]"
    remedy = "start one (cloud-runtimes serve, dapr run)"
    token_name = "DAPR_API_TOKEN"
    lock_methods = ("TryLockAlpha1", "UnlockAlpha1", "expiry_in_seconds")
    invoked = "InvokeRequest"
    http_hint = "goes over HTTP alone: give the sidecar's HTTP address"

    @staticmethod
    def pb() -> Any:
        return messages()

    def _read(self, code: str, details: str, trailing: Any) -> tuple[ErrorReply, Mapping[str, str]]:
        error_reply, info = super()._read(code, details, trailing)
        for key, value in trailing:
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                reason, info = _info(value)
                error_reply = error_reply._replace(reason=reason)
        return error_reply, info

    def ready(self) -> Flow[str]:
        try:
            yield from self._about()
        except DaprSidecarError as refused:
            return refused.error_reply.message
        return ""

    def components(self) -> Flow[dict[str, str]]:
        try:
            reply = yield from self._about()
        except DaprSidecarError:
            return {}
        return {each.name: each.type for each in reply.registered_components}

    def _about(self) -> Flow[Any]:
        return (yield from self.ask("GetMetadata", messages().GetMetadataRequest(), "GetMetadataResponse"))

    def invoke(self, service: str, call: RpcCall) -> Flow[RpcReply]:
        try:
            message, headers = yield Call(
                "InvokeService", self.invocation(service, call), "InvokeResponse", call.headers
            )
        except DaprSidecarError as refused:
            code, said = refused.info.get("http.code", ""), refused.info.get("http.error_message", "")
            if code.isdigit():  # of the application's body only the beginning is told
                return RpcReply(int(code), refused.headers, None, said.encode())
            raise DaprSidecarError(refused.error_reply._replace(code="ERR_DIRECT_INVOKE")) from None
        status = headers.get("dapr-http-status", "")
        return RpcReply(
            int(status) if status.isdigit() else 200, headers, message.content_type or None, message.data.value
        )

    def get_configuration(
        self, store: str, keys: Sequence[str], metadata: Mapping[str, str]
    ) -> Flow[dict[str, ConfigurationItem]]:
        message = messages().GetConfigurationRequest(store_name=store, keys=keys, metadata=metadata)
        reply = yield from self.ask("GetConfiguration", message, "GetConfigurationResponse")
        return {
            key: ConfigurationItem(key, each.value, each.version or None, metadata=dict(each.metadata))
            for key, each in reply.items.items()
        }

    def publish_bulk(self, pubsub: str, topic: str, events: Sequence[tuple[bytes, Mapping[str, str]]]) -> Flow[None]:
        """Publish CloudEvents with their metadata; `SidecarError.failed` has the numbers of those that failed, where they are told."""
        pb = messages()
        bulk_entries = [
            pb.BulkPublishRequestEntry(entry_id=str(number), event=event, content_type=CLOUD_EVENT, metadata=metadata)
            for number, (event, metadata) in enumerate(events)
        ]
        message = pb.BulkPublishRequest(pubsub_name=pubsub, topic=topic, entries=bulk_entries)
        answer = yield from self.ask("BulkPublishEvent", message, "BulkPublishResponse")
        if answer.failedEntries:
            first = answer.failedEntries[0]
            error_reply = ErrorReply(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "", str(first.error)[:_MOST])
            raise DaprSidecarError(error_reply, frozenset(each.entry_id for each in answer.failedEntries))

    def schedule_job(self, name: str, job: Mapping[str, Any], overwrite: bool) -> Flow[None]:
        message = messages().ScheduleJobRequest(job=_job_message(name, job), overwrite=overwrite)
        yield from self.ask("ScheduleJobAlpha1", message, "ScheduleJobResponse")

    def get_job(self, name: str) -> Flow[Any]:
        reply = yield from self.ask("GetJobAlpha1", messages().GetJobRequest(name=name), "GetJobResponse")
        return _job_of(reply.job)

    def list_jobs(self) -> Flow[list[Any]]:
        reply = yield from self.ask("ListJobsAlpha1", messages().ListJobsRequest(), "ListJobsResponse")
        return [_job_of(each) for each in reply.jobs]

    def delete_job(self, name: str) -> Flow[None]:
        yield from self.ask("DeleteJobAlpha1", messages().DeleteJobRequest(name=name), "DeleteJobResponse")

    def invoke_binding(
        self, name: str, operation: str, data: bytes | None, metadata: Mapping[str, str]
    ) -> Flow[tuple[bytes, Mapping[str, str]]]:
        message = messages().InvokeBindingRequest(name=name, data=data, metadata=metadata, operation=operation)
        reply = yield from self.ask("InvokeBinding", message, "InvokeBindingResponse")
        return reply.data, dict(reply.metadata)


def _over_grpc(name: str) -> Callable[..., Any]:
    return lambda self, *arguments: getattr(self._grpc, name)(*arguments)


class CombinedTransport(HttpTransport):
    """Both addresses: each call goes the way that is better for it, HTTP where nothing else stands here.

    A call over HTTP takes a third of the time of one by the gRPC library, and may be made in a forked child beside a stream. gRPC takes what HTTP has not, or not whole: streams, lists of jobs, the metadata of bindings, and JSON whose numbers Dapr would decode.
    """

    exact = True
    streams = True

    def __init__(self, endpoint: Endpoint, token: str | None, app_id: str, grpc: GrpcTransport) -> None:
        super().__init__(endpoint, token, app_id, grpc.largest)
        self.url = f"{endpoint.url} and {grpc.url}"
        self._grpc = grpc

    get_states = _over_grpc("get_states")  # HTTP's list of values is decoded and encoded again
    publish_bulk = _over_grpc("publish_bulk")
    schedule_job = _over_grpc("schedule_job")
    get_job = _over_grpc("get_job")
    list_jobs = _over_grpc("list_jobs")
    delete_job = _over_grpc("delete_job")
    invoke_binding = _over_grpc("invoke_binding")
    native = _over_grpc("native")
    pb = _over_grpc("pb")
    open = _over_grpc("open")

    def save_states(self, store: str, items: Sequence[StateItem]) -> Flow[None]:
        return super().save_states(store, items) if _are_exact(items) else self._grpc.save_states(store, items)

    def transact(self, store: str, items: Sequence[StateItem], metadata: Mapping[str, str]) -> Flow[None]:
        if _are_exact(items):
            return super().transact(store, items, metadata)
        return self._grpc.transact(store, items, metadata)

    def exchange(self, op: Operation, request: Any) -> Any:
        return super().exchange(op, request) if isinstance(request, RpcCall) else self._grpc.exchange(op, request)

    async def exchange_async(self, op: Operation, request: Any) -> Any:
        if isinstance(request, RpcCall):
            return await super().exchange_async(op, request)
        return await self._grpc.exchange_async(op, request)

    def writes(self, op: Operation, request: Any) -> bool:
        return super().writes(op, request) if isinstance(request, RpcCall) else self._grpc.writes(op, request)

    def _refuses(self, reply: Any) -> bool:
        return isinstance(reply, RpcReply) and super()._refuses(reply)

    def close(self) -> None:
        super().close()
        self._grpc.close()


def _are_exact(items: Sequence[StateItem]) -> bool:
    return all(item.value is None or is_exact(item.value) for item in items)


def _job_message(name: str, job: Mapping[str, Any]) -> Any:
    """Return a job as a message. Its data is a ``google.protobuf.Value``, so that applications get it as JSON."""
    from google.protobuf import json_format

    document = {**job, "name": name}
    if "data" in job:
        document["data"] = {"@type": VALUE_TYPE, "value": job["data"]}
    pb = messages()
    return json_format.ParseDict(document, pb.Job(), descriptor_pool=pb.pool)


def _job_of(message: Any) -> dict[str, Any]:
    """Return the JSON of a job, whose ProtoJSON is what Dapr has over HTTP."""
    from google.protobuf import json_format

    pb = messages()
    rest = pb.Job()
    rest.CopyFrom(message)
    rest.ClearField("data")
    document: dict[str, Any] = json_format.MessageToDict(rest)
    if message.data.type_url:
        document["data"] = {"value": _value(pb, message.data)}
    return document


def _value(pb: Any, data: Any) -> Any:
    """Return what an ``Any`` holds; of a type that is not known here its bytes, as base64."""
    from google.protobuf import json_format

    try:
        if data.type_url == VALUE_TYPE:
            return plain(pb.Value.FromString(data.value))
        document = json_format.MessageToDict(data, descriptor_pool=pb.pool)
    except Exception:  # whatever its bytes are
        return base64.b64encode(data.value).decode("ascii")
    return document.get("value", document)


def _info(data: bytes) -> tuple[str, dict[str, str]]:
    from google.protobuf.message import DecodeError

    pb = messages()
    try:
        for each in pb.Status.FromString(data).details:
            if each.type_url.endswith("/google.rpc.ErrorInfo"):
                info = pb.ErrorInfo.FromString(each.value)
                return info.reason, dict(info.metadata)
    except DecodeError:
        pass
    return "", {}
