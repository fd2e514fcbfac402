"""The protocol: RESP2 (redis.io, "Redis serialization protocol specification"). Commands are written here, replies are read by hiredis."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import hiredis

if TYPE_CHECKING:
    from .address import Address

__all__ = ["Batch", "Errors", "Flow", "NOTHING", "ReplyError", "Value", "pack", "reader"]

T = TypeVar("T")
Value: TypeAlias = bytes | str | int
ReplyError = hiredis.ReplyError
NOTHING = object()
"""What a reader gives while no reply is whole."""


def pack(arguments: Sequence[Value]) -> bytes:
    """Return a command as an array of bulk strings."""
    texts = [argument if type(argument) is bytes else _encoded(argument) for argument in arguments]
    return b"*%d\r\n%b" % (len(texts), b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]))


def _encoded(argument: Value) -> bytes:
    if isinstance(argument, str):
        return argument.encode()
    return b"%d" % argument if isinstance(argument, int) else argument


def reader() -> Any:
    """Return a parser: ``feed(bytes)``, then ``gets()`` gives replies, errors among them, and `NOTHING` in the end."""
    return hiredis.Reader(replyError=_reply_error, notEnoughData=NOTHING)


class Errors:
    """What tells without a look at all replies whether an error may be among them.

    Attributes:
        latest: another object after each error that was read.
    """

    latest: object = object()


def _reply_error(text: str) -> Exception:
    """Return an error reply without what it quotes of a command's arguments: passwords, values."""
    Errors.latest = object()
    error: Exception = ReplyError(text.partition(", with args beginning with")[0])
    return error


class Batch:
    """Commands that are sent together, and answered in their order.

    Args:
        commands: each with its arguments.
        key: of the commands; in a cluster its slot says which server they go to. By default the first argument.

    Attributes:
        data: as they are sent.
        count: of replies.
        once: whether what a server refuses for now is not sent again.
        to: the server that they go to, whatever their key.
        by: the server that answered.
    """

    __slots__ = ("by", "count", "data", "key", "once", "to")

    def __init__(self, *commands: Sequence[Value], key: Value | None = None) -> None:
        self.data = b"".join(map(pack, commands))
        self.count = len(commands)
        self.key = key if key is not None or len(commands[0]) < 2 else commands[0][1]
        self.once = False
        self.to: Address | None = None
        self.by: Address | None = None

    @classmethod
    def rendered(cls, data: bytes, count: int, key: Value | None) -> Batch:
        """Return commands that are rendered already."""
        made = cls.__new__(cls)
        made.data, made.count, made.key = data, count, key
        made.once, made.to, made.by = False, None, None
        return made

    def sent_to(self, address: Address | None) -> Batch:
        """Return itself, for a certain server."""
        self.to = address
        return self

    def commands(self) -> list[list[bytes]]:
        """Return the commands, each with its arguments."""
        parser = reader()
        parser.feed(self.data)
        return [parser.gets() for _ in range(self.count)]


Flow: TypeAlias = Generator[Batch, list[Any], T]
"""The steps of a call, without I/O: yields commands and gets their replies, errors as `ReplyError` objects among them."""
