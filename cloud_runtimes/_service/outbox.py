"""Publishing in a transaction, so that both happen or neither: a transactional outbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from .handle import ServiceHandle

if TYPE_CHECKING:
    from ..spi.change import Change
    from ..spi.driver import Driver
    from ..spi.operation import Method
    from ..spi.pubsub import OutgoingBatch
    from .base import Framed


class Outbox(ServiceHandle):
    """Base of transaction handles."""

    _method: ClassVar[Method]

    def __init__(self, service: Framed, store_name: str) -> None:
        super().__init__(service)
        self._store_name = store_name
        self._changes: list[Change] = []
        # for each place of events: what makes a write of them, what to call after the commit
        self._events: dict[tuple[Callable[..., Any], Callable[[], None]], list[OutgoingBatch]] = {}

    def _publishing(self) -> Driver:
        """Return the driver of the transaction; refuse where it is over or cannot publish."""
        raise NotImplementedError

    def publish(
        self,
        pubsub_name: str,
        topic: str,
        data: Any,
        *,
        content_type: str | None = None,
        key: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        ttl: float | timedelta | None = None,
        delay: float | timedelta | None = None,
        raw: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Add an event, which is published if the transaction is committed, and return its id. The event is encoded now; nothing is sent before the end.

        Args:
            pubsub_name: the component. Where its engine is not the transaction's, the event waits in the store, in the same commit, until a forwarder has published it.
            topic, data, content_type, key, attributes, ttl, delay, raw, metadata: as in `PubSubService.publish`.

        Raises:
            PayloadError: the data cannot be encoded.
            ResourceExhaustedError: the event is too large.
            UnsupportedError: events cannot wait in this store, or the component has no ``ttl``, ``delay`` or ``raw``.
            ClosedError: the transaction has ended.
        """
        try:
            self._check_process()
            engine = self._publishing().engine
            event = (topic, data, content_type, key, attributes, ttl, delay, raw, metadata)
            make = self._frame.context.frame("pubsub").make_event
            batch, id, write, committed = make(self._frame.name, self._store_name, engine, pubsub_name, *event)
        except BaseException as error:
            self._frame.add_context(error, self._method, self._store_name)
            raise
        self._events.setdefault((write, committed), []).append(batch)
        return str(id)

    def _gather(self) -> None:
        """Have the transaction write what stands for its events."""
        for (write, _), batches in self._events.items():
            for batch in batches[0].merged(batches):
                written = write(batch)
                self._add_events(written if isinstance(written, list) else [written])

    def _add_events(self, writes: Sequence[Any]) -> None:
        """Have the transaction write what stands for events."""
        self._changes += writes

    def _tell_committed(self) -> None:
        """Have the events forwarded that wait since the commit."""
        for _, committed in self._events:
            committed()
