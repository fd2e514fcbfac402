"""The batching publisher: `send` encodes into a native buffer; the thread behind it is in ``sender.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeAlias

from .._core import fork
from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.handlers import is_async_callable
from .._core.threads import Mutex
from .._native import batch as kernel
from .._service import ClosingHandle
from ..codec import json
from ..codec.payload import content_kind
from ..errors import ClosedError, DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError
from ..spi.operation import Method
from .outgoing import check_names, event_attributes, make_record
from .sender import PUBLISHER, Sender
from .types import DeliveryReport, PublisherStats

if TYPE_CHECKING:
    from .._service import Service

__all__ = ["PUBLISHER", "OnFull", "Publisher"]

OnFull: TypeAlias = Literal["block", "raise", "drop"]

_SEND: Final = Method("pubsub", "send", repeatable=False)


class Publisher(ClosingHandle):
    """Gathers events into batches and sends them in the background; made by `PubSubService.publisher`.

    *Accepted* (`send` returned) is in memory, *delivered* is at the broker: a SIGKILL loses the difference. `flush` waits for it. `close`, ``with``, the client and the exit of the program refuse further sends and flush, then fail and report what is left.

    What a slow broker does not take in time is sent again in smaller parts, and only what did not arrive. One thread's events of one key arrive in order, retries included. In a forked child it starts empty, with new ids and counters; the parent alone sends what it had.
    """

    outlives_fork: Final = True

    def __init__(
        self,
        service: Service,
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
        super().__init__(service)
        limits = {"batch_events": batch_events, "batch_bytes": batch_bytes, "buffer_bytes": buffer_bytes}
        _check_options(limits, linger, on_full, delivery_timeout, on_delivery)
        self._pubsub_name = pubsub_name
        self._topic = topic
        self._on_full = on_full
        self._content_type = content_type
        self._attributes = dict(check_names(attributes)) if attributes else None
        self._sending = (limits, linger, delivery_timeout, on_delivery)
        self._sender: Sender | None = None
        self._lock = Mutex()
        self._closed = False
        kind, encode = _encoding(content_type)
        constant = event_attributes(self._attributes or {})
        if "id" in constant or "time" in constant:  # of one event; whoever asks for it in all takes the long way
            kind, encode, constant = "", None, {}
        self._entry = kernel.Entry(encode, self.send, self._failing, content_type, kind, constant)
        # the call is the kernel's own; the method below stands for it and documents it
        self.__dict__["send"] = self._entry.send
        self._frame.context.handles.add(self)
        fork.register(self)

    def __repr__(self) -> str:
        return f"<Publisher to {self._pubsub_name}/{self._topic}{', closed' if self._closed else ''}>"

    def forked(self) -> None:
        """In a forked child: start empty."""
        self._generation = fork.generation()
        self._entry.aim(None)
        self._sender = None

    # -- sending ----------------------------------------------------------

    def _started(self) -> Sender:
        with self._lock:
            if self._sender is None:
                if self._closed:
                    raise self._refusal()
                # until the next `send` has raised a refusal, all events go the other way
                refuse = partial(self._entry.aim, None)
                sender = Sender(self._frame, self._pubsub_name, self._topic, *self._sending, refuse)
                if self._sender is None:  # else a signal handler came first, and sent by its own
                    self._sender = sender
                    self._entry.aim(sender.buffer, sender.driver.max_event_bytes)
            return self._sender

    def _sending_by(self) -> Sender:
        """Return the sender; raise a refusal of the broker, once."""
        sender = self._sender or self._started()
        if (error := sender.refusal) is not None:
            sender.refusal = None
            self._entry.aim(sender.buffer, sender.driver.max_event_bytes)
            self._failing(error)
            raise error
        return sender

    def _refusal(self) -> ClosedError:
        error = ClosedError("this publisher is closed: open another")
        self._failing(error)
        return error

    def _add(
        self,
        sender: Sender,
        data: Any,
        key: str | None,
        attributes: Mapping[str, Any] | None,
        metadata: Mapping[str, str] | None,
    ) -> int:
        """Encode and append; 0: no room now."""
        try:
            if metadata is None:
                sequence = self._entry.offer(data, key, attributes)
                if sequence != kernel.ELSEWHERE:
                    return sequence
            if attributes is not None or self._attributes is not None:
                attributes = {**(self._attributes or {}), **check_names(attributes or {})}
            record = make_record(
                data,
                content_type=self._content_type,
                key=key,
                attributes=attributes,
                metadata=check_metadata(metadata),
                driver=sender.driver,
            )
            return sender.buffer.append(record)
        except BaseException as error:
            self._failing(error)
            raise

    def _failing(self, error: BaseException) -> None:
        self._frame.add_context(error, _SEND, self._pubsub_name)

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

        `send` blocks while it waits for room. `send_async` waits without blocking the loop.

        Args:
            data, key: the payload and the ordering key.
            attributes, metadata: CloudEvents attributes and extensions, over the publisher's own; and what is for the component.
            timeout: seconds that ``on_full="block"`` waits for room; the client's by default.

        Raises:
            PayloadError: it cannot be encoded.
            ResourceExhaustedError: no room in time, or it can never fit. `send` does not wait in a thread with a running event loop, nor in ``on_delivery``: use `send_async` there.
            NotFoundError, PermissionDeniedError, UnauthenticatedError, UnsupportedError: without ``on_delivery``: the broker refused earlier events for a reason that further ones would meet too. This event is not accepted; the next one is tried.
            ClosedError: the publisher is closed.
        """
        sender = self._sending_by()
        sequence = self._add(sender, data, key, attributes, metadata)
        if sequence or not self._may_wait(sender):
            return sequence
        if sender.is_current() or _in_loop():
            raise self._no_room("a thread that must not wait (use send_async there)")
        limit = check_timeout(timeout, self._frame.context.timeout)
        again = partial(self._again, sender, data, key, attributes, metadata)
        return sender.changes.wait_for(again, limit) or self._late(limit)

    async def send_async(
        self,
        data: Any,
        *,
        key: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
    ) -> int:
        """Encode an event into the buffer and return its sequence number: 1, 2, …; 0 for one dropped by ``on_full="drop"``.

        `send` blocks while it waits for room. `send_async` waits without blocking the loop.

        Args:
            data, key: the payload and the ordering key.
            attributes, metadata: CloudEvents attributes and extensions, over the publisher's own; and what is for the component.
            timeout: seconds that ``on_full="block"`` waits for room; the client's by default.

        Raises:
            PayloadError: it cannot be encoded.
            ResourceExhaustedError: no room in time, or it can never fit. `send` does not wait in a thread with a running event loop, nor in ``on_delivery``: use `send_async` there.
            NotFoundError, PermissionDeniedError, UnauthenticatedError, UnsupportedError: without ``on_delivery``: the broker refused earlier events for a reason that further ones would meet too. This event is not accepted; the next one is tried.
            ClosedError: the publisher is closed.
        """
        sender = self._sending_by()
        sequence = self._add(sender, data, key, attributes, metadata)
        if sequence or not self._may_wait(sender):
            return sequence
        limit = check_timeout(timeout, self._frame.context.timeout)
        again = partial(self._again, sender, data, key, attributes, metadata)
        return await sender.changes.wait_for_async(again, limit) or self._late(limit)

    def _again(self, *arguments: Any) -> int | None:
        """Append what there was no room for; ``None``: there still is none."""
        if (sequence := self._add(*arguments)) or not self._closed:
            return sequence or None
        raise self._refusal()

    def _late(self, limit: float | None) -> NoReturn:
        raise self._no_room(f"{limit:g} s")

    def _may_wait(self, sender: Sender) -> bool:
        """Return whether a full buffer means waiting; ``False``: the event is dropped."""
        if self._closed:
            raise self._refusal()
        if self._on_full == "drop":
            sender.buffer.drop()
            return False
        if self._on_full == "raise":
            raise self._no_room("on_full='raise'")
        return True

    def _no_room(self, how: str) -> ResourceExhaustedError:
        error = ResourceExhaustedError(
            f"the buffer of the publisher to {self._pubsub_name}/{self._topic} is full ({how}): events come faster than the "
            "broker takes them, or it is away; raise buffer_bytes, or slow down",
            retryable=True,
        )
        self._failing(error)
        return error

    # -- flushing and closing ---------------------------------------------

    def _flushing(self) -> Sender | None:
        self._check_process()
        if self._sender is not None and self._sender.is_current():
            raise RuntimeError(
                "flush and close cannot be called in on_delivery: it runs on the thread that would have to flush"
            )
        return self._sender

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before is settled (delivered or failed).

        Args:
            timeout: seconds; ``None``: as long as it takes, which ``delivery_timeout`` bounds.

        Raises:
            DeadlineExceededError: time is up; nothing is lost, sending goes on.
            BulkError: without ``on_delivery``: events failed since the last flush; ``failed`` maps sequence → error (1,000 kept).
        """
        check_timeout(timeout)
        if (sender := self._flushing()) is not None:
            target = sender.request_flush()
            done = sender.changes.wait_for(lambda: sender.settled >= target, timeout)
            self._flushed(sender, target, done, timeout)

    async def flush_async(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before is settled (delivered or failed).

        Args:
            timeout: seconds; ``None``: as long as it takes, which ``delivery_timeout`` bounds.

        Raises:
            DeadlineExceededError: time is up; nothing is lost, sending goes on.
            BulkError: without ``on_delivery``: events failed since the last flush; ``failed`` maps sequence → error (1,000 kept).
        """
        check_timeout(timeout)
        if (sender := self._flushing()) is not None:
            target = sender.request_flush()
            done = await sender.changes.wait_for_async(lambda: sender.settled >= target, timeout)
            self._flushed(sender, target, done, timeout)

    def _flushed(self, sender: Sender, target: int, done: bool | None, timeout: float | None) -> None:
        if not done:
            how = f"after {timeout:g} s; they are still being sent: flush again, or give more time"
            raise self._unsettled("flush", target - sender.settled, how)
        sender.raise_failures()

    def _unsettled(self, operation: str, count: int, how: str) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"{operation}: {count:,} events to {self._pubsub_name}/{self._topic} are not settled {how}",
            maybe_applied=True,
            service="pubsub",
            operation=operation,
            component=self._pubsub_name,
        )

    def _close_by_client(self, end: float | None) -> None:
        self._flushing()
        with self._lock:
            self._closed = True
            sender = self._sender
        # whoever interrupts this leaves it to the client's end
        ended = sender is None or sender.close(end)
        self._frame.context.handles.discard(self)
        if sender is not None:
            sender.raise_failures()
            if not ended:
                raise self._unsettled(
                    "close",
                    self.stats().buffered,
                    "in time: the broker has not answered the last attempt; give more time",
                )

    def stats(self) -> PublisherStats:
        """Return a consistent snapshot of the counters."""
        return PublisherStats(*(self._sender.buffer.stats() if self._sender is not None else (0, 0, 0, 0, 0, 0, 0)))


def _check_options(
    limits: Mapping[str, Any], linger: Any, on_full: Any, delivery_timeout: Any, on_delivery: Any
) -> None:
    for name, value, least in (("linger", linger, 0.0), ("delivery_timeout", delivery_timeout, 0.001)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
            raise InvalidArgumentError(f"{name} must be a number of seconds ≥ {least:g}, got {value!r}")
    for name, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            raise InvalidArgumentError(f"{name} must be an int from 1 to 2**31 - 1, got {value!r}")
    if on_full not in ("block", "raise", "drop"):
        raise InvalidArgumentError(f"on_full {on_full!r}: give 'block', 'raise' or 'drop'")
    if on_delivery is not None and (not callable(on_delivery) or is_async_callable(on_delivery)):
        raise InvalidArgumentError("on_delivery must be a plain callable, not async: it runs on the publisher's thread")


def _encoding(content_type: str | None) -> tuple[str, Callable[[Any], bytes] | None]:
    """Return what a content type stands for, and what encodes values under it."""
    kind = "json" if content_type is None else content_kind(content_type)
    if kind == "json":
        return kind, json.encode
    if kind == "msgpack":
        from ..codec import msgpack

        return kind, msgpack.encode
    return kind, None


def _in_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
