"""What is asked of a sidecar of Dapr and of no other; `over_http` and `over_grpc` say how it travels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from .._sidecar.transport import Flow, Transport

if TYPE_CHECKING:
    from .callbacks import DaprCallbacks

__all__ = ["DaprJob", "DaprTransport", "BulkEntry", "ConfigurationValue"]


class ConfigurationValue(NamedTuple):
    """A value of a configuration store."""

    value: str
    version: str
    metadata: Mapping[str, str]


class BulkEntry(NamedTuple):
    """An event of a bulk: a CloudEvent as JSON."""

    entry_id: str
    event: bytes
    metadata: Mapping[str, str]


class DaprJob(NamedTuple):
    """A job as Dapr has it; ``None``: not told.

    Attributes:
        schedule: cron of six fields, perhaps behind ``CRON_TZ=…``, ``@every …``, ``@hourly`` …
        due_time, ttl: RFC 3339 or a duration of Go's.
        data: JSON.
        policy: what follows a failure: (seconds between tries, tries), ``"drop"``.
    """

    name: str
    schedule: str | None
    repeats: int | None
    due_time: str | None
    ttl: str | None
    data: bytes | None
    policy: tuple[float, int | None] | Literal["drop"] | None


class DaprTransport(Transport):
    """The way to one sidecar.

    Attributes:
        buffers_calls: a call of an application is one message, and its failure comes without the body.
        callbacks: what comes back from the sidecar, by the application's server.
    """

    callbacks: DaprCallbacks
    buffers_calls: ClassVar[bool] = False

    @abstractmethod
    def components(self) -> Flow[dict[str, str]]:
        """Return name → type of the components, as far as the sidecar tells them."""

    def component_type(self, name: str) -> Flow[str]:
        """Return the type of a component, as the sidecar tells it; ``""``: it does not."""
        return (yield from self.components()).get(name, "")

    @abstractmethod
    def get_configuration(
        self, store: str, keys: Sequence[str], metadata: Mapping[str, str]
    ) -> Flow[dict[str, ConfigurationValue]]:
        """Return the values of keys, of all where none is named."""

    @abstractmethod
    def publish_bulk(self, pubsub: str, topic: str, entries: Sequence[BulkEntry]) -> Flow[None]:
        """Publish several CloudEvents; `DaprSidecarError.failed` has the ids of those that failed, where they are told."""

    @abstractmethod
    def schedule_job(self, job: DaprJob, overwrite: bool) -> Flow[None]:
        """Store a job."""

    @abstractmethod
    def get_job(self, name: str) -> Flow[DaprJob]:
        """Return a job."""

    @abstractmethod
    def list_jobs(self) -> Flow[list[DaprJob]]:
        """Return all jobs of the application; gRPC alone can."""

    @abstractmethod
    def delete_job(self, name: str) -> Flow[None]:
        """Delete a job, if it is there."""

    @abstractmethod
    def invoke_binding(
        self, name: str, operation: str, data: bytes | None, metadata: Mapping[str, str]
    ) -> Flow[tuple[bytes, Mapping[str, str]]]:
        """Do something with a binding, ``data`` being text; return the reply's data and, over gRPC alone whole, its metadata."""
