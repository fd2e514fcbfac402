"""RESP2, the protocol of Redis (redis.io, "Redis serialization protocol specification"): commands are rendered, replies are read; the twin of ``src_ext/resp.pxi``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["ReplyReader", "pack_command"]


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

    Raises:
        ConnectionError: this is not the protocol.
    """

    def __init__(self, error: Callable[[str], Exception], nothing: object) -> None:
        import hiredis

        reader = hiredis.Reader(ConnectionError, error, notEnoughData=nothing)
        self.feed: Callable[[bytes], None] = reader.feed
        self.gets: Callable[[], Any] = reader.gets
        self._nothing = nothing

    def take(self, found: list[Any], count: int, topic: str | None = None) -> bool:
        """Append replies until there are so many; tells whether there are.

        With a topic, the answer to a read of one stream may be a tuple, where its entries have one field each: ``data``, with an event as structured JSON. It has the name of the stream, the ids of the entries, and the frame of their events (`pack_cloudevents`). This twin packs nothing.
        """
        gets, nothing = self.gets, self._nothing
        while len(found) < count and (reply := gets()) is not nothing:
            found.append(reply)
        return len(found) >= count
