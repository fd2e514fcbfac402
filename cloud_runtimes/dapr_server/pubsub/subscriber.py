"""Subscription of the application: takes events from our pub/sub service and delivers them to the application.

An event is settled once the application has answered, so none is lost. Events that are unsettled at the end are
returned.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from ..._core.backoff import Backoff
from ..._core.logs import logger, repeated
from ...errors import CloudRuntimesError, PayloadError
from ...pubsub import Event
from ...pubsub import Subscription as Handle
from ...pubsub.subscription import hold
from ...pubsub.types import answer
from ...spi.events import cause_of
from ...spi.pubsub import ACK_WAIT, DEAD_LETTER, RAW, Cause, Settlement
from ..app.channel import NotReached
from ..context import Context
from ..settings import BulkSubscribe, SidecarSettings, Subscription
from .cel import ExpressionError
from .delivery import Delivery, Item, Route, Routes, Said
from .envelope import Envelope, read

_AT_ONCE: Final = 10
"""Callbacks under way of one subscription, as Dapr's ``pubsub.redis`` has them."""
_LEASE: Final = 15.0
"""Seconds after the death of a sidecar for which what it held is still its own."""
_LATE: Final = 5.0


def is_raw(subscription: Subscription) -> bool:
    """Return whether events come without envelopes."""
    return subscription.metadata.get("rawPayload", "").lower() in ("true", "1", "t")


async def open_handle(context: Context, subscription: Subscription, in_flight: int) -> Handle[Event[Any]]:
    """Join the group of the application.

    Raises:
        CloudRuntimesError: there is no such component, or it cannot do what is asked for.
    """
    settings = context.settings
    options: dict[str, Any] = {"group": settings.app_id, "max_in_flight": in_flight}
    driver = context.driver("pubsub", subscription.pubsub_name)
    if subscription.kind == "STREAMING" and _is_in_memory(settings, subscription.pubsub_name):
        # Dapr's memory has no groups: each stream gets what is published while it is open
        options |= {"group": f"{settings.app_id}-{uuid.uuid4().hex}", "start": "latest"}
    if ACK_WAIT in driver.features:
        options["ack_wait"] = _LEASE
    dead_letters = subscription.dead_letter_topic
    if dead_letters and dead_letters != subscription.topic:  # see `settle`
        options["dead_letter_topic"] = dead_letters
        if DEAD_LETTER in driver.features:
            # what fails goes there by our word; a member that dies is no failure of the event
            options["max_deliveries"] = 1_000_000
    if is_raw(subscription) and RAW in driver.features:
        options["raw"] = True
    handle: Handle[Event[Any]] = await context.client.pubsub.subscribe_async(
        subscription.pubsub_name, subscription.topic, **options
    )
    # the application has longer for its answer than a sidecar that is dead
    hold(handle, settings.timeout + _LATE)
    return handle


def _is_in_memory(settings: SidecarSettings, name: str) -> bool:
    return any(each.name == name and each.type == "pubsub.in-memory" for each in settings.components)


def settle(event: Event[Any], subscription: Subscription, said: Said) -> None:
    """Settle an event by the application's word.

    Dapr retries by a policy, then sends to the dead-letter topic; without a policy it does so at once. Where that is the topic itself, the event comes again.
    """
    dead_letters = subscription.dead_letter_topic
    if said is Said.SUCCESS:
        event.ack()
    elif dead_letters == subscription.topic or (said is Said.RETRY and not dead_letters):
        event.retry()
    else:
        answer(event, Settlement.DROP, None, None if said is Said.DROP else Cause("deliveries"))


class Subscriber:
    """Open subscription of the application."""

    def __init__(self, context: Context, subscription: Subscription, routes: Routes, delivery: Delivery) -> None:
        self.subscription = subscription
        self._context = context
        self._routes = routes
        self._delivery = delivery
        self._raw = is_raw(subscription)
        self._handle: Handle[Event[Any]] | None = None
        self._error: CloudRuntimesError | None = None
        self._opening: asyncio.Task[None] | None = None
        self._pauses = Backoff(0.5, 30.0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Subscribe, and begin to deliver. Where that fails, and after an error that ended it, it is tried again, as daprd does."""
        self._context.watched[self._name] = self.problem
        if not await self._open():
            self._opening = asyncio.create_task(self._open_again(None))

    def problem(self) -> str | None:
        """Tell why it cannot work now; ``None``: it works."""
        error = self._error if self._handle is None else self._handle.health.problem
        return None if error is None else error.message

    async def _open(self) -> bool:
        bulk = self.subscription.bulk
        single = self.subscription.metadata.get("concurrencyMode") == "single"
        at_once = 1 if single else _AT_ONCE
        in_flight = 2 * at_once if bulk is None else 2 * bulk.max_messages
        try:
            self._handle = await open_handle(self._context, self.subscription, in_flight)
        except CloudRuntimesError as error:
            self._failed(error)
            return False
        self._context.subscriptions.append(self.subscription)
        # one collects a bulk: several would share the events
        for _ in range(at_once if bulk is None else 1):
            task = asyncio.create_task(self._work(self._handle, bulk))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def _open_again(self, ended: Handle[Event[Any]] | None) -> None:
        if ended is not None:
            await ended.close_async(timeout=1.0)
        while True:
            await asyncio.sleep(self._pauses.next())
            if await self._open():
                return

    def _lost(self, handle: Handle[Event[Any]], error: CloudRuntimesError) -> None:
        """Open anew what an error has ended; of its workers the first comes to this."""
        if handle is not self._handle or self._stopping:
            return
        self._handle = None
        self._context.subscriptions.remove(self.subscription)
        self._failed(error)
        self._opening = asyncio.create_task(self._open_again(handle))

    def _failed(self, error: CloudRuntimesError) -> None:
        self._error = error
        key = f"failing {self._name} {type(error).__name__}"
        repeated(key, "%s cannot work now, and is tried again: %s", self._name, error)

    async def stop(self, end: float) -> None:
        """Let callbacks under way end until ``end`` (monotonic), then give back what is unsettled."""
        self._stopping = True
        self._context.watched.pop(self._name, None)
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait((self._opening,))
        if self.subscription in self._context.subscriptions:
            self._context.subscriptions.remove(self.subscription)
        for task in self._tasks - self._busy:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=max(0.0, end - monotonic()))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._handle is not None:
            await self._handle.close_async(timeout=max(1.0, end - monotonic()))

    async def _work(self, handle: Handle[Event[Any]], bulk: BulkSubscribe | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        while not self._stopping:
            try:
                event = await handle.receive_async()
                if event is None:
                    return
                events = [event] if bulk is None else [event, *await self._more(handle, bulk)]
                self._pauses.reset()
            except CloudRuntimesError as error:
                self._lost(handle, error)
                return
            self._busy.add(task)
            try:
                if bulk is None:
                    await self._one(event)
                else:
                    await self._several(events)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                logger().error("%s: delivering failed: %r", self._name, error, exc_info=error)
                for each in events:
                    each.retry()
            finally:
                self._busy.discard(task)

    @property
    def _name(self) -> str:
        return f"the subscription to {self.subscription.topic!r} of {self.subscription.pubsub_name!r}"

    async def _more(self, handle: Handle[Event[Any]], bulk: BulkSubscribe) -> list[Event[Any]]:
        events: list[Event[Any]] = []
        end = monotonic() + bulk.max_wait
        while len(events) + 1 < bulk.max_messages and not self._stopping:
            event = await handle.receive_async(timeout=max(0.0, end - monotonic()))
            if event is None:
                break
            events.append(event)
        return events

    # -- one event --------------------------------------------------------

    def _read(self, event: Event[Any]) -> tuple[Envelope, str] | None:
        """Return an event and its path; ``None``: it is settled."""
        subscription = self.subscription
        try:
            envelope = read(event, subscription.pubsub_name, subscription.topic, self._raw)
            if envelope.expired:
                event.drop()
                return None
            path = self._routes.path(envelope)
        except PayloadError as error:
            self._poison(event, error)
            return None
        except ExpressionError as error:
            repeated(f"rules {self._name}", "%s: a rule fails for event %s: %s", self._name, event.id, error)
            settle(event, subscription, Said.RETRY)
            return None
        if path is None:  # no rule wants it
            event.drop()
            return None
        return envelope, path

    async def _one(self, event: Event[Any]) -> None:
        parsed = self._read(event)
        if parsed is None:
            return
        envelope, path = parsed
        try:
            said = await self._delivery.one(Route(self.subscription, path, self._raw), envelope)
        except NotReached as error:
            self._unreached((event,), error)
        except PayloadError as error:
            self._poison(event, error)
        else:
            settle(event, self.subscription, said)

    async def _several(self, events: Sequence[Event[Any]]) -> None:
        groups: dict[str, list[tuple[Event[Any], Item]]] = {}
        for event in events:
            parsed = self._read(event)
            if parsed is not None:
                envelope, path = parsed
                groups.setdefault(path, []).append((event, Item(str(uuid.uuid4()), envelope)))
        for path, group in groups.items():
            route = Route(self.subscription, path, self._raw)
            try:
                said = await self._delivery.several(route, [item for _, item in group])
            except NotReached as error:
                self._unreached([event for event, _ in group], error)
                continue
            for event, item in group:
                settle(event, self.subscription, said.get(item.entry_id, Said.RETRY))

    def _poison(self, event: Event[Any], error: PayloadError) -> None:
        """An event that cannot be told: no other try would be better."""
        repeated(f"poison {self._name}", "%s: event %s is dropped: %s", self._name, event.id, error)
        answer(event, Settlement.DROP, None, cause_of("undecodable", error))

    def _unreached(self, events: Sequence[Event[Any]], error: NotReached) -> None:
        """The application did not answer, so it has said nothing against the events: they come again, also where there is a dead-letter topic."""
        if self._stopping:  # they go back as they are
            return
        repeated(f"unreached {self._name}", "%s: %s; the event comes again", self._name, error.message)
        for event in events:
            event.retry()
