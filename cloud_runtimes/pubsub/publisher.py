"""The batching publisher: events go into a native buffer, a thread of its own sends sealed batches.

The buffer encodes and counts; here is the policy: when a batch leaves, what is tried again and for how long, who waits when there is no room, and who is told.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .. import _fork
from .._handle import Handle
from .._log import logger, repeated
from .._native import batch as kernel
from .._native import events
from .._operation import CLIENT_TIMEOUT, Method, Operation, check_metadata, check_timeout
from ..codec.payload import encode_payload
from ..errors import (
    BulkError,
    ClosedError,
    CloudRuntimesError,
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
)
from ._outgoing import EVENT_TYPE, check_names, make_record
from .types import DeliveryReport, FailedEvent, PublisherStats

if TYPE_CHECKING:
    import asyncio

    from .driver import PubSubDriver
    from .service import PubSubService

__all__ = ["OnFull", "Publisher"]

OnFull: TypeAlias = Literal["block", "raise", "drop"]

_PUBLISH: Final = Method("pubsub", "publisher", repeatable=False)
_TAKE_BYTES: Final = 8 * 1024 * 1024
_ATTEMPT: Final = 2.0
"""Seconds of one attempt; a longer stall is another attempt with the same ids."""
_KEPT_FAILURES: Final = 1000


class Publisher(Handle):
    """Gathers events into batches and sends them in the background; made by `PubSubService.publisher`.

    *Accepted* (`send` returned) is in memory, *delivered* is at the broker: a SIGKILL loses the difference. `flush` waits for it; `close`, ``with``, the client and the exit of the program do too.

    One thread's events of one key arrive in order, retries included. In a forked child it starts empty, with new ids and counters; the parent alone sends what it had.
    """

    outlives_fork: Final = True

    def __init__(
        self,
        service: PubSubService,
        pubsub_name: str,
        topic: str,
        *,
        linger: float,
        batch_events: int,
        batch_bytes: int,
        buffer_bytes: int,
        on_full: OnFull,
        delivery_timeout: float,
        on_delivery: Callable[[DeliveryReport], None] | None,
        content_type: str | None,
        attributes: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        _check_options(linger, batch_events, batch_bytes, buffer_bytes, on_full, delivery_timeout, on_delivery)
        self._service = service
        self._pubsub_name = pubsub_name
        self._topic = topic
        self._linger = linger
        self._on_full = on_full
        self._delivery_timeout = delivery_timeout
        self._on_delivery = on_delivery
        self._content_type = content_type
        self._attributes = dict(check_names(attributes)) if attributes else None
        self._limits = {"batch_events": batch_events, "batch_bytes": batch_bytes, "buffer_bytes": buffer_bytes}
        self._buffer: kernel.BatchBuffer | None = None
        self._max_event = 0
        self._last_driver: PubSubDriver | None = None
        self._reset()
        service._client._handles.add(self)
        _fork.register(self)

    def _reset(self) -> None:
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._changed = threading.Condition()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._settled = 0
        self._flush_to = 0
        self._marks: deque[tuple[int, float]] = deque()
        self._failures: dict[Any, CloudRuntimesError] = {}
        self._failed_untold = 0
        self._closed = False
        self._give_up_at: float | None = None

    def forked(self) -> None:
        """In a forked child: start empty."""
        self._generation = _fork.generation()
        self._last_driver = None
        if self._buffer is not None:
            self._buffer.reset()
        events.reseed()
        self._reset()

    # -- sending ----------------------------------------------------------

    def _prepared(self) -> kernel.BatchBuffer:
        """Make the buffer, on the first send."""
        with self._start_lock:
            if self._buffer is None:
                driver = self._service._driver(self._pubsub_name)
                self._last_driver = driver
                self._max_event = driver.max_event_bytes
                self._buffer = kernel.BatchBuffer(
                    self._service._client._settings.app_id,
                    EVENT_TYPE,
                    self._topic,
                    ready=self._on_ready,
                    **self._limits,
                )
            return self._buffer

    def _on_ready(self) -> None:
        """Wake the sender; a SimpleQueue, since signal handlers may send too."""
        self._wake.put(None)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cloud-runtimes-publisher", daemon=True)
                self._thread.start()

    def _add(
        self, data: Any, key: str | None, attributes: Mapping[str, Any] | None, metadata: Mapping[str, str] | None
    ) -> int:
        """Encode and append; 0: no room now."""
        if self._closed:
            raise ClosedError("this publisher is closed: open another", service="pubsub", component=self._pubsub_name)
        buffer = self._buffer or self._prepared()
        if attributes is None and metadata is None and self._attributes is None:
            payload, content_type = encode_payload(data, self._content_type)
            if len(payload) <= self._max_event:
                return buffer.append(payload, content_type, key)
        if attributes is not None or self._attributes is not None:
            attributes = {**(self._attributes or {}), **check_names(attributes or {})}
        record = make_record(
            data,
            content_type=self._content_type,
            key=key,
            attributes=attributes,
            metadata=check_metadata(metadata),
            max_bytes=self._max_event,
        )
        return buffer.append_record(record)

    def send(
        self,
        data: Any,
        *,
        key: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
    ) -> int:
        """Encode an event into the buffer and return its sequence number: 1, 2, …; 0 for one dropped by ``on_full="drop"``.

        Args:
            data: the payload.
            key: the ordering key.
            attributes: CloudEvents attributes and extensions, over the publisher's own.
            metadata: for the component.
            timeout: seconds that ``on_full="block"`` waits for room; the client's by default.

        Raises:
            PayloadError: it cannot be encoded.
            ResourceExhaustedError: no room in time, or it can never fit. In a thread with a running event loop, and in ``on_delivery``, there is no waiting: use `send_async`.
        """
        sequence = self._add(data, key, attributes, metadata)
        if sequence:
            return sequence
        if not self._may_wait():
            return 0
        if threading.current_thread() is self._thread or _in_loop():
            raise self._no_room("a thread that must not wait (use send_async there)")
        limit = check_timeout(timeout, self._service._client._timeout)
        end = None if limit is None else monotonic() + limit
        while True:
            with self._changed:
                sequence = self._add(data, key, attributes, metadata)
                if sequence:
                    return sequence
                self._changed.wait(0.25 if end is None else min(0.25, max(0.0, end - monotonic())))
            if end is not None and monotonic() >= end:
                raise self._no_room(f"{limit:g} s")

    async def send_async(
        self,
        data: Any,
        *,
        key: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
    ) -> int:
        """Asynchronous `send`: waits for room without blocking the loop."""
        sequence = self._add(data, key, attributes, metadata)
        if sequence:
            return sequence
        if not self._may_wait():
            return 0
        limit = check_timeout(timeout, self._service._client._timeout)
        end = None if limit is None else monotonic() + limit
        while True:
            future = self._waiter()
            sequence = self._add(data, key, attributes, metadata)
            if sequence:
                return sequence
            if not await _within(future, end):
                raise self._no_room(f"{limit:g} s")

    def _may_wait(self) -> bool:
        if self._closed:
            raise ClosedError("this publisher is closed: open another", service="pubsub", component=self._pubsub_name)
        if self._on_full == "drop":
            assert self._buffer is not None
            self._buffer.drop()
            return False
        if self._on_full == "raise":
            raise self._no_room("on_full='raise'")
        return True

    def _no_room(self, how: str) -> ResourceExhaustedError:
        return ResourceExhaustedError(
            f"the buffer of the publisher to {self._pubsub_name}/{self._topic} is full ({how}): events come faster than the "
            "broker takes them, or it is away; raise buffer_bytes, or slow down",
            retryable=True,
            service="pubsub",
            operation="send",
            component=self._pubsub_name,
        )

    # -- the sender -------------------------------------------------------

    def _run(self) -> None:
        buffer = self._buffer
        assert buffer is not None
        opened: float | None = None
        while True:
            self._mark(buffer)
            if buffer.has_sealed:
                self._deliver(buffer, buffer.take(_TAKE_BYTES))
                opened = None
                continue
            if buffer.open_events:
                now = monotonic()
                opened = opened or now
                urgent = self._closed or self._flush_to > self._settled
                if urgent or now >= opened + self._linger:
                    buffer.seal()
                    continue
                pause: float | None = opened + self._linger - now
            elif self._closed:
                return
            else:
                opened, pause = None, None
            try:
                self._wake.get(timeout=pause)
                while True:
                    self._wake.get_nowait()
            except Empty:
                continue

    def _mark(self, buffer: kernel.BatchBuffer) -> None:
        """Note when how many were accepted: it gives every event an age without a clock reading of its own."""
        accepted = buffer.stats()[0]
        if not self._marks or self._marks[-1][0] < accepted:
            self._marks.append((accepted, monotonic()))
            if len(self._marks) > 4096:  # coarser is fine
                self._marks = deque(list(self._marks)[1::2])

    def _expiry(self, last: int) -> float:
        """Return when an event has been tried long enough."""
        while len(self._marks) > 1 and self._marks[0][0] < last:
            self._marks.popleft()
        expiry = self._marks[0][1] + self._delivery_timeout
        return expiry if self._give_up_at is None else min(expiry, self._give_up_at)

    def _deliver(self, buffer: kernel.BatchBuffer, chunks: list[kernel.Chunk]) -> None:
        """Send chunks until every event of them is settled."""
        pause = 0.01
        while chunks:
            expiry = self._expiry(_last(chunks[0]))
            try:
                found = self._attempt(chunks, expiry)
            except CloudRuntimesError as error:
                failure = error
            else:
                self._settle(buffer, chunks, found)
                return
            passing = failure.retryable or failure.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
            if not passing and len(chunks) > 1:
                # one of them may be what the broker does not take: find out which
                for chunk in chunks:
                    self._deliver(buffer, [chunk])
                return
            if not passing or monotonic() >= expiry:
                self._settle(buffer, chunks[:1], {(0, index): failure for index in range(chunks[0].count)})
                chunks = chunks[1:]
                continue
            repeated(
                f"publisher {self._pubsub_name}/{self._topic}",
                "publishing to %s: %s; trying again",
                self._topic,
                failure,
            )
            self._mark(buffer)
            try:
                self._wake.get(timeout=min(pause, max(0.0, expiry - monotonic())))
            except Empty:
                pause = min(pause * 2, 1.0)

    def _attempt(self, chunks: list[kernel.Chunk], expiry: float) -> Mapping[tuple[int, int], CloudRuntimesError]:
        limit = max(0.05, min(_ATTEMPT, expiry - monotonic()))
        op = Operation(_PUBLISH, self._pubsub_name, limit)
        try:
            self._last_driver = self._service._driver(self._pubsub_name)
        except ClosedError:  # the client closes, and waits for this
            if self._last_driver is None:
                raise
        driver = self._last_driver
        return self._service._call(op, driver.publish, self._topic, [chunk.body for chunk in chunks], None)

    def _settle(
        self,
        buffer: kernel.BatchBuffer,
        chunks: list[kernel.Chunk],
        found: Mapping[tuple[int, int], CloudRuntimesError],
    ) -> None:
        """Count, report, and wake who waits."""
        for place, chunk in enumerate(chunks):
            failed = [
                _failed_event(chunk, index, error) for (frame, index), error in sorted(found.items()) if frame == place
            ]
            buffer.settle(chunk.count, len(chunk.body), len(failed))
            self._tell_waiters()  # there is room
            if self._on_delivery is None:
                self._remember(failed)
            else:
                try:
                    self._on_delivery(DeliveryReport(chunk.first, _last(chunk), failed))
                except Exception as error:
                    logger().exception("on_delivery of the publisher to %s failed: %s", self._topic, error)
            self._settled = _last(chunk)
            self._tell_waiters()  # a flush returns after the report

    def _tell_waiters(self) -> None:
        with self._changed:
            self._changed.notify_all()
            waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            try:
                loop.call_soon_threadsafe(_wake, future)
            except RuntimeError:
                continue  # that loop is closed

    def _remember(self, failed: list[FailedEvent]) -> None:
        with self._changed:
            self._failed_untold += len(failed)
            for event in failed[: _KEPT_FAILURES - len(self._failures)]:
                self._failures[event.sequence] = event.error

    # -- flushing and closing ---------------------------------------------

    def _flushing(self) -> int:
        """Return up to where a flush waits, and hurry the sender."""
        self._check_process()
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "flush and close cannot be called in on_delivery: it runs on the thread that would have to flush"
            )
        if self._buffer is None:
            return 0
        accepted = self._buffer.stats()[0]
        self._flush_to = max(self._flush_to, accepted)
        self._wake.put(None)
        return accepted

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before is settled (delivered or failed).

        Args:
            timeout: seconds; ``None``: as long as it takes, which ``delivery_timeout`` bounds.

        Raises:
            DeadlineExceededError: time is up; nothing is lost, sending goes on.
            BulkError: without ``on_delivery``: events failed since the last flush; ``failed`` maps sequence → error (1,000 kept).
        """
        target = self._flushing()
        end = None if timeout is None else monotonic() + (check_timeout(timeout) or 0)
        with self._changed:
            while self._settled < target:
                left = None if end is None else end - monotonic()
                if (left is not None and left <= 0) or not self._changed.wait(left):
                    if self._settled >= target:
                        break
                    raise self._unsettled(target, timeout)
        self._raise_failures()

    async def flush_async(self, timeout: float | None = None) -> None:
        """Asynchronous `flush`."""
        target = self._flushing()
        end = None if timeout is None else monotonic() + (check_timeout(timeout) or 0)
        while True:
            future = self._waiter()
            if self._settled >= target:
                break
            if not await _within(future, end):
                raise self._unsettled(target, timeout)
        self._raise_failures()

    def _waiter(self) -> asyncio.Future[None]:
        """Return a future of this loop that the next settled batch resolves."""
        import asyncio

        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._changed:
            self._waiters.append((loop, future))
        return future

    def _unsettled(self, target: int, timeout: float | None) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"flush: {target - self._settled:,} events to {self._pubsub_name}/{self._topic} are not settled after {timeout:g} s; "
            "they are still being sent: flush again, or give more time",
            maybe_applied=True,
            service="pubsub",
            operation="flush",
            component=self._pubsub_name,
        )

    def _raise_failures(self) -> None:
        with self._changed:
            count, failures = self._failed_untold, self._failures
            self._failed_untold, self._failures = 0, {}
        if count:
            first = next(iter(failures.values()))
            raise BulkError(
                f"{count:,} events to {self._pubsub_name}/{self._topic} failed: {first}",
                failed=failures,
                service="pubsub",
                operation="publisher",
                component=self._pubsub_name,
            )

    def close(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Refuse further sends, flush, then fail and report what is left.

        Args:
            timeout: seconds for the flush; the client's by default.

        Raises:
            BulkError: without ``on_delivery``: events failed that no flush has told of.
        """
        limit = check_timeout(timeout, self._service._client._timeout)
        self._close_by_client(None if limit is None else monotonic() + limit)

    async def close_async(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Asynchronous `close`."""
        import asyncio
        from functools import partial

        await asyncio.to_thread(partial(self.close, timeout=timeout))

    def _close_by_client(self, end: float | None) -> None:
        self._flushing()
        self._closed = True
        self._give_up_at = end
        if self._buffer is not None:
            self._buffer.close()
        if self._thread is not None:
            self._wake.put(None)
            # the sender gives up by itself at `end`; an attempt under way may take a little longer
            self._thread.join(None if end is None else max(0.0, end - monotonic()) + 2 * _ATTEMPT)
        self._service._client._handles.discard(self)
        self._raise_failures()

    def _exit(self, error: BaseException | None) -> None:
        self.close()

    async def _exit_async(self, error: BaseException | None) -> None:
        await self.close_async()

    def stats(self) -> PublisherStats:
        """Return a consistent snapshot of the counters."""
        return PublisherStats(*(self._buffer.stats() if self._buffer is not None else (0, 0, 0, 0, 0, 0, 0)))


def _last(chunk: kernel.Chunk) -> int:
    return chunk.first + chunk.count - 1


def _failed_event(chunk: kernel.Chunk, index: int, error: CloudRuntimesError) -> FailedEvent:
    record = events.Frame(chunk.body)[index]
    return FailedEvent(chunk.first + index, record.id, record.to_json(), error)


def _check_options(
    linger: Any,
    batch_events: Any,
    batch_bytes: Any,
    buffer_bytes: Any,
    on_full: Any,
    delivery_timeout: Any,
    on_delivery: Any,
) -> None:
    for name, value, least in (("linger", linger, 0.0), ("delivery_timeout", delivery_timeout, 0.001)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
            raise InvalidArgumentError(f"{name} must be a number of seconds ≥ {least:g}, got {value!r}")
    for name, value in (("batch_events", batch_events), ("batch_bytes", batch_bytes), ("buffer_bytes", buffer_bytes)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            raise InvalidArgumentError(f"{name} must be an int from 1 to 2**31 - 1, got {value!r}")
    if on_full not in ("block", "raise", "drop"):
        raise InvalidArgumentError(f"on_full {on_full!r}: give 'block', 'raise' or 'drop'")
    if on_delivery is not None:
        from .._bridge import is_async_callable

        if not callable(on_delivery) or is_async_callable(on_delivery):
            raise InvalidArgumentError(
                "on_delivery must be a plain callable, not async: it runs on the publisher's thread"
            )


def _in_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


async def _within(future: asyncio.Future[None], end: float | None) -> bool:
    """Await a waiter's future; ``False`` when the time is up."""
    import asyncio

    try:
        await asyncio.wait_for(future, None if end is None else max(0.0, end - monotonic()))
    except TimeoutError:
        return False
    return True


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
