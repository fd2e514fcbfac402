"""Delivery of one event of a key at a time: later events of the key wait until it is settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeAlias

from .messages import Incoming

_Key: TypeAlias = "tuple[Hashable, bytes]"


class Keys:
    """Keys of which an event is held. A frame has none, since its events have many."""

    def __init__(self) -> None:
        self._waiting: dict[_Key, deque[Incoming]] = {}
        self._key_of: dict[tuple[Hashable, int], _Key] = {}

    def enter(self, origin: Hashable, message: Incoming) -> bool:
        """Return whether a message may be delivered; else it waits."""
        if message.key is None:
            return True
        key = origin, message.key
        if key in self._waiting:
            self._waiting[key].append(message)
            return False
        self._waiting[key] = deque()
        self._key_of[origin, message.offset] = key
        return True

    def leave(self, origin: Hashable, offsets: Sequence[int]) -> Iterator[Incoming]:
        """Yield the messages that were waiting for these, and may be delivered now."""
        for offset in offsets:
            key = self._key_of.pop((origin, offset), None)
            if key is None:
                continue
            if waiting := self._waiting[key]:
                following = waiting.popleft()
                self._key_of[origin, following.offset] = key
                yield following
            else:
                del self._waiting[key]

    def forget(self, origin: Hashable) -> int:
        """Forget the keys of a partition; returns how many messages were waiting."""
        gone = [key for key in self._waiting if key[0] == origin]
        count = sum(len(self._waiting.pop(key)) for key in gone)
        for position in [position for position in self._key_of if position[0] == origin]:
            del self._key_of[position]
        return count
