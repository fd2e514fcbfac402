"""Clock, ids and the bounded buffer of the telemetry kernel, in Python.

A record is encoded before, outside of any lock; here it is appended to the open chunk of its scope in one section without calls, in which the counters change with it. So recorded = exported + dropped + buffered in every snapshot, and a signal handler that records finds the buffer whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import Any, Final

from ..errors import InvalidArgumentError
from .otlp_py import varint

__all__ = ["CAUSES", "Buffer", "Chunk", "_set_clock", "_set_seed", "reseed"]

CAUSES: Final = ("buffer_full", "too_large", "closed", "failed", "rejected", "unreachable", "export_error", "invalid")
"""Why records are dropped; a cause is given to the kernel as its place here."""
_FULL, _TOO_LARGE, _CLOSED, FAILED = range(4)
_MASK: Final = (1 << 64) - 1


# ---- clock and ids ----


class _State:
    def __init__(self) -> None:
        self.clock: Callable[[], int] | None = None
        self.lock = RLock()
        self.words = (0, 0, 0, 0)


_state = _State()


def _set_clock(fn: Callable[[], int] | None) -> None:
    """Replace both clocks by a function of nanoseconds; `None` gives them back. For tests."""
    _state.clock = fn


def wall() -> int:
    """Nanoseconds since 1970 UTC."""
    clock = _state.clock
    return time.time_ns() if clock is None else clock()


def monotonic() -> int:
    """Nanoseconds of the monotonic clock."""
    clock = _state.clock
    return time.monotonic_ns() if clock is None else clock()


def reseed() -> None:
    """Draw the generator's state from the system; a forked child must, or its ids repeat its parent's."""
    _state.lock = RLock()
    words = [int.from_bytes(os.urandom(8), "little") for _ in range(4)]
    _state.words = (words[0] | 1, words[1], words[2], words[3])


def _set_seed(seed: int) -> None:
    """Set the generator's state from a number, so that ids repeat. For tests."""
    _state.words = (seed | 1, seed * 3 & _MASK, seed * 5 & _MASK, seed * 7 & _MASK)


def draw() -> int:
    """Draw 64 bits that are not zero (xoshiro256**, Blackman and Vigna)."""
    result = 0
    while not result:
        with _state.lock:
            s0, s1, s2, s3 = _state.words
            x = s1 * 5 & _MASK
            result = ((x << 7 | x >> 57) & _MASK) * 9 & _MASK
            t = s1 << 17 & _MASK
            s2 ^= s0
            s3 ^= s1
            s1 ^= s2
            s0 ^= s3
            s2 ^= t
            s3 = (s3 << 45 | s3 >> 19) & _MASK
            _state.words = (s0, s1, s2, s3)
    return result


reseed()


# ---- the buffer ----


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one scope: each is a field of number 2, as ``ScopeSpans``, ``ScopeLogs`` and ``ScopeMetrics`` have them."""

    scope: int
    count: int
    body: bytes


class _Open:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0
        self.size = 0


class Buffer:
    """Records of one signal in memory bounded by ``buffer_bytes``, in chunks of one scope each; a record that has no room, or is longer than ``chunk_bytes``, is dropped.

    `ready` is called after a chunk became full, and after the first record came into an empty buffer; it must not block.
    """

    def __init__(self, *, buffer_bytes: int, chunk_bytes: int, ready: Callable[[], Any]) -> None:
        if buffer_bytes < 1 or chunk_bytes < 1:
            raise InvalidArgumentError("buffer_bytes and chunk_bytes must be at least 1")
        self._limit = buffer_bytes
        self._chunk = chunk_bytes
        self._ready = ready
        self._lock = RLock()
        self._begin()

    def _begin(self) -> None:
        self._open: dict[int, _Open] = {}
        self._sealed: list[tuple[int, _Open]] = []
        self._recorded = self._exported = self._waiting = self._bytes = self._taken = self._taken_bytes = 0
        self._dropped = [0] * len(CAUSES)
        self._closed = False

    def reset(self) -> None:
        """Begin anew, in a forked child: empty, with counters of its own."""
        self._lock = RLock()
        self._begin()

    def add(self, scope: int, record: bytes, count: int = 1) -> bool:
        """Append one encoded record that counts as ``count`` (a metric: its points); returns whether it was kept."""
        entry = b"\x12" + varint(len(record)) + record
        size = len(entry)
        cell = [entry]
        fresh = _Open()
        pair = [(scope, fresh)]
        limit = self._limit
        chunk = self._chunk
        wake = False
        cause = -1
        with self._lock:
            # straight-line code without a call: a handler that records sees the state before or after
            self._recorded += count
            if self._closed:
                cause = _CLOSED
            elif size > chunk:
                cause = _TOO_LARGE
            elif self._bytes + size > limit:
                cause = _FULL
            if cause >= 0:
                self._dropped[cause] += count
            else:
                wake = not self._waiting
                block = self._open[scope] if scope in self._open else None  # noqa: SIM401 (a call)
                if block is not None and block.size + size > chunk:
                    pair[0] = (scope, block)
                    self._sealed += pair
                    block = None
                    wake = True
                if block is None:
                    block = fresh
                    self._open[scope] = block
                block.parts += cell
                block.size += size
                block.count += count
                self._bytes += size
                self._waiting += count
        if wake:
            self._ready()
        return cause < 0

    def seal(self) -> None:
        """Seal all open chunks, in the order of their scopes."""
        with self._lock:
            opened = self._open
            self._open = {}
            self._sealed += sorted(opened.items())

    def take(self, max_bytes: int) -> list[Chunk]:
        """Remove sealed chunks in order: at least one if there is any, else as many as ``max_bytes`` hold. One thread at a time takes."""
        with self._lock:
            total = events = number = 0
            for _, block in self._sealed:
                if number and total + block.size > max_bytes:
                    break
                total += block.size
                events += block.count
                number += 1
            taken = self._sealed[:number]
            del self._sealed[:number]
            self._taken += events
            self._taken_bytes += total
            self._waiting -= events
        return [Chunk(scope, block.count, b"".join(block.parts)) for scope, block in taken]

    def settle(self, count: int, size: int, dropped: int, cause: int) -> None:
        """Account for taken records: ``dropped`` of ``count`` are dropped by ``cause``, the rest is exported; ``size`` bytes are free again. Raises `InvalidArgumentError`: more than was taken."""
        wrong = True
        with self._lock:
            if 0 <= dropped <= count <= self._taken and 0 <= size <= self._taken_bytes:
                self._taken -= count
                self._taken_bytes -= size
                self._bytes -= size
                self._dropped[cause] += dropped
                self._exported += count - dropped
                wrong = False
        if wrong:
            raise InvalidArgumentError(f"settle({count}, {size}, {dropped}): more than was taken")

    def drop(self, count: int, cause: int) -> None:
        """Count what never came into a chunk."""
        with self._lock:
            self._recorded += count
            self._dropped[cause] += count

    def close(self) -> None:
        """Take nothing any more: what comes is dropped and counted."""
        self._closed = True

    def stats(self) -> tuple[int, int, tuple[int, ...], int, int]:
        """Return a snapshot: recorded, exported, dropped by cause, buffered, bytes buffered."""
        with self._lock:
            recorded, exported, size = self._recorded, self._exported, self._bytes
            buffered = self._waiting + self._taken
            dropped = tuple(self._dropped)
        return recorded, exported, dropped, buffered, size
