"""What is asked of a sidecar of Dapr and of no other; `over_http` and `over_grpc` say how it travels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..._link.transport import Flow, Transport

__all__ = ["DaprTransport", "Entry", "Setting"]


class Setting(NamedTuple):
    """A value of a configuration store."""

    value: str
    version: str
    metadata: Mapping[str, str]


class Entry(NamedTuple):
    """An event of a bulk: a CloudEvent as JSON."""

    entry_id: str
    event: bytes
    metadata: Mapping[str, str]


class DaprTransport(Transport):
    """The way to one sidecar."""

    @abstractmethod
    def component_type(self, name: str) -> Flow[str]:
        """Return the type of a component, as the sidecar tells it; ``""``: it does not."""

    @abstractmethod
    def get_configuration(
        self, store: str, keys: Sequence[str], metadata: Mapping[str, str]
    ) -> Flow[dict[str, Setting]]:
        """Return the values of keys, of all where none is named."""

    @abstractmethod
    def publish_bulk(self, pubsub: str, topic: str, entries: Sequence[Entry]) -> Flow[None]:
        """Publish several CloudEvents; `Refused.failed` has the ids of those that failed, where they are told."""
