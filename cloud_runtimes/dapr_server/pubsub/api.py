"""Publishing in words of neither protocol; refusals as in dapr/dapr ``pkg/api/errors/pubsub.go``."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ...codec import json
from ...errors import CloudRuntimesError
from ...protocols.dapr.failures import DaprError
from ...pubsub.outgoing import OutgoingBatches, check_topic, make_record, publish_all_async
from ...spi.operation import Method, Operation
from ...spi.pubsub import RAW, TTL, PubSubDriver
from ..context import Context
from .envelope import is_text, media_type
from .outgoing import NotAnEvent, Outgoing, Trace, make, passed_on

_BULK: Final = Method("pubsub", "publish_bulk", repeatable=True)
_FRAME_EVENTS: Final = 1000
_TRUE: Final = frozenset(["1", "t", "T", "TRUE", "true", "True"])
_FALSE: Final = frozenset(["", "0", "f", "F", "FALSE", "false", "False"])


@dataclass(slots=True)
class Entry:
    """Event of a bulk request; ``metadata`` is ``None`` if the event has none of its own."""

    entry_id: str
    data: bytes
    content_type: str
    metadata: Mapping[str, str] | None = field(default=None)


class PubSubApi:
    """The pub/sub components of a client."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pubsub = context.client.pubsub
        self._app_id = context.settings.app_id

    async def publish(
        self, pubsub_name: str, topic: str, data: bytes, content_type: str, metadata: Mapping[str, str], trace: Trace
    ) -> None:
        """Publish one event; returns once the broker has it."""
        driver, raw = self.check(pubsub_name, topic, metadata)
        outgoing = self._event(pubsub_name, topic, data, content_type, metadata, raw, trace)
        ttl = self._ttl(driver, outgoing)
        try:
            await self._pubsub.publish_async(
                pubsub_name,
                topic,
                outgoing.data,
                content_type=outgoing.content_type,
                key=outgoing.key,
                attributes=outgoing.attributes,
                ttl=ttl,
                raw=outgoing.attributes is None,
                metadata=passed_on(metadata, outgoing.note),
            )
        except CloudRuntimesError as error:
            raise self._failure(pubsub_name, topic, error.message) from error

    async def publish_bulk(
        self, pubsub_name: str, topic: str, entries: list[Entry], metadata: Mapping[str, str], trace: Trace
    ) -> dict[str, str]:
        """Publish several events in order; returns the id and the error of each that failed."""
        driver, raw = self.check(pubsub_name, topic, metadata)
        seen: set[str] = set()
        for entry in entries:
            if not entry.entry_id or entry.entry_id in seen:
                raise self._malformed(
                    pubsub_name, topic, "entryId is duplicated or not present for entry", "MARSHAL_EVENTS"
                )
            seen.add(entry.entry_id)
        prepared: list[tuple[str, Outgoing, Mapping[str, str]]] = []
        for entry in entries:
            # the request's metadata reaches only entries that have some of their own: so Dapr does
            own: Mapping[str, str] = {} if entry.metadata is None else {**metadata, **entry.metadata}
            prepared.append(
                (
                    entry.entry_id,
                    self._event(pubsub_name, topic, entry.data, entry.content_type, own, raw, trace),
                    own,
                )
            )
        failed: dict[str, str] = {}
        records: list[tuple[str, bytes]] = []
        for entry_id, outgoing, own in prepared:
            try:
                records.append((entry_id, self._record(driver, outgoing, own)))
            except CloudRuntimesError as error:
                failed[entry_id] = error.message
        if records:
            failed |= await self._send(pubsub_name, topic, driver, records, metadata)
        return failed

    async def _send(
        self,
        pubsub_name: str,
        topic: str,
        driver: PubSubDriver,
        records: list[tuple[str, bytes]],
        metadata: Mapping[str, str],
    ) -> dict[str, str]:
        batches = OutgoingBatches(self._app_id, topic, driver.limits, records)
        try:
            check_topic(topic)
            frame = self._context.frame("pubsub")
            op = Operation(_BULK, pubsub_name, frame.timeout, passed_on(metadata))
            await publish_all_async(frame, op, driver, batches)
        except CloudRuntimesError as error:
            return {entry_id: error.message for entry_id, _ in records}
        return {entry_id: error.message for entry_id, error in batches.failed.items()}

    def _record(self, driver: PubSubDriver, outgoing: Outgoing, metadata: Mapping[str, str]) -> bytes:
        ttl = self._ttl(driver, outgoing)
        return make_record(
            outgoing.data,
            content_type=outgoing.content_type,
            key=outgoing.key,
            attributes=outgoing.attributes,
            metadata=passed_on(metadata, outgoing.note),
            id=str(uuid.uuid4()),
            expires_us=None if ttl is None else time.time_ns() // 1000 + int(ttl * 1_000_000),
            raw=outgoing.attributes is None,
            driver=driver,
        )

    # -- checking ---------------------------------------------------------

    def check(self, pubsub_name: str, topic: str, metadata: Mapping[str, str]) -> tuple[PubSubDriver, bool]:
        """Refuse what cannot be published to; returns the driver, and whether events go without an envelope."""
        if not pubsub_name:
            raise self._refused(404, "ERR_PUBSUB_EMPTY", "NAME_EMPTY", pubsub_name, "pubsub name is empty", metadata)
        if self._context.lack("pubsub", pubsub_name) is not None:
            raise DaprError(
                404,
                "INVALID_ARGUMENT",
                "ERR_PUBSUB_NOT_FOUND",
                f"pubsub {pubsub_name} is not found",
                reason="DAPR_PUBSUB_NOT_FOUND",
                metadata=metadata,
            )
        if not topic:
            text = f"topic is empty in pubsub {pubsub_name}"
            raise self._refused(404, "ERR_TOPIC_NAME_EMPTY", "TOPIC_NAME_EMPTY", pubsub_name, text, metadata)
        raw_payload = metadata.get("rawPayload", "")
        if raw_payload not in _TRUE and raw_payload not in _FALSE:
            text = f"failed deserializing metadata. Error: rawPayload value must be a valid boolean: actual is '{raw_payload}'"
            raise self._refused(
                400, "ERR_PUBSUB_REQUEST_METADATA", "METADATA_DESERIALIZATION", pubsub_name, text, metadata
            )
        driver: PubSubDriver = self._context.driver("pubsub", pubsub_name)
        raw = raw_payload in _TRUE
        if raw and RAW not in driver.features:
            raise self._failure(pubsub_name, topic, "this component cannot publish without an envelope")
        return driver, raw

    def _event(
        self,
        pubsub_name: str,
        topic: str,
        data: bytes,
        content_type: str,
        metadata: Mapping[str, str],
        raw: bool,
        trace: Trace,
    ) -> Outgoing:
        try:
            return make(
                data,
                content_type,
                metadata,
                raw=raw,
                app_id=self._app_id,
                trace=trace,
                topic=topic,
                pubsub_name=pubsub_name,
            )
        except NotAnEvent as error:
            raise self._refused(
                500,
                "ERR_PUBSUB_CLOUD_EVENTS_SER",
                "CLOUD_EVENT_CREATION",
                pubsub_name,
                "cannot create cloudevent",
                {"appID": self._app_id, "error": str(error)},
            ) from error

    def _ttl(self, driver: PubSubDriver, outgoing: Outgoing) -> float | None:
        """Return what the component counts; where it cannot, the event says itself when it ends."""
        if outgoing.ttl is None or TTL in driver.features:
            return outgoing.ttl
        if outgoing.attributes is not None:
            end = datetime.now(UTC) + timedelta(seconds=outgoing.ttl)
            outgoing.attributes["expiration"] = end.isoformat(timespec="seconds").replace("+00:00", "Z")
        return None

    # -- refusing ---------------------------------------------------------

    def unreadable(self, pubsub_name: str, topic: str, why: str) -> DaprError:
        """Return the refusal of a bulk whose body cannot be read."""
        text = f"error when unmarshaling the request for topic {topic} pubsub {pubsub_name}: {why}"
        return self._refused(
            400, "ERR_PUBSUB_EVENTS_SER", "UNMARSHAL_EVENTS", pubsub_name, text, {"appID": self._app_id}
        )

    def mismatched(self, pubsub_name: str, topic: str, why: str) -> DaprError:
        """Return the refusal of an entry whose event is not of its content type."""
        return self._malformed(pubsub_name, topic, why, "MARSHAL_ENVELOPE")

    def failed_bulk(self, pubsub_name: str, topic: str, failed: Mapping[str, str]) -> DaprError:
        """Return the refusal of a bulk of which some failed, for gRPC."""
        return self._failure(pubsub_name, topic, next(iter(failed.values())))

    def _malformed(self, pubsub_name: str, topic: str, why: str, reason: str) -> DaprError:
        text = (
            f"error marshaling events to bytes for topic {topic} pubsub {pubsub_name}. error: {why}"
            if reason == "MARSHAL_EVENTS"
            else f"error when marshalling cloud event envelope for topic {topic} pubsub {pubsub_name}: {why}"
        )
        details = {"appID": self._app_id, "error": why}
        return self._refused(400, "ERR_PUBSUB_EVENTS_SER", reason, pubsub_name, text, details)

    def _failure(self, pubsub_name: str, topic: str, why: str) -> DaprError:
        return DaprError(
            500,
            "INTERNAL",
            "ERR_PUBSUB_PUBLISH_MESSAGE",
            (text := f"error when publishing to topic {topic} in pubsub {pubsub_name}: {why}"),
            reason="DAPR_PUBSUB_PUBLISH_MESSAGE",
            metadata={"topic": topic, "error": why},
            resource=("pubsub", pubsub_name, text),
        )

    def _refused(
        self, status: int, code: str, reason: str, pubsub_name: str, text: str, metadata: Mapping[str, str]
    ) -> DaprError:
        return DaprError(
            status,
            "INVALID_ARGUMENT",
            code,
            text,
            reason=f"DAPR_PUBSUB_{reason}",
            metadata=metadata,
            resource=("pubsub", pubsub_name, text),
        )


def bytes_of(event: Any, content_type: str) -> bytes:
    """Return the bytes of an event of a bulk over HTTP.

    Raises:
        ValueError: the event is not of its content type.
    """
    if media_type(content_type) == "application/octet-stream":
        if not isinstance(event, str):
            raise ValueError("an event of application/octet-stream is base64")
        return base64.b64decode(event, validate=True)
    if is_text(content_type):
        if not isinstance(event, str):
            raise ValueError(f"an event of {content_type} is text")
        return event.encode()
    return json.encode(event)
