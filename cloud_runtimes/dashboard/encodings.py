"""Content encodings of requests, unpacked within the bounds of a body."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Final

from .._core import zstd
from .._http.limits import MAX_BODY
from ..errors import PayloadError, ResourceExhaustedError

_MAX_MEMBERS: Final = 1024
"""Of gzip in a body. Writers that make several, such as bgzip, give each 64 KiB."""
_PIECE: Final = 64 * 1024


def _unzipped(body: bytes) -> bytes:
    """Return the content of gzip (RFC 1952), which may have several members.

    Raises:
        PayloadError: it is none, or cut off.
        ResourceExhaustedError: it is larger than `MAX_BODY`, or has more than `_MAX_MEMBERS` members.
    """
    view, at = memoryview(body), 0
    unpacked = bytearray()
    try:
        for _ in range(_MAX_MEMBERS):
            member = zlib.decompressobj(31)
            while not member.eof:
                # in pieces, since what stands behind a member is copied
                piece = view[at : at + _PIECE]
                if not piece:
                    raise PayloadError("the body is cut off: gzip does not end")
                unpacked += member.decompress(piece, MAX_BODY + 1 - len(unpacked))
                if len(unpacked) > MAX_BODY:
                    raise ResourceExhaustedError(f"the body is larger than {MAX_BODY:,} bytes when unpacked")
                at += len(piece) - len(member.unused_data)
            if at == len(view):
                return bytes(unpacked)
    except zlib.error as error:
        raise PayloadError(f"the body is no gzip: {error}") from error
    raise ResourceExhaustedError(f"the body has more than {_MAX_MEMBERS:,} members of gzip")


def _unpacked(body: bytes) -> bytes:
    """Return the content of zstd; raises as `_unzipped` does, and `UnsupportedError` where nothing can read it."""
    try:
        data = zstd.unpack(zstd.load("content-encoding: zstd"), body, MAX_BODY + 1)
    except ValueError as error:
        raise PayloadError(f"the body is no zstd: {error}") from error
    if len(data) > MAX_BODY:
        raise ResourceExhaustedError(f"the body is larger than {MAX_BODY:,} bytes when unpacked")
    return data


UNPACK: Final[Mapping[str, Callable[[bytes], bytes]]] = {"identity": bytes, "gzip": _unzipped, "zstd": _unpacked}
"""Content encodings that are taken."""
