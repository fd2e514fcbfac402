"""Publishing in a transaction, so that both happen or neither: a transactional outbox."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from .handle import ServiceHandle

if TYPE_CHECKING:
    from ..spi.change import Change
    from ..spi.driver import Driver
    from ..spi.operation import Method
    from .base import Framed


class Outbox(ServiceHandle):
    """Base of transaction handles."""

    _method: ClassVar[Method]

    def __init__(self, service: Framed, store_name: str) -> None:
        super().__init__(service)
        self._store_name = store_name
        self._changes: list[Change] = []

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
            pubsub_name: a component on the same engine: the same database as the transaction's.
            topic, data, content_type, key, attributes, ttl, delay, raw, metadata: as in `PubSubService.publish`.

        Raises:
            PayloadError: the data cannot be encoded.
            ResourceExhaustedError: the event is too large.
            UnsupportedError: the two names have not the same engine, or the component has no ``ttl``, ``delay`` or ``raw``.
            ClosedError: the transaction has ended.
        """
        try:
            self._check_process()
            engine = self._publishing().engine
            source = (self._frame.name, self._store_name, engine)
            event = (topic, data, content_type, key, attributes, ttl, delay, raw)
            change, id = self._frame.context.frame("pubsub").make_change(source, pubsub_name, *event, metadata)
        except BaseException as error:
            self._frame.add_context(error, self._method, self._store_name)
            raise
        self._changes.append(change)
        return str(id)
