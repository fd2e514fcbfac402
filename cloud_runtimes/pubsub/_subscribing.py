"""The subscribing half of `PubSubService`."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack, overload

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.handlers import Signature, is_async_callable
from .._service import Opening, Service, error_context, opening
from ..errors import UnsupportedError
from ..spi import pubsub as spi
from ..spi import state as state_spi
from ..spi.operation import Method, Operation
from ..spi.pubsub import AsyncEventSource, EventSource, PubSubDriver, Settlement, SubscribeRequest
from ._asked import check_bounds, check_request, needed
from ._fetcher import Fetcher
from ._inbox import HandledIds, Settling
from ._rate import Rate
from .outgoing import check_topic
from .subscription import Subscription
from .types import Event, EventBatch

if TYPE_CHECKING:
    from ..state.service import StateService
    from ..state.transaction import StateTransaction

T = TypeVar("T")

_SUBSCRIBE = Method("pubsub", "subscribe", repeatable=True, handle=True)
_TRANSACTION = Method("pubsub", "transaction", repeatable=False)

Start: TypeAlias = Literal["earliest", "latest"] | datetime
Order: TypeAlias = Literal["key"]


class SubscribeOptions(TypedDict, total=False):
    """The options that no overload of `PubSubService.subscribe` depends on, for short overloads."""

    group: str | None
    start: Start | None
    order: Order | None
    workers: int
    max_in_flight: int | None
    ack_wait: float | None
    handler_timeout: float | None
    rate: Rate | None
    max_deliveries: int | None
    dead_letter_topic: str | None
    raw: bool
    timeout: float | None
    metadata: Mapping[str, str] | None


class Subscribing(Service):
    """The subscriptions of `PubSubService`."""

    name = "pubsub"

    def _asking(
        self, method: Method, pubsub_name: str, topic: str, timeout: float | None, metadata: Any
    ) -> tuple[Operation, PubSubDriver]:
        driver: PubSubDriver = self._frame.drivers.get(pubsub_name) or self._frame.driver(pubsub_name)
        check_topic(topic)
        check_metadata(metadata)
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, pubsub_name, limit, metadata), driver

    def _request(self, topic: str, group: str | None, *rest: Any) -> SubscribeRequest:
        return SubscribeRequest(topic, self._frame.context.settings.app_id if group is None else group, *rest)

    def _joining(
        self,
        pubsub_name: str,
        request: SubscribeRequest,
        handler: Any,
        type: Any,
        workers: Any,
        max_in_flight: Any,
        timeout: Any,
    ) -> tuple[Operation, PubSubDriver, SubscribeRequest, Signature]:
        """Refuse, before any I/O, what cannot be asked for; return the request with the order of the component."""
        taken = check_request(request, handler, type, workers, max_in_flight, self._frame.context.client)
        op, driver = self._asking(_SUBSCRIBE, pubsub_name, request.topic, timeout, request.metadata)
        self._need_all(pubsub_name, request)
        return op, driver, request._replace(order=request.order or driver.default_order), taken

    def _need_all(self, pubsub_name: str, request: SubscribeRequest) -> None:
        """Refuse, before any I/O, what the component cannot do."""
        driver = self._frame.driver(pubsub_name)
        for feature, name, given in needed(request, self._frame.context.settings.app_id):
            if given:
                self._frame.need(driver, feature, name, pubsub_name)

    def _live(
        self,
        source: EventSource | AsyncEventSource,
        driver: PubSubDriver,
        pubsub_name: str,
        request: SubscribeRequest,
        handler: Any,
        taken: Signature,
        workers: int,
        max_in_flight: int | None,
        handler_timeout: float | None,
        rate: Rate | None,
        loop: Any,
    ) -> Subscription[Any]:
        """Make a source live."""
        # eight batches let the next ones be fetched while one is worked on; twice one is needed for that at least
        batch = request.batch
        ahead = 0 if batch is None else max(2 * batch, min(8 * batch, 1000))
        fetcher = Fetcher(
            source,
            pubsub_name,
            request,
            type=taken.type,
            max_in_flight=max_in_flight or max(256 if request.order is None else 4096, ahead),
            ack_wait=(request.ack_wait or 30.0) if spi.ACK_WAIT in driver.features else None,
            handled=handler is not None,
            handler_timeout=None if handler is None or is_async_callable(handler) else handler_timeout,
            run_task=self._run_task,
            can_pause=spi.PAUSE in driver.features,
            open_transaction=partial(self._open_transaction, driver, pubsub_name, request),
            observe=self._frame.first(lambda each: each.consuming(pubsub_name, request)),
        )
        subscription: Subscription[Any] = Subscription(
            self,
            fetcher,
            request,
            handler=handler,
            takes=taken.takes,
            batch=batch,
            handler_timeout=handler_timeout,
            rate=rate,
        )
        try:
            subscription._begin(workers, loop)
        except BaseException:
            subscription._abandon()
            raise
        return subscription

    def _open_transaction(
        self,
        driver: PubSubDriver,
        pubsub_name: str,
        request: SubscribeRequest,
        fetcher: Fetcher,
        events: Sequence[Event[Any]],
        store_name: str,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> StateTransaction:
        """Return a state transaction that settles events too, or writes their ids where the store has another engine."""
        try:
            from ..state.transaction import settling_transaction

            context = self._frame.context
            state: StateService = context.service("state")
            frame = context.frame("state")
            store = frame.driver(store_name)
            if spi.INBOX in driver.features and driver.engine is not None and driver.engine == store.engine:
                settling = Settling(fetcher.inbox, events)
                return settling_transaction(state, store_name, timeout, metadata, settling=settling)
            for feature in (state_spi.TRANSACTION, state_spi.TRANSACTION_ETAG, state_spi.TTL):
                frame.need(store, feature, "event.transaction", store_name)
            if not store.takes_hidden:
                raise UnsupportedError(
                    f"event.transaction: a sidecar's store {store_name!r} has no place for the ids of handled events: "
                    "make the handler safe to run twice, or keep the state in a component of the process",
                    service="pubsub",
                    runtime=self._frame.runtime_name,
                    component=pubsub_name,
                )
            group = (pubsub_name, request.topic, request.group)
            acknowledge = partial(fetcher.settle, settlement=Settlement.ACK, delay=None)
            once = HandledIds(fetcher.name, group, events, context.runtime().inbox_retention, acknowledge)
            return settling_transaction(state, store_name, timeout, metadata, once=once)
        except BaseException as error:
            self._frame.add_context(error, _TRANSACTION, pubsub_name)
            raise

    def _run_task(self, task: Coroutine[Any, Any, None]) -> Future[None]:
        import asyncio

        return asyncio.run_coroutine_threadsafe(task, self._frame.context.loop())

    @overload
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[Event[T]], Any] | None = None,
        *,
        type: builtins.type[T],
        batch: None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[Event[T]]: ...
    @overload
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[EventBatch[T]], Any] | None = None,
        *,
        type: builtins.type[T],
        batch: int,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[EventBatch[T]]: ...
    @overload
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[..., Any] | None = None,
        *,
        type: Any = None,
        batch: None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[Event[Any]]: ...
    @overload
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[..., Any] | None = None,
        *,
        type: Any = None,
        batch: int,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[EventBatch[Any]]: ...
    @error_context(_SUBSCRIBE)
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[..., Any] | None = None,
        *,
        group: str | None = None,
        start: Start | None = None,
        order: Order | None = None,
        workers: int = 1,
        max_in_flight: int | None = None,
        ack_wait: float | None = None,
        handler_timeout: float | None = None,
        rate: Rate | None = None,
        max_deliveries: int | None = None,
        dead_letter_topic: str | None = None,
        batch: int | None = None,
        raw: bool = False,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Subscription[Any]:
        """Join a consumer group of a topic; the subscription is live on return. At least once.

        >>> with client.pubsub.subscribe("bus", "orders", group="shipping", start="earliest") as events:
        ...     event = events.receive(timeout=10)
        ...     print(event.data)
        ...     event.ack()
        {'id': '1'}

        With a handler, which acknowledges by returning:

        >>> def audit(order: dict[str, Any]) -> None:
        ...     client.state.save("audit", str(order["id"]), order)
        >>> subscription = client.pubsub.subscribe("bus", "orders", audit, group="audit")
        >>> subscription.close()

        Args:
            pubsub_name, topic, timeout, metadata: as in `publish`.
            handler: called for each event (or batch). Its parameters get what they are annotated with: the data, the `Event` (or `EventBatch`), the `CloudRuntimesClient`; with ``batch`` the data is a ``list``. A parameter without an annotation gets the event. Its return acknowledges the event. An exception is logged, and the event comes again. `DropEvent` drops it. Plain handlers run in threads. ``async`` handlers run on the client's own loop, with `subscribe_async` on the running loop. Without a handler, iterate the subscription.
            group: its members share the events; default the ``app_id``.
            start: where a new group begins, ``"earliest"`` or ``"latest"``. A ``datetime`` with a time zone, to the millisecond: with the first event published at or after it. The broker's clock counts, on Kafka the publisher's. Events that were sent in one message come together.
            order: ``"key"``: the events of a key are handled one at a time and in the order of publishing, over all members of the group, retries included. Up to ``workers`` other keys go on meanwhile. Events without a key have no order. All members of a group ask for the same.
            workers: handlers running at once.
            max_in_flight: unsettled events at most (embedded: 256; with ``order`` 4,096). With ``batch`` it is eight times that up to 1,000, and twice that at least.
            ack_wait: seconds after which an unsettled event comes again if its process died or hangs, or, without a handler, since it was handed over (embedded: 30). A handler keeps its events while it runs; see `Event.extend` for the rest.
            handler_timeout: seconds that a handler may take, default: no limit. An ``async`` one is cancelled then, a plain one goes on and is reported. The event is delivered again either way.
            rate: events that the handler gets in a time at most, over all workers of this subscription; see `Rate`.
            max_deliveries: after the last one it is dropped (embedded: unlimited, 5 with a dead-letter topic).
            dead_letter_topic: where dropped events go. Except over Dapr, the extensions of a dead letter say why. ``dlreason`` is ``dropped``, ``deliveries`` or ``undecodable``. ``dlerror`` has type and message of the last error. ``dlcount`` counts the deliveries; ``dlfirst`` and ``dllast`` are the times of the first and the last. ``dltopic`` and ``dlgroup`` say where. What is not known is left out.
            batch: hand out `EventBatch` lists of the 1 to ``batch`` events there.
            raw: events without envelopes.
            type: what the data is decoded into, strictly, where no annotation of the handler says it. What does not fit goes to the dead-letter topic at once; without one it is retried.

        Raises:
            InvalidArgumentError: an option is wrong, or the handler takes something else.
            UnsupportedError: the component has no such option.
            ConflictError: the group has another order.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `publish`.
        """
        request = self._request(
            topic, group, start, ack_wait, max_deliveries, dead_letter_topic, raw, metadata, batch, max_in_flight, order
        )
        check_bounds(handler, handler_timeout, rate)
        op, driver, request, taken = self._joining(pubsub_name, request, handler, type, workers, max_in_flight, timeout)
        source = self._frame.call(op, driver.subscribe, request)
        return self._live(
            source, driver, pubsub_name, request, handler, taken, workers, max_in_flight, handler_timeout, rate, None
        )

    @overload
    def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[Event[T]], Any] | None = None,
        *,
        type: builtins.type[T],
        batch: None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Opening[Subscription[Event[T]]]: ...
    @overload
    def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[EventBatch[T]], Any] | None = None,
        *,
        type: builtins.type[T],
        batch: int,
        **options: Unpack[SubscribeOptions],
    ) -> Opening[Subscription[EventBatch[T]]]: ...
    @overload
    def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[..., Any] | None = None,
        *,
        type: Any = None,
        batch: None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Opening[Subscription[Event[Any]]]: ...
    @overload
    def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[..., Any] | None = None,
        *,
        type: Any = None,
        batch: int,
        **options: Unpack[SubscribeOptions],
    ) -> Opening[Subscription[EventBatch[Any]]]: ...
    @opening
    @error_context(_SUBSCRIBE)
    async def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[..., Any] | None = None,
        *,
        group: str | None = None,
        start: Start | None = None,
        order: Order | None = None,
        workers: int = 1,
        max_in_flight: int | None = None,
        ack_wait: float | None = None,
        handler_timeout: float | None = None,
        rate: Rate | None = None,
        max_deliveries: int | None = None,
        dead_letter_topic: str | None = None,
        batch: int | None = None,
        raw: bool = False,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Subscription[Any]:
        """Join a consumer group of a topic; the subscription is live on return. At least once.

        >>> with client.pubsub.subscribe("bus", "orders", group="shipping", start="earliest") as events:
        ...     event = events.receive(timeout=10)
        ...     print(event.data)
        ...     event.ack()
        {'id': '1'}

        With a handler, which acknowledges by returning:

        >>> def audit(order: dict[str, Any]) -> None:
        ...     client.state.save("audit", str(order["id"]), order)
        >>> subscription = client.pubsub.subscribe("bus", "orders", audit, group="audit")
        >>> subscription.close()

        Args:
            pubsub_name, topic, timeout, metadata: as in `publish`.
            handler: called for each event (or batch). Its parameters get what they are annotated with: the data, the `Event` (or `EventBatch`), the `CloudRuntimesClient`; with ``batch`` the data is a ``list``. A parameter without an annotation gets the event. Its return acknowledges the event. An exception is logged, and the event comes again. `DropEvent` drops it. Plain handlers run in threads. ``async`` handlers run on the client's own loop, with `subscribe_async` on the running loop. Without a handler, iterate the subscription.
            group: its members share the events; default the ``app_id``.
            start: where a new group begins, ``"earliest"`` or ``"latest"``. A ``datetime`` with a time zone, to the millisecond: with the first event published at or after it. The broker's clock counts, on Kafka the publisher's. Events that were sent in one message come together.
            order: ``"key"``: the events of a key are handled one at a time and in the order of publishing, over all members of the group, retries included. Up to ``workers`` other keys go on meanwhile. Events without a key have no order. All members of a group ask for the same.
            workers: handlers running at once.
            max_in_flight: unsettled events at most (embedded: 256; with ``order`` 4,096). With ``batch`` it is eight times that up to 1,000, and twice that at least.
            ack_wait: seconds after which an unsettled event comes again if its process died or hangs, or, without a handler, since it was handed over (embedded: 30). A handler keeps its events while it runs; see `Event.extend` for the rest.
            handler_timeout: seconds that a handler may take, default: no limit. An ``async`` one is cancelled then, a plain one goes on and is reported. The event is delivered again either way.
            rate: events that the handler gets in a time at most, over all workers of this subscription; see `Rate`.
            max_deliveries: after the last one it is dropped (embedded: unlimited, 5 with a dead-letter topic).
            dead_letter_topic: where dropped events go. Except over Dapr, the extensions of a dead letter say why. ``dlreason`` is ``dropped``, ``deliveries`` or ``undecodable``. ``dlerror`` has type and message of the last error. ``dlcount`` counts the deliveries; ``dlfirst`` and ``dllast`` are the times of the first and the last. ``dltopic`` and ``dlgroup`` say where. What is not known is left out.
            batch: hand out `EventBatch` lists of the 1 to ``batch`` events there.
            raw: events without envelopes.
            type: what the data is decoded into, strictly, where no annotation of the handler says it. What does not fit goes to the dead-letter topic at once; without one it is retried.

        Raises:
            InvalidArgumentError: an option is wrong, or the handler takes something else.
            UnsupportedError: the component has no such option.
            ConflictError: the group has another order.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `publish`.
        """
        import asyncio

        request = self._request(
            topic, group, start, ack_wait, max_deliveries, dead_letter_topic, raw, metadata, batch, max_in_flight, order
        )
        check_bounds(handler, handler_timeout, rate)
        op, driver, request, taken = self._joining(pubsub_name, request, handler, type, workers, max_in_flight, timeout)
        source = await self._frame.call_async(op, driver.subscribe_async, request)
        loop = asyncio.get_running_loop()
        return self._live(
            source, driver, pubsub_name, request, handler, taken, workers, max_in_flight, handler_timeout, rate, loop
        )
