"""Commands and replies, without I/O; the kernel knows the protocol."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from ..._native import events as kernel

__all__ = ["Batch", "Flow", "NOTHING", "ReplyError", "Value", "pack", "reader"]

T = TypeVar("T")
pack = kernel.pack_command
Value: TypeAlias = bytes | str | int
NOTHING = object()
"""What a reader gives while no reply is whole."""


class ReplyError(Exception):
    """An error reply, without what it quotes of a command's arguments: passwords, values."""

    def __init__(self, text: str) -> None:
        super().__init__(text.partition(", with args beginning with")[0])


def reader() -> kernel.ReplyReader:
    """Return a parser of replies, errors among them; it gives `NOTHING` in the end."""
    return kernel.ReplyReader(ReplyError, NOTHING)


class Batch:
    """Commands that are sent together, and answered in their order.

    Args:
        commands: each with its arguments.
        key: of the commands; in a cluster its slot says which server they go to.

    Attributes:
        pieces: as they are sent, in their order; may be made while they are sent.
        count: of replies.
    """

    __slots__ = ("count", "key", "pieces")

    def __init__(self, *commands: Sequence[Value], key: Value | None = None) -> None:
        self.pieces: Iterable[bytes] = (b"".join(map(pack, commands)),)
        self.count = len(commands)
        self.key = key if key is not None or len(commands[0]) < 2 else commands[0][1]

    @classmethod
    def rendered(cls, pieces: Iterable[bytes], count: int, key: Value) -> Batch:
        """Return commands that others render; ``pieces`` can be iterated again."""
        made = cls.__new__(cls)
        made.pieces, made.count, made.key = pieces, count, key
        return made

    @property
    def data(self) -> bytes:
        """All pieces in one."""
        return b"".join(self.pieces)


Flow: TypeAlias = Generator[Batch, list[Any], T]
"""The steps of a call, without I/O: yields commands and gets their replies, errors as `ReplyError` objects among them."""
