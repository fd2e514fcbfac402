"""Rendering a frame by a template (`Frame.render`), so that a broker's protocol takes one call for a batch; of both kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .events_py import Frame

__all__ = ["render_frame"]

_MAX_PARTS: Final = 32


def render_frame(frame: Frame, template: Iterable[bytes | str | range]) -> bytes:
    """Return all records in one buffer, each by a template; see `OutgoingBatch.render`."""
    parts = _checked(template)
    out: list[bytes] = []
    for index in range(len(frame)):
        record = frame[index]
        found = {"id": record.id.encode(), "key": (record.key or "").encode()}
        if "json" in parts:
            found["json"] = record.to_json()
        pieces = [part if isinstance(part, bytes) else found[part] if isinstance(part, str) else b"" for part in parts]
        out += [
            b"%d" % sum(map(len, pieces[part.start : part.stop])) if isinstance(part, range) else piece
            for part, piece in zip(parts, pieces, strict=True)
        ]
    return b"".join(out)


def _checked(template: Iterable[bytes | str | range]) -> list[bytes | str | range]:
    parts = list(template)
    if len(parts) > _MAX_PARTS:
        raise ValueError(f"a template has at most {_MAX_PARTS} parts")
    for part in parts:
        if not isinstance(part, (bytes, range)) and part not in ("json", "id", "key"):
            raise ValueError(f"a template has bytes, ranges, 'json', 'id' and 'key', not {part!r}")
    for number, part in enumerate(parts):
        if isinstance(part, range):
            if not 0 <= part.start <= part.stop <= len(parts):
                raise ValueError(f"part {number} of the template is the length of parts that are not there")
            if any(isinstance(other, range) for other in parts[part.start : part.stop]):
                raise ValueError(f"part {number} of the template is the length of a length")
    return parts
