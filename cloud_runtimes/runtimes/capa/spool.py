"""Spool: what is published waits in a log on this machine first, until its broker has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final

from ..._core.backoff import Backoff
from ...errors import ResourceExhaustedError
from ...spi.change import Change
from ...spi.operation import Method, Operation
from ...spi.pubsub import INBOX, AsyncEventSource, EventSource, Failures, OutgoingBatch, PubSubDriver, SubscribeRequest
from ...spi.relay import Spool, SpoolSettings

if TYPE_CHECKING:
    from ...spi.admin import PubSubAdmin
    from ...spi.executor import Executor

_EXPIRING: Final = Method("pubsub", "relay", repeatable=False)
_TIMEOUT: Final = 10.0
_EXPIRE: Final = 10.0
"""Seconds between two looks for what is too old."""


class SpooledPubSub(PubSubDriver):
    """Publishes into the spool of a name, and subscribes at its broker.

    Args:
        target: the broker's driver.
        store: component of the embedded store on this machine, whose limits are those of the spool.
        name: of the pub/sub component.
        hidden: name under which the events wait.
        settings: of the spool.
    """

    def __init__(self, target: PubSubDriver, store: Any, name: str, hidden: str, settings: SpoolSettings) -> None:
        self._target = target
        self._log: PubSubDriver = store.driver("pubsub", hidden)
        self._relay = store.relay(hidden)
        self._name = name
        self._settings = settings
        self._expired_at = 0.0
        # events are settled at the broker
        self.features = target.features - {INBOX}
        self.alternatives = target.alternatives
        self.limits = self._log.limits
        self.max_event_bytes = min(target.max_event_bytes, self._log.max_event_bytes)
        self.too_large_hint = target.too_large_hint
        self.default_order = target.default_order
        self.expiry_extension = target.expiry_extension
        self.spool: Spool = Spool(target, store.relay, self._expire)

    @property
    def executor(self) -> Executor:
        """The executor of the client."""
        return self._target.executor

    @executor.setter
    def executor(self, executor: Executor) -> None:
        self._target.executor = self._log.executor = executor

    @property
    def engine(self) -> Hashable:
        return self._log.engine

    def _expire(self) -> None:
        now = time.monotonic()
        if now >= self._expired_at + _EXPIRE:
            self._expired_at = now
            self._relay.expire(Operation(_EXPIRING, self._name, _TIMEOUT), self._settings.max_age)

    # -- publishing -------------------------------------------------------

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        pauses = Backoff(0.02, 1.0)
        while True:
            try:
                failures = self._log.publish(op, batch)
                self.spool.wake()
                return failures
            except ResourceExhaustedError as error:
                pause = self._pause(op, error, pauses)
            time.sleep(pause)

    async def publish_async(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        pauses = Backoff(0.02, 1.0)
        while True:
            try:
                failures = await self._log.publish_async(op, batch)
                self.spool.wake()
                return failures
            except ResourceExhaustedError as error:
                pause = self._pause(op, error, pauses)
            await asyncio.sleep(pause)

    def _pause(self, op: Operation, error: ResourceExhaustedError, pauses: Backoff) -> float:
        """Return how long to wait for room; raise where nobody waits, or the time is over."""
        pause, remaining = pauses.next(), op.remaining()
        if self._settings.on_full != "block" or (remaining is not None and remaining <= pause):
            raise ResourceExhaustedError(
                f"the spool of {self._name!r} has no room ({error.args[0].partition(':')[0]}): its broker takes events too slowly, or is "
                'away; raise max_bytes, or set on_full = "drop_oldest"'
            ) from error
        return pause

    def change(self, batch: OutgoingBatch, /) -> Change:
        return self._log.change(batch)

    # -- at the broker ----------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource | AsyncEventSource:
        return self._target.subscribe(op, request)

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource | AsyncEventSource:
        return await self._target.subscribe_async(op, request)

    def lag(self, op: Operation, topic: str, group: str, /) -> int | None:
        return self._target.lag(op, topic, group)

    def admin(self) -> PubSubAdmin:
        return self._target.admin()

    async def lag_async(self, op: Operation, topic: str, group: str, /) -> int | None:
        return await self._target.lag_async(op, topic, group)
