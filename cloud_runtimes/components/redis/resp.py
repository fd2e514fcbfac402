"""Commands and replies, without I/O; the kernel knows the protocol."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from ..._native import events as kernel
from .settings import Address

T = TypeVar("T")
pack = kernel.pack_command
Value: TypeAlias = bytes | str | int
NOTHING = object()
"""What a reader gives while no reply is whole."""


class ReplyError(Exception):
    """An error reply, without what it quotes of a command's arguments: passwords, values."""

    def __init__(self, text: str) -> None:
        super().__init__(text.partition(", with args beginning with")[0])
        Errors.latest = object()


def reader() -> kernel.ReplyReader:
    """Return a parser of replies, errors among them; it gives `NOTHING` in the end."""
    return kernel.ReplyReader(ReplyError, NOTHING)


class Errors:
    """Marker that shows whether replies may contain an error, without a look at each of them.

    Attributes:
        latest: replaced by a new object after each error that was read.
    """

    latest: object = object()


class Batch:
    """Commands that are sent together, and answered in their order.

    Args:
        commands: each with its arguments.
        key: of the commands; in a cluster its slot says which server they go to. By default the first argument.

    Attributes:
        pieces: as they are sent, in their order; may be made while they are sent.
        count: of replies.
        once: whether what a server refuses for now is not sent again.
        to: the server that they go to, whatever their key.
        by: the server that answered.
    """

    __slots__ = ("by", "count", "key", "once", "pieces", "to")

    def __init__(self, *commands: Sequence[Value], key: Value | None = None) -> None:
        self.pieces: Iterable[bytes] = (b"".join(map(pack, commands)),)
        self.count = len(commands)
        self.key = key if key is not None or len(commands[0]) < 2 else commands[0][1]
        self.once = False
        self.to: Address | None = None
        self.by: Address | None = None

    @classmethod
    def rendered(cls, pieces: Iterable[bytes], count: int, key: Value | None) -> Batch:
        """Return commands that others render; ``pieces`` can be iterated again."""
        batch = cls.__new__(cls)
        batch.pieces, batch.count, batch.key = pieces, count, key
        batch.once, batch.to, batch.by = False, None, None
        return batch

    @property
    def data(self) -> bytes:
        """All pieces in one."""
        return b"".join(self.pieces)

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
