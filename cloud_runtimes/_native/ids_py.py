"""UUIDv7 that strictly increase in a process, in Python.

Mechanism: one integer holds the last id's milliseconds and its 42-bit counter, ``ms << 42 | counter``; the next is either a new millisecond with a counter drawn at random below 2⁴¹, or the last plus one, whose carry moves the millisecond on when the counter is used up (RFC 9562 §6.2, fixed-length dedicated counter). The clock and the random bits are read before the lock is taken; the bits come out of a supply that is drawn from the system some thousand at once, and that a forked child throws away. Under it stands straight-line code without a call: CPython looks for signals only after calls and on backward jumps, so a handler or ``__del__`` that draws an id sees the state before or after, and the lock is an ``RLock`` so that it does not wait for itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from struct import Struct
from threading import RLock

__all__ = ["is_uuid7", "now_us", "parse_uuid7", "reseed", "uuid7", "uuid7_text"]

_COUNTER_BITS = 42
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1
_START_MASK = (1 << 41) - 1
_MS_MAX = (1 << 48) - 1
_words = Struct("<512I")
_noise: list[int] = []  # 32 random bits each; `pop` is atomic, so none is taken twice
_take = _noise.pop
_last_head = -1, ""
_HEX = frozenset("0123456789abcdef")


class _Ids:
    __slots__ = ("clock", "last", "lock")

    def __init__(self) -> None:
        self.last = 0
        self.lock = RLock()
        self.clock: Callable[[], int] | None = None


_ids = _Ids()


def _set_clock(fn: Callable[[], int] | None) -> None:
    """Replace the wall clock by a function of milliseconds; `None` gives it back. For tests."""
    _ids.clock = fn


def now_us() -> int:
    """The wall clock in microseconds since 1970 UTC."""
    clock = _ids.clock
    return time.time_ns() // 1000 if clock is None else clock() * 1000


def uuid7() -> bytes:
    """Draw an id: the 16 bytes of a UUIDv7, greater than every earlier one of this process (RFC 9562 §5.7)."""
    return draw(now_us())


def draw(now: int) -> bytes:
    """Draw an id at `now`, in microseconds since 1970 UTC."""
    value, noise = _draw(now)
    counter = value & _COUNTER_MASK
    high = value >> _COUNTER_BITS << 16 | 0x7000 | counter >> 30
    return (high << 64 | 2 << 62 | (counter & (1 << 30) - 1) << 32 | noise).to_bytes(16, "big")


def draw_text(now: int) -> str:
    """Draw an id at `now` as `uuid7_text` renders it."""
    global _last_head
    value, noise = _draw(now)
    # all but the last 12 digits stays for 65,536 ids of the same millisecond
    known, head = _last_head  # one object, so that threads never see half of another's
    if known != value >> 16:
        known = value >> 16
        ms, counter = known >> 26, known & (1 << 26) - 1
        head = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-{0x7000 | counter >> 14:04x}-{0x8000 | counter & 0x3FFF:04x}-"
        _last_head = known, head
    return head + ((value & 0xFFFF) << 32 | noise).to_bytes(6, "big").hex()


def _draw(now: int) -> tuple[int, int]:
    """``ms << 42 | counter`` of the next id, and its last 32 bits, which are random."""
    ms = now // 1000
    if not 0 <= ms <= _MS_MAX:
        ms = 0 if ms < 0 else _MS_MAX
    try:
        noise = _take()
        # the last id only grows: what is no new millisecond here is none under the lock
        fresh = ms << _COUNTER_BITS | (_take() << 32 | _take()) & _START_MASK if ms > _ids.last >> _COUNTER_BITS else 0
    except IndexError:
        _noise.extend(_words.unpack(os.urandom(_words.size)))
        return _draw(now)
    with _ids.lock:
        # no call and no allocation of a container until the store
        last = _ids.last
        value = fresh if fresh > last else last + 1
        _ids.last = value
    return value & (_MS_MAX << _COUNTER_BITS | _COUNTER_MASK), noise


def reseed() -> None:
    """Forget the counter in a forked child: it is drawn anew, in the last millisecond, so that ids neither repeat the parent's nor fall behind its clock."""
    _noise.clear()
    _ids.lock = RLock()
    _ids.last = _ids.last >> _COUNTER_BITS << _COUNTER_BITS | int.from_bytes(os.urandom(8), "little") & _START_MASK


def uuid7_text(raw: bytes) -> str:
    """Render 16 bytes as lower-case hexadecimal, 8-4-4-4-12 (RFC 9562 §4). Raises `ValueError`: not 16 bytes."""
    if len(raw) != 16:
        raise ValueError(f"an id has 16 bytes, not {len(raw)}")
    text = bytes(raw).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_uuid7(raw: bytes) -> bool:
    """Whether 16 bytes carry version 7 and the RFC 9562 variant."""
    return raw[6] >> 4 == 7 and raw[8] >> 6 == 2


def parse_uuid7(text: str) -> bytes | None:
    """The bytes whose `uuid7_text` is exactly `text`, or `None`."""
    if len(text) != 36 or text[8] != "-" or text[13] != "-" or text[18] != "-" or text[23] != "-":
        return None
    digits = text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:]
    if not _HEX.issuperset(digits):
        return None
    raw = bytes.fromhex(digits)
    return raw if is_uuid7(raw) else None
