"""The beginning of something whose end has not come."""

from __future__ import annotations


class Partial:
    """Collects pieces until there are as many bytes as its owner wants, and joins them once: nothing is copied with each piece.

    Attributes:
        size: how many bytes there are.
    """

    __slots__ = ("_pieces", "_wanted", "size")

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytes] = []
        self._wanted = 0

    def add(self, piece: bytes) -> bytes:
        """Return all bytes, this piece last, once there are enough; else nothing, and keep them."""
        self.size += len(piece)
        self._pieces.append(piece)
        if self.size < self._wanted:
            return b""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return whole

    def keep(self, rest: bytes, wanted: int) -> None:
        """Keep what is left of what `add` returned, until there are ``wanted`` bytes."""
        self._pieces.append(rest)
        self.size, self._wanted = len(rest), wanted
