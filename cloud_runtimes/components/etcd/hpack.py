"""Headers of HTTP/2, as this client needs them: its own are written plainly, and servers are told to keep no table of theirs. So what a block says depends on nothing before it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_NAMES: Final = {4: ":path", 8: ":status", 31: "content-type"}
"""Of RFC 7541's static table, those that matter here."""
_VALUES: Final = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
_STATIC: Final = 61
# how many bits the code of each symbol has, "A" for five; codes of one length are in the order of their symbols
_LENGTHS: Final = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABABABBBACCBBBABCBAA"
    "BCCCCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRSVVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRU"
    "UTTVSVWVVWWWWWXWWWWWVZ"
)


def _codes() -> dict[tuple[int, int], int]:
    """Return length and code → symbol."""
    codes: dict[tuple[int, int], int] = {}
    code = length = 0
    for bits, symbol in sorted((ord(letter) - 60, symbol) for symbol, letter in enumerate(_LENGTHS)):
        code <<= bits - length
        length = bits
        codes[length, code] = symbol
        code += 1
    return codes


_CODES: Final = _codes()


def literal(index: int | bytes, value: bytes) -> bytes:
    """Return a header that nobody is to remember; ``index``: of its name in the static table, or the name."""
    name = b"\x10" + _number(len(index), 0x7F) + index if isinstance(index, bytes) else _number(index, 0x0F, 0x10)
    return name + _number(len(value), 0x7F) + value


def _number(value: int, maximum: int, first: int = 0) -> bytes:
    if value < maximum:
        return bytes((first | value,))
    encoded = [first | maximum]
    value -= maximum
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


@lru_cache(64)
def decode(block: bytes) -> dict[str, str]:
    """Return the headers of a block.

    Raises:
        ValueError: it is none, or refers to a table.
    """
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0xE0 == 0x20:  # the size of the table, which there is not
                _, at = _read(block, at, 0x1F)
                continue
            if first & 0x80:
                index, at = _read(block, at, 0x7F)
                if index > _STATIC:
                    raise ValueError(index)
                headers[_NAMES.get(index, ":status" if index in _VALUES else "")] = _VALUES.get(index, "")
                continue
            index, at = _read(block, at, 0x3F if first & 0x40 else 0x0F)
            if index > _STATIC:
                raise ValueError(index)
            if index:
                name = _NAMES.get(index, ":status" if index in _VALUES else "")
            else:
                name, at = _text(block, at)
            headers[name], at = _text(block, at)
    except (IndexError, ValueError) as error:
        raise ValueError("the server's headers cannot be read") from error
    return headers


def _read(block: bytes, at: int, maximum: int) -> tuple[int, int]:
    value = block[at] & maximum
    at += 1
    if value < maximum:
        return value, at
    for shift in range(0, 28, 7):  # no block is as large as more would say
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(value)


def _text(block: bytes, at: int) -> tuple[str, int]:
    coded = block[at] & 0x80
    size, at = _read(block, at, 0x7F)
    data = block[at : at + size]
    if len(data) < size:
        raise ValueError(size)
    return (_decoded(data) if coded else data).decode("latin-1"), at + size


def _decoded(data: bytes) -> bytes:
    """Undo Huffman's code."""
    output = bytearray()
    code = length = 0
    for byte in data:
        for bit in range(7, -1, -1):
            code = code << 1 | byte >> bit & 1
            length += 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                output.append(symbol)  # the end's own code is an error
                code = length = 0
    if length > 7 or code != (1 << length) - 1:
        raise ValueError(code)
    return bytes(output)
