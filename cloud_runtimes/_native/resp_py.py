"""RESP2, the protocol of Redis (redis.io, "Redis serialization protocol specification"): commands are rendered, replies are read; the twin of ``src_ext/resp.pxi``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

__all__ = ["ReplyReader", "pack_command"]

_LINE_MAX: Final = 65536
_DEPTH_MAX: Final = 32
_VALUES_MAX: Final = 1 << 21
_REPLY_MAX: Final = 1 << 30
_DIGITS: Final = 19
_NO_RESP: Final = "what answers does not speak Redis' protocol"


def pack_command(arguments: Sequence[bytes | str | int]) -> bytes:
    """Render a command as an array of bulk strings."""
    texts = [argument if type(argument) is bytes else _encoded(argument) for argument in arguments]
    return b"*%d\r\n%b" % (len(texts), b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]))


def _encoded(argument: bytes | str | int) -> bytes:
    if isinstance(argument, str):
        return argument.encode()
    if isinstance(argument, int):
        return b"%d" % argument
    if isinstance(argument, bytes):
        return argument
    raise TypeError(f"an argument is bytes, text or a number, not {type(argument).__name__}")


class ReplyReader:
    """A parser of replies: ``feed(bytes)``, then ``gets()`` gives them in their order, and `nothing` while none is whole. They are bytes, numbers, lists and ``None``; `error` makes an object of the text of an error, also inside a list.

    A reply has 1 GiB, 2,097,152 values and 32 levels at most.

    Raises:
        ConnectionError: this is not the protocol.
    """

    def __init__(self, error: Callable[[str], Exception], nothing: object) -> None:
        self._error = error
        self._nothing = nothing
        self._data = bytearray()
        self._at = 0  # what is before it was taken in
        self._start()

    def _start(self) -> None:
        """Begin a reply."""
        self._begin = self._at
        self._values = 0
        self._lists: list[tuple[list[Any], int]] = []  # that are not whole, and how many values each has

    def feed(self, received: bytes) -> None:
        """Take in what was received."""
        del self._data[: self._at]
        self._begin -= self._at
        self._at = 0
        self._data += received

    def gets(self) -> Any:
        """Return the next reply."""
        while (value := self._value()) is not self._nothing:
            if isinstance(value, _Opened):
                if len(self._lists) == _DEPTH_MAX:
                    raise ConnectionError(_NO_RESP)
                self._lists.append(([], value.size))
                if value.size:
                    continue
                value = self._lists.pop()[0]
            while self._lists:
                values, size = self._lists[-1]
                values.append(value)
                if len(values) < size:
                    break
                value = self._lists.pop()[0]
            else:
                self._start()
                return value
        return self._nothing

    def _value(self) -> Any:
        """Return the next value, an array as `_Opened`; `nothing`: it is not whole."""
        data, at = self._data, self._at
        if at < len(data) and data[at] not in b"$*+-:":
            raise ConnectionError(_NO_RESP)
        stop = data.find(b"\r", at, at + _LINE_MAX + 1)
        if stop < 0 or stop + 1 == len(data):
            if len(data) - at > _LINE_MAX:
                raise ConnectionError(_NO_RESP)
            return self._nothing
        if stop == at or data[stop + 1] != 0x0A:
            raise ConnectionError(_NO_RESP)
        kind, line = data[at], bytes(data[at + 1 : stop])
        value: Any
        if kind == 0x24:  # $
            size = self._size(line)
            end = stop + 4 + size
            if size < 0:
                value, end = None, stop + 2
            elif stop + size - self._begin > _REPLY_MAX:
                raise ConnectionError(_NO_RESP)
            elif end > len(data):
                return self._nothing
            elif data[end - 2 : end] != b"\r\n":
                raise ConnectionError(_NO_RESP)
            else:
                value = bytes(data[stop + 2 : end - 2])
            self._at = end
            return value
        if kind == 0x2A:  # *
            size = self._size(line)
            self._values += max(size, 0)
            if self._values > _VALUES_MAX:
                raise ConnectionError(_NO_RESP)
            value = None if size < 0 else _Opened(size)
        elif kind == 0x3A:  # :
            value = self._number(line)
        elif kind == 0x2B:  # +
            value = line
        else:  # -
            value = self._error(line.decode("utf-8", "replace"))
        self._at = stop + 2
        return value

    @staticmethod
    def _number(text: bytes) -> int:
        digits = text.removeprefix(b"-")
        if not digits.isdigit() or len(digits) > _DIGITS or not -(1 << 63) <= int(text) < 1 << 63:
            raise ConnectionError(_NO_RESP)
        return int(text)

    def _size(self, text: bytes) -> int:
        size = int(text) if text.isdigit() and len(text) < 11 else self._number(text)
        if not -1 <= size <= _REPLY_MAX:
            raise ConnectionError(_NO_RESP)
        return size

    def take(self, replies: list[Any], count: int, topic: str | None = None) -> bool:
        """Append replies until there are so many; returns whether there are.

        With a topic, the answer to a read of one stream may be a tuple, where its entries have one field each: ``data``, with an event as structured JSON. It has the name of the stream, the ids of the entries, and the frame of their events (`pack_cloudevents`). This twin packs nothing.
        """
        gets, nothing = self.gets, self._nothing
        while len(replies) < count and (reply := gets()) is not nothing:
            replies.append(reply)
        return len(replies) >= count


class _Opened:
    """An array whose values follow."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size
