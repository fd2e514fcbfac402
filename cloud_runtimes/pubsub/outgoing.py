"""From what a caller publishes to a record: checks before any I/O."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from .._core import propagation
from .._core.arguments import check_several
from .._native import events as kernel
from .._native import telemetry
from .._native.attributes import CONTEXT, FORMAT
from ..codec.payload import encode_payload
from ..errors import BulkError, CloudRuntimesError, InvalidArgumentError, ResourceExhaustedError
from ..spi.events import EVENT_TYPE
from ..spi.pubsub import OutgoingBatch
from .types import OutgoingEvent

if TYPE_CHECKING:
    from .._service import ServiceFrame
    from ..spi.operation import Operation
    from ..spi.pubsub import BatchLimits, Failures, PubSubDriver

_FRAME_EVENTS: Final = 1000
_FRAME_BYTES: Final = 1024 * 1024
# RFC 3986, appendix A
_URI_REFERENCE: Final = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")


def check_topic(topic: Any, what: str = "topic") -> str:
    """Return a topic's (or group's) name: printable text of 1 to 255 characters."""
    if not isinstance(topic, str) or not 0 < len(topic) <= 255 or not topic.isprintable():
        raise InvalidArgumentError(f"{what} {topic!r}: give printable text of 1 to 255 characters")
    return topic


def check_start(start: Any) -> None:
    """Refuse what is no point of a topic to begin at."""
    if start is None or start in ("earliest", "latest"):
        return
    if not isinstance(start, datetime):
        raise InvalidArgumentError(f"start {start!r}: give 'earliest', 'latest', a datetime with a time zone, or None")
    if start.utcoffset() is None:
        raise InvalidArgumentError(
            f"start {start} has no time zone: give one that has, such as datetime.now(UTC) - timedelta(hours=1)"
        )
    if start > datetime.now(UTC):
        raise InvalidArgumentError(f"start {start} is in the future: give a time that has passed, or 'latest'")


def check_names(attributes: Any) -> Mapping[str, Any]:
    """Return attributes; refuse what is not a mapping with text as names."""
    if not isinstance(attributes, Mapping) or not all(isinstance(name, str) for name in attributes):
        raise InvalidArgumentError("attributes must be a mapping of CloudEvents attribute names to values")
    return attributes


def is_uri_reference(text: str) -> bool:
    """Return whether all characters are those of a URI-reference, which CloudEvents wants of ``source`` (section 3.1.1)."""
    return _URI_REFERENCE.fullmatch(text) is not None


def make_record(
    data: Any,
    *,
    content_type: str | None,
    key: str | None,
    attributes: Mapping[str, Any] | None,
    metadata: Mapping[str, str] | None,
    id: str | None = None,
    expires_us: int | None = None,
    raw: bool = False,
    driver: PubSubDriver,
) -> bytes:
    """Encode one event for a driver. It carries the trace context of the caller, unless it is raw or the attributes have a ``traceparent`` of their own."""
    payload, encoded_as = encode_payload(data, content_type)
    if len(payload) > driver.max_event_bytes:
        raise ResourceExhaustedError(
            f"the event's data has {len(payload):,} bytes, {driver.max_event_bytes:,} are taken: {driver.too_large_hint}"
        )
    traceparent, more = (None, False) if raw else telemetry.outgoing()
    fields: dict[str, Any] = {"id": id}
    if expires_us is not None and driver.expiry_extension is not None and not raw:
        end = datetime.fromtimestamp(expires_us / 1_000_000, UTC).isoformat(timespec="milliseconds")
        attributes = {driver.expiry_extension: end.replace("+00:00", "Z"), **(attributes or {})}
    if attributes is not None or more:
        given = dict(check_names(attributes or {}))
        if given.get("traceparent") is not None:
            traceparent = None
        elif more:
            carried: dict[str, Any] = {}
            propagation.inject(carried)
            given = {**carried, **given}
        fields |= event_attributes(given)
    return kernel.encode_record(
        payload,
        encoded_as,
        key=key,
        traceparent=traceparent,
        metadata=metadata,
        expires=expires_us,
        raw=raw,
        **fields,
    )


def event_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return CloudEvents attributes as arguments of the kernel's `encode_record`; those that are `None` are left out."""
    given = {name: value for name, value in attributes.items() if value is not None}
    context: dict[str, Any] = {name: given.pop(name) for name in CONTEXT if name in given}
    for name in ("source", "dataschema"):
        value = attributes.get(name)
        if isinstance(value, str) and value and not is_uri_reference(value):
            raise InvalidArgumentError(
                f"attribute {name}: {value!r:.80} is no URI-reference such as '/orders' or 'https://shop.example/orders': "
                "percent-encode spaces and what is not ASCII"
            )
    time = context.get("time")
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise InvalidArgumentError("attribute time: give a datetime with a tzinfo, or RFC 3339 text")
        context["time"] = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for name in FORMAT:
        if name in attributes:
            raise InvalidArgumentError(f"attribute {name!r} is set by the event itself: use data= and content_type=")
    if "partitionkey" in attributes:
        raise InvalidArgumentError("attribute 'partitionkey' has an argument of its own: use key=")
    if given:
        context["extensions"] = given
    return context


class OutgoingBatches:
    """Encoded events, each with its name, in batches that a driver takes; every event is tried. ``failed`` is name → error."""

    def __init__(self, source: str, topic: str, limits: BatchLimits, records: Iterable[tuple[Hashable, bytes]]) -> None:
        self.failed: dict[Any, CloudRuntimesError] = {}
        self._header = (source, EVENT_TYPE, topic)
        self._limits = limits
        self._waiting = deque(records)
        # of the batch under way; whether one has come through
        self._names: list[Hashable] = []
        self._begun = False

    def next(self) -> OutgoingBatch | None:
        """Return the next batch; ``None``: that was the last."""
        self._names = []
        frames: list[bytes] = []
        room = self._limits.bytes
        while records := self._frame(room):
            frames.append(kernel.build_frame(*self._header, records))
            room -= len(frames[-1])
        return OutgoingBatch(self._header[2], frames, len(self._names)) if frames else None

    def _frame(self, room: int) -> list[bytes]:
        """Take as many events as a frame holds, and the batch; the batch's first in any case."""
        records: list[bytes] = []
        room = min(room, _FRAME_BYTES)
        while self._waiting and len(records) < _FRAME_EVENTS and len(self._names) < self._limits.events:
            name, record = self._waiting[0]
            room -= len(record)
            if room < 0 and self._names:
                break
            self._waiting.popleft()
            self._names.append(name)
            records.append(record)
        return records

    def landed(self, failures: Failures) -> None:
        """Take in what became of the batch."""
        self._begun = True
        self.failed |= {self._names[index]: error for index, error in failures.items()}

    def stopped(self, error: CloudRuntimesError) -> None:
        """Take an error for that of the batch and of all behind it; raise it where nothing came before."""
        if not self._begun:
            raise error
        self.failed |= dict.fromkeys([*self._names, *(name for name, _ in self._waiting)], error)
        self._waiting.clear()


class OutgoingBulk:
    """Events of a `PubSubService.publish_bulk`: ``ids`` of all events, and ``batches`` of those that can be encoded."""

    def __init__(
        self, events: Any, app_id: str, topic: str, metadata: Mapping[str, str] | None, driver: PubSubDriver
    ) -> None:
        if isinstance(events, (str, bytes, bytearray, Mapping)):
            raise InvalidArgumentError("publish_bulk takes several events: give a list of payloads or OutgoingEvent")
        check_several("events", events)
        self.ids: list[str] = []
        failed: dict[int, CloudRuntimesError] = {}
        records: list[tuple[int, bytes]] = []
        for index, item in enumerate(events):
            data, key, attributes = item, None, None
            if isinstance(item, OutgoingEvent):
                data, key, attributes = item.data, item.key, item.attributes
            id = kernel.uuid7_text(kernel.uuid7())
            try:
                record = make_record(
                    data,
                    content_type=None,
                    key=key,
                    attributes=attributes,
                    metadata=metadata,
                    id=id,
                    driver=driver,
                )
            except CloudRuntimesError as error:
                failed[index] = error
            else:
                records.append((index, record))
                id = attributes.get("id") or id if attributes else id
            self.ids.append(id)
        self.batches = OutgoingBatches(app_id, topic, driver.limits, records)
        self.batches.failed |= failed

    def finish(self, pubsub_name: str) -> list[str]:
        """Return the ids, or raise a `BulkError` of the events that failed."""
        if failed := self.batches.failed:
            first = min(failed)
            raise BulkError(
                f"publish_bulk: {len(failed)} of {len(self.ids)} events failed in {pubsub_name!r}; "
                f"number {first}: {failed[first]}",
                failed=failed,
                result=self.ids,
                service="pubsub",
                operation="publish_bulk",
                component=pubsub_name,
            )
        return self.ids


def publish_all(frame: ServiceFrame, op: Operation, driver: PubSubDriver, batches: OutgoingBatches) -> None:
    """Publish batches in order; every event is tried."""
    while (batch := batches.next()) is not None:
        try:
            batches.landed(frame.call(op, driver.publish, batch))
        except CloudRuntimesError as error:
            batches.stopped(error)
        op = op.following()


async def publish_all_async(frame: ServiceFrame, op: Operation, driver: PubSubDriver, batches: OutgoingBatches) -> None:
    """Publish batches in order; every event is tried."""
    while (batch := batches.next()) is not None:
        try:
            batches.landed(await frame.call_async(op, driver.publish_async, batch))
        except CloudRuntimesError as error:
            batches.stopped(error)
        op = op.following()
