"""The publisher's buffer in Python; the twin and the contract of ``src_ext/batch.pyx``.

Mechanism: records gather in an open chunk, which is a frame without its count; full or told to, it is sealed and waits for `take`. What was taken stays accounted until `settle`. ``accepted = delivered + failed + buffered`` holds in every snapshot, because it is buffered that is computed.

Any thread may call any method, and so may a signal handler or ``__del__`` in the middle of one. So each method prepares first (checks, ids, times, containers), and changes state between two calls of the lock only by straight-line code that neither calls nor allocates a container: CPython looks for signals only after calls and on backward jumps, and collects garbage only there or where a container is allocated. The lock is an ``RLock``: a handler that comes between a caller's lock and its first change finds whole state and goes ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import RLock
from typing import Any, Final, final

from ..errors import InvalidArgumentError, PayloadError, ResourceExhaustedError
from .attributes import check_text
from .cloudevents_py import check_topic, frame_header
from .record_py import HEAD, check_record, encode_record
from .telemetry_spans_py import outgoing

__all__ = ["ELSEWHERE", "BatchBuffer", "Chunk", "Entry"]

ELSEWHERE: Final = -2
"""What `Entry.offer` returns for an event that it never takes."""


@final
class Chunk:
    """A sealed frame of the buffer: the sequence number of its first event, how many it has, and its bytes."""

    __slots__ = ("body", "count", "first")

    def __init__(self, first: int, count: int, body: bytes) -> None:
        self.first = first
        self.count = count
        self.body = body


class _Open:
    """A chunk that grows; `cell` holds it alone, so that sealing it is one concatenation."""

    __slots__ = ("cell", "count", "first", "records", "size")

    def __init__(self, size: int) -> None:
        self.first = 0
        self.count = 0
        self.size = size
        self.records: list[bytes] = []
        self.cell: list[_Open] = [self]


class BatchBuffer:
    """Encodes events into frames of at most `batch_events` and `batch_bytes` (one larger event has a frame of its own), in memory bounded by `buffer_bytes`.

    `ready` is called when an empty buffer has its first record, and when an append seals a chunk; never while the buffer is locked. Its exceptions reach the caller of append, whose record is accepted nevertheless.
    """

    def __init__(
        self,
        source: str,
        type: str,
        topic: str,
        *,
        batch_events: int,
        batch_bytes: int,
        buffer_bytes: int,
        ready: Callable[[], None],
    ) -> None:
        header = frame_header(0, check_text("source", source), check_text("type", type), check_topic(topic))
        if not 0 < batch_events < 1 << 32 or batch_bytes < 1 or buffer_bytes < 1:
            raise InvalidArgumentError("batch_events, batch_bytes and buffer_bytes must be at least 1")
        self._prefix = header
        self._batch_events = batch_events
        self._batch_bytes = batch_bytes
        self._buffer_bytes = buffer_bytes
        self._ready = ready
        self._lock = RLock()
        self._closed = False
        self._open: _Open | None = None
        self._sealed: list[_Open] = []
        self._accepted = self._delivered = self._failed = self._dropped = self._batches = 0
        self._bytes = self._taken = self._taken_bytes = 0

    def append(self, record: bytes) -> int:
        """Take a record made by `encode_record` into the open chunk. Return its sequence number (1, 2, …), or 0 when the buffer is full now; then the open chunk is sealed."""
        if not isinstance(record, bytes):
            raise TypeError(f"a record is bytes, not {type(record).__name__}")
        if check_record(record, 0, len(record)) != len(record):
            raise PayloadError("record: bytes behind its end")
        return self._add(record)

    def _add(self, record: bytes) -> int:
        size = len(record)
        header = len(self._prefix)
        if header + size > self._buffer_bytes:
            raise ResourceExhaustedError(
                f"an event of {size} bytes (and {header} of frame header) can never fit into buffer_bytes={self._buffer_bytes}; raise it, or send less"
            )
        spare: _Open | None = None
        cell = [record]
        sequence = 0
        wake = False
        batch_events, batch_bytes, limit, smallest = (
            self._batch_events,
            self._batch_bytes,
            self._buffer_bytes,
            HEAD.size,
        )
        while True:
            lacking = False
            with self._lock:
                # no call and no allocation of a container in here
                chunk = self._open
                idle = chunk is None and not self._sealed
                if chunk is not None and (chunk.size + size > batch_bytes or self._bytes + size > limit):
                    self._open = None
                    self._sealed += chunk.cell
                    self._batches += 1
                    chunk = None
                    wake = True
                need = size if chunk is not None else header + size
                if self._bytes + need <= limit and not self._closed:
                    if chunk is None and spare is not None:
                        chunk = self._open = spare
                        chunk.first = self._accepted + 1
                        wake = wake or idle
                    if chunk is None:
                        lacking = True
                    else:
                        chunk.records += cell
                        chunk.count += 1
                        chunk.size += size
                        self._bytes += need
                        self._accepted += 1
                        sequence = self._accepted
                        if chunk.count == batch_events or chunk.size + smallest > batch_bytes:
                            self._open = None
                            self._sealed += chunk.cell
                            self._batches += 1
                            wake = True
            if not lacking:
                break
            spare = _Open(header)
        if wake:
            self._ready()
        return sequence

    def close(self) -> None:
        """Take nothing any more: every append returns 0."""
        with self._lock:
            self._closed = True

    def seal(self) -> bool:
        """Seal the open chunk; returns whether there was one. `ready` is not called."""
        with self._lock:
            chunk = self._open
            if chunk is not None:
                self._open = None
                self._sealed += chunk.cell
                self._batches += 1
        return chunk is not None

    def take(self, max_bytes: int) -> list[Chunk]:
        """Remove sealed chunks in order: at least one if there is any, else as many as `max_bytes` hold. One thread at a time takes."""
        with self._lock:
            sealed = self._sealed
            total = count = 0
            for chunk in sealed:
                total += chunk.size
                if count and total > max_bytes:
                    total -= chunk.size
                    break
                count += 1
            taken = sealed[:count]
            events = sum([chunk.count for chunk in taken])
            del sealed[:count]
            self._taken += events
            self._taken_bytes += total
        result = []
        for chunk in taken:
            chunk.cell = []
            body = self._prefix[:4] + chunk.count.to_bytes(4, "little") + self._prefix[8:] + b"".join(chunk.records)
            result.append(Chunk(chunk.first, chunk.count, body))
        return result

    def settle(self, count: int, size: int, failed: int) -> None:
        """Account for taken events: `count` are settled, `failed` of them failed; their frames had `size` bytes, which are free again. Raises `InvalidArgumentError`: more than was taken."""
        wrong = True
        with self._lock:
            if 0 <= failed <= count <= self._taken and 0 <= size <= self._taken_bytes:
                self._taken -= count
                self._taken_bytes -= size
                self._bytes -= size
                self._failed += failed
                self._delivered += count - failed
                wrong = False
        if wrong:
            raise InvalidArgumentError(f"settle({count}, {size}, {failed}): more than was taken")

    @property
    def has_sealed(self) -> bool:
        """Whether `take` would give something."""
        return bool(self._sealed)

    @property
    def open_events(self) -> int:
        """Events in the open chunk."""
        chunk = self._open
        return 0 if chunk is None else chunk.count

    def drop(self) -> None:
        """Count an event that was refused."""
        with self._lock:
            self._dropped += 1

    def stats(self) -> tuple[int, int, int, int, int, int, int]:
        """Return a snapshot: accepted, delivered, failed, dropped, buffered events, batches sealed, buffered bytes."""
        with self._lock:
            accepted, delivered, failed, dropped = self._accepted, self._delivered, self._failed, self._dropped
            batches, size = self._batches, self._bytes
        return accepted, delivered, failed, dropped, accepted - delivered - failed, batches, size


@final
class Entry:
    """The way into a buffer that `Publisher.send` is, without a frame of Python in the compiled twin. The event carries the current span's ``traceparent``; its payload is what `codec.payload.encode_payload` makes.

    Args:
        encode: what makes bytes of values under this content type, `codec.json.encode` or `codec.msgpack.encode`; `None`: nothing does. The compiled twin takes its own short cut for `payload.encode_json`.
        other: takes what this way does not: attributes (the compiled twin leaves it those alone that are more than plain text), metadata, an event that is too large or for which there is no room now, a context with a trace state or baggage, data that is refused, all of an unknown `kind`. Called with the arguments of `send`.
        failed: called with an error that leaves.
        content_type: of all events; `None` is JSON, and ``application/octet-stream`` for bytes-like data.
        kind: what that content type stands for, as `codec.payload.content_kind` says.
        constant: arguments of `encode_record` for every event: ``type``, ``source``, ``subject``, ``extensions``; encoded once in the compiled twin. A ``traceparent`` in the extensions stands instead of the current span's.
    """

    def __init__(
        self,
        encode: Callable[[Any], bytes] | None,
        other: Callable[..., int],
        failed: Callable[[BaseException], None],
        content_type: str | None = None,
        kind: str = "json",
        constant: Mapping[str, Any] | None = None,
    ) -> None:
        if constant:
            encode_record(b"", None, **constant)
        self._constant = dict(constant or {})
        self._own_trace = "traceparent" in (self._constant.get("extensions") or {})
        self._encode = encode
        self._other = other
        self._failed = failed
        self._content_type = content_type
        self._kind = "values" if encode is not None else kind if kind in ("text", "bytes") else ""
        self._aim: tuple[BatchBuffer | None, int] = (None, 0)

    def aim(self, buffer: BatchBuffer | None, max_event: int = 0) -> None:
        """Let events go into a buffer; `None`: all the other way."""
        self._aim = (buffer, max_event)

    def send(
        self, data: Any, *, key: Any = None, attributes: Any = None, metadata: Any = None, timeout: Any = ...
    ) -> int:
        """Encode an event into the buffer and return its sequence number; see `Publisher.send`."""
        if metadata is None:
            sequence = self.offer(data, key, attributes)
            if sequence > 0:
                return sequence
        options = {"key": key, "attributes": attributes, "metadata": metadata}
        if timeout is not ...:
            options["timeout"] = timeout
        return self._other(data, **options)

    def offer(self, data: Any, key: Any = None, attributes: Any = None) -> int:
        """Do as `send` does without the other way: 0 when there is no room now, `ELSEWHERE` for what never goes this way."""
        buffer, max_event = self._aim
        if buffer is None or not self._kind or attributes is not None:
            return ELSEWHERE
        try:
            traceparent, more = (None, False) if self._own_trace else outgoing()
            payload = None if more else self._payload(data)
            if payload is None or len(payload) > max_event:
                return ELSEWHERE
            return buffer._add(
                encode_record(payload, self._type_of(data), key=key, traceparent=traceparent, **self._constant)
            )
        except BaseException as error:
            self._failed(error)
            raise

    def _type_of(self, data: Any) -> str:
        if self._content_type is not None:
            return self._content_type
        return "application/octet-stream" if isinstance(data, (bytes, bytearray, memoryview)) else "application/json"

    def _payload(self, data: Any) -> bytes | None:
        """Encode what this way takes; None is for the other."""
        if type(data) is bytes:
            return data
        if isinstance(data, (bytes, bytearray, memoryview)):
            if isinstance(data, bytes):  # of a type that may have its own `__bytes__`
                return None
            try:
                return bytes(data)
            except ValueError:  # released
                return None
        if self._encode is not None:
            return self._encode(data)
        if self._kind == "text" and type(data) is str:
            try:
                return data.encode()
            except UnicodeEncodeError:
                return None
        return None
