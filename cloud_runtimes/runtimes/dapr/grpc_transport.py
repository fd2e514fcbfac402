"""Dapr's calls over its gRPC API (dapr/dapr ``dapr/proto/runtime/v1/dapr.proto``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from ...protocols.dapr.failures import GRPC_TO_HTTP
from ...protocols.dapr.messages import messages
from ...spi.rpc import RpcCall, RpcReply
from .._sidecar.channel import Call, StreamMethod
from .._sidecar.failures import ErrorReply
from .._sidecar.grpc_calls import GrpcCalls, MethodNames
from .._sidecar.transport import Flow
from .failures import DaprSidecarError
from .job_json import job_message, job_of_message
from .transport import BulkEntry, ConfigurationValue, DaprJob, DaprTransport

__all__ = ["GrpcTransport"]

_CLOUD_EVENT: Final = "application/cloudevents+json"
_MOST: Final = 1000


class GrpcTransport(GrpcCalls, DaprTransport):
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
    stream_methods: ClassVar[Mapping[str, StreamMethod]] = {
        "configuration": StreamMethod("SubscribeConfiguration", "SubscribeConfigurationResponse", both_ways=False),
        "events": StreamMethod("SubscribeTopicEventsAlpha1", "SubscribeTopicEventsResponseAlpha1"),
    }
    buffers_calls = True
    refused = DaprSidecarError
    table = "[dapr]"
    remedy = "start one (cloud-runtimes serve, dapr run)"
    token_name = "DAPR_API_TOKEN"
    names = MethodNames("TryLockAlpha1", "UnlockAlpha1", "expiry_in_seconds", "InvokeRequest")
    instead = "goes over HTTP alone: give the sidecar's HTTP address"

    @staticmethod
    def pb() -> Any:
        return messages()

    def _read(self, code: str, details: str, trailing: Any) -> tuple[ErrorReply, Mapping[str, str]]:
        reason: str = ""
        info: dict[str, str] = {}
        for key, value in trailing:
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                reason, info = _info(value)
        return ErrorReply(GRPC_TO_HTTP.get(code, 500), f"grpc {code}", reason, details or code), info

    # -- the sidecar --------------------------------------------------------

    def ready(self) -> Flow[str]:
        answer = yield Call("GetMetadata", messages().GetMetadataRequest(), "GetMetadataResponse")
        return answer.message if isinstance(answer, ErrorReply) else ""

    def components(self) -> Flow[dict[str, str]]:
        answer = yield Call("GetMetadata", messages().GetMetadataRequest(), "GetMetadataResponse")
        if isinstance(answer, ErrorReply):
            return {}
        return {each.name: each.type for each in answer.registered_components}

    def invoke(self, service: str, call: RpcCall) -> Flow[RpcReply]:
        request = self.invocation(service, call)
        headers = tuple(call.headers.items())
        answer = yield Call("InvokeService", request, "InvokeResponse", headers, whole=True)
        if answer.refusal is not None:
            code = answer.info.get("http.code", "")
            if not code.isdigit():
                raise DaprSidecarError(answer.refusal._replace(code="ERR_DIRECT_INVOKE"))
            # of the application's body only the beginning is told
            return RpcReply(int(code), answer.headers, None, answer.info.get("http.error_message", "").encode())
        status = answer.headers.get("dapr-http-status", "")
        body = answer.message.data.value
        content_type = answer.message.content_type or None
        return RpcReply(int(status) if status.isdigit() else 200, answer.headers, content_type, body)

    # -- configuration ------------------------------------------------------

    def get_configuration(
        self, store: str, keys: Sequence[str], metadata: Mapping[str, str]
    ) -> Flow[dict[str, ConfigurationValue]]:
        message = messages().GetConfigurationRequest(store_name=store, keys=keys, metadata=metadata)
        found = yield from self.ask("GetConfiguration", message, "GetConfigurationResponse")
        return {
            key: ConfigurationValue(each.value, each.version, dict(each.metadata)) for key, each in found.items.items()
        }

    # -- publishing ---------------------------------------------------------

    def publish_bulk(self, pubsub: str, topic: str, entries: Sequence[BulkEntry]) -> Flow[None]:
        pb = messages()
        made = [
            pb.BulkPublishRequestEntry(
                entry_id=entry.entry_id, event=entry.event, content_type=_CLOUD_EVENT, metadata=entry.metadata
            )
            for entry in entries
        ]
        message = pb.BulkPublishRequest(pubsub_name=pubsub, topic=topic, entries=made)
        answer = yield from self.ask("BulkPublishEvent", message, "BulkPublishResponse")
        if answer.failedEntries:
            first = answer.failedEntries[0]
            error_reply = ErrorReply(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "", str(first.error)[:_MOST])
            raise DaprSidecarError(error_reply, frozenset(each.entry_id for each in answer.failedEntries))

    # -- jobs -----------------------------------------------------------------

    def schedule_job(self, job: DaprJob, overwrite: bool) -> Flow[None]:
        message = messages().ScheduleJobRequest(job=job_message(job), overwrite=overwrite)
        yield from self.ask("ScheduleJobAlpha1", message, "ScheduleJobResponse")

    def get_job(self, name: str) -> Flow[DaprJob]:
        found = yield from self.ask("GetJobAlpha1", messages().GetJobRequest(name=name), "GetJobResponse")
        return job_of_message(found.job)

    def list_jobs(self) -> Flow[list[DaprJob]]:
        found = yield from self.ask("ListJobsAlpha1", messages().ListJobsRequest(), "ListJobsResponse")
        return [job_of_message(each) for each in found.jobs]

    def delete_job(self, name: str) -> Flow[None]:
        yield from self.ask("DeleteJobAlpha1", messages().DeleteJobRequest(name=name), "DeleteJobResponse")

    # -- bindings -------------------------------------------------------------

    def invoke_binding(
        self, name: str, operation: str, data: bytes | None, metadata: Mapping[str, str]
    ) -> Flow[tuple[bytes, Mapping[str, str]]]:
        message = messages().InvokeBindingRequest(name=name, data=data, metadata=metadata, operation=operation)
        found = yield from self.ask("InvokeBinding", message, "InvokeBindingResponse")
        return found.data, dict(found.metadata)


def _info(data: bytes) -> tuple[str, dict[str, str]]:
    from google.protobuf.message import DecodeError

    pb = messages()
    try:
        for each in pb.Status.FromString(data).details:
            if each.type_url.endswith("/google.rpc.ErrorInfo"):
                found = pb.ErrorInfo.FromString(each.value)
                return found.reason, dict(found.metadata)
    except DecodeError:
        pass
    return "", {}
