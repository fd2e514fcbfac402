"""What an event that was received consists of, in Python: the base of `cloud_runtimes.pubsub.Event`; the twin of ``src_ext/views.pxi``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .events_py import Record

__all__ = ["ReceivedEvent"]


class ReceivedEvent:
    """What an event that was received consists of; the attributes that its record holds.

    Attributes:
        pubsub_name: the component it came from; ``""`` where it came from none.
        delivery_count: how often the group has got it, this time included; ``None``: not known.
    """

    __slots__ = (
        "_data",
        "_decoded",
        "_pump",
        "_raw",
        "_record",
        "_token",
        "_type",
        "_verdict",
        "delivery_count",
        "pubsub_name",
    )

    def __init__(
        self,
        record: Record,
        *,
        pump: Any = None,
        token: Any = None,
        pubsub_name: str = "",
        delivery_count: int | None = None,
        type: Any = None,
        raw: bool = False,
    ) -> None:
        self._record = record
        self._pump = pump
        self._token = token
        self._type = type
        self._raw = raw
        self._decoded = False
        self._data: Any = None
        self._verdict: Any = None
        self.pubsub_name = pubsub_name
        self.delivery_count = delivery_count

    @property
    def id(self) -> str:
        """CloudEvents ``id``: with `source` it names the event; the same in every delivery."""
        return self._record.id

    @property
    def source(self) -> str:
        """CloudEvents ``source``."""
        return self._record.source

    @property
    def type(self) -> str:
        """CloudEvents ``type``."""
        return self._record.type

    @property
    def subject(self) -> str | None:
        """CloudEvents ``subject``."""
        return self._record.subject

    @property
    def topic(self) -> str:
        """The topic it was published to; a dead letter keeps its first one."""
        return self._record.topic

    @property
    def key(self) -> str | None:
        """The ordering key (CloudEvents extension ``partitionkey``)."""
        return self._record.key

    @property
    def content_type(self) -> str | None:
        """CloudEvents ``datacontenttype``."""
        return self._record.content_type

    @property
    def extensions(self) -> Mapping[str, Any]:
        """Other CloudEvents extensions."""
        return self._record.extensions

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the publisher gave as ``metadata``."""
        return self._record.metadata

    @property
    def traceparent(self) -> str | None:
        """W3C trace context."""
        return self._record.traceparent

    def to_json(self) -> bytes:
        """Return the event as CloudEvents 1.0 structured JSON."""
        return self._record.to_json()
