"""SQL statements with typed parameters, in PostgreSQL's binary format (PostgreSQL manual, "Formats and Format Codes"), and ranges of keys in byte order."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

_INT4: Final = struct.Struct(">i")
_INT8: Final = struct.Struct(">q")

Row = tuple[Any, ...]


def _array(oid: int, encode: Callable[[Any], bytes]) -> Callable[[Sequence[Any]], bytes]:
    """Return the encoder of one-dimensional arrays: dimensions, has-nulls, element type, length, lower bound, elements."""

    def encoded(values: Sequence[Any]) -> bytes:
        parts = [struct.pack(">iiIii", 1, 1, oid, len(values), 1)]
        for value in values:
            if value is None:
                parts.append(b"\xff\xff\xff\xff")
            else:
                data = encode(value)
                parts += (_INT4.pack(len(data)), data)
        return b"".join(parts) if values else struct.pack(">iiI", 0, 0, oid)

    return encoded


# name in a statement's types → (type id in pg_type.dat, encoder)
_SCALARS: Final[dict[str, tuple[int, Callable[[Any], bytes]]]] = {
    "bool": (16, lambda value: b"\1" if value else b"\0"),
    "bytea": (17, bytes),
    "int4": (23, _INT4.pack),
    "int8": (20, _INT8.pack),
    "text": (25, str.encode),
}
_ENCODERS: Final = _SCALARS | {
    f"{name}[]": (array, _array(*_SCALARS[name]))
    for name, array in (("bytea", 1001), ("int4", 1007), ("int8", 1016), ("text", 1009))
}
_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    16: lambda data: data != b"\0",
    17: bytes,
    20: lambda data: _INT8.unpack(data)[0],
    23: lambda data: _INT4.unpack(data)[0],
    5069: lambda data: _INT8.unpack(data)[0],  # xid8
}


class Result:
    """Result of a statement.

    Attributes:
        rows: decoded.
        count: of rows that the statement changed, or returned.
    """

    __slots__ = ("count", "rows")

    def __init__(self, rows: list[Row], count: int) -> None:
        self.rows = rows
        self.count = count


class Statement:
    """A statement that each connection prepares once.

    Args:
        sql: with ``$1``, ``$2`` …; ``{schema}`` is put in by the connection.
        types: of the parameters, in order, e.g. ``"int8 text bytea[]"``.
        shares: whether it may run in one transaction with such statements of other calls. It concerns one row, which its first two parameters name.
    """

    __slots__ = ("_decoders", "_encoders", "formats", "oids", "shares", "sql")

    def __init__(self, sql: str, types: str = "", *, shares: Literal["reads", "writes"] | None = None) -> None:
        known = [_ENCODERS[name] for name in types.split()]
        self.sql = sql
        self.shares = shares
        self.oids = [oid for oid, _ in known]
        self.formats = [1] * len(known)
        self._encoders = [encode for _, encode in known]
        self._decoders: list[Callable[[bytes], Any]] | None = None

    def encode(self, values: Sequence[Any]) -> list[bytes | None]:
        """Return parameters as libpq takes them."""
        return [None if value is None else encode(value) for encode, value in zip(self._encoders, values, strict=True)]

    def decode(self, result: Any) -> Result:
        """Return what a libpq result holds."""
        number = result.ntuples
        rows: list[Row] = []
        if number:
            if self._decoders is None:
                self._decoders = [_DECODERS.get(result.ftype(column), bytes.decode) for column in range(result.nfields)]
            decoders, get = list(enumerate(self._decoders)), result.get_value
            for row in range(number):
                rows.append(
                    tuple([None if (data := get(row, column)) is None else decode(data) for column, decode in decoders])
                )
        return Result(rows, result.command_tuples or 0)


BEGIN: Final = Statement("BEGIN")
COMMIT: Final = Statement("COMMIT")
ROLLBACK: Final = Statement("ROLLBACK")
RELAXED: Final = Statement("SELECT set_config('synchronous_commit', 'off', true)")
"""For what is worth nothing after a crash of the server: the transaction is not synced."""
SYNCED: Final = Statement("SELECT set_config('synchronous_commit', 'on', true)")
"""For what must outlive a crash on a connection that is relaxed."""


def prefix_end(prefix: str) -> str | None:
    """Return the least text above every text that begins with ``prefix``; ``None`` where there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < 0x10FFFF:
            return prefix[:index] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None
