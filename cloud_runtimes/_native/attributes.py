"""Texts, extensions and metadata of a record, templates of a frame: what both kernels of events check, write and read in Python."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, Union

from ..errors import InvalidArgumentError, PayloadError

__all__ = [
    "CONTEXT",
    "FORMAT",
    "MORE_THAN_TEXT",
    "TEXTS",
    "TEXT_MAX",
    "check_template",
    "check_text",
    "encode_extensions",
    "encode_metadata",
    "escape",
    "parse_object",
]

TEXT_MAX = 65_536
# CloudEvents §3.1, String: no control characters, no noncharacters (and no surrogates, which UTF-8 refuses)
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)
_ESCAPE = re.compile(rb'["\\\x00-\x1f]')
_SHORT = {b'"': b'\\"', b"\\": b"\\\\", b"\b": b"\\b", b"\t": b"\\t", b"\n": b"\\n", b"\f": b"\\f", b"\r": b"\\r"}
_NAME = re.compile(r"[a-z0-9]{1,100}", re.ASCII)
CONTEXT = ("id", "type", "source", "subject", "time")
"""Attributes of the context, which are arguments of their own."""
FORMAT = ("datacontenttype", "data", "data_base64", "specversion")
"""Members of the JSON format that come from the data."""
_RESERVED = frozenset({*CONTEXT, *FORMAT, "partitionkey", "expirytime"})
MORE_THAN_TEXT = _RESERVED | {"traceparent", "dataschema"}
"""Names that no extension has, or whose values are not any text."""
TEXTS = frozenset({*CONTEXT, "specversion", "datacontenttype", "traceparent", "partitionkey", "expirytime"})
"""Attributes that are text and no extensions of a record."""


def escape(text: bytes) -> bytes:
    """JSON-escape UTF-8: quote, backslash and control characters, nothing else (RFC 8259 §7)."""
    return _ESCAPE.sub(lambda match: _SHORT.get(match[0]) or b"\\u%04x" % match[0][0], text)


def check_text(
    name: str, value: Any, error: type[InvalidArgumentError] = InvalidArgumentError, *, empty: bool = False
) -> bytes:
    """Check an attribute of CloudEvents type String (spec §3.1) and give its UTF-8. Raises `InvalidArgumentError`: (or `error`) not a string, empty, longer than 64 KiB, or with a control character, surrogate or noncharacter."""
    if not isinstance(value, str):
        raise error(f"{name} must be a string, not {type(value).__name__}")
    if not value and not empty:
        raise error(f"{name} must not be empty; leave it out instead")
    try:
        text = value.encode()
    except UnicodeEncodeError:
        raise error(f"{name} has an unpaired surrogate; give text that UTF-8 can hold") from None
    if len(text) > TEXT_MAX:
        raise error(f"{name} has {len(text)} bytes; at most {TEXT_MAX} are allowed: put long values into the payload")
    if _FORBIDDEN.search(value):
        raise error(f"{name} has a control or noncharacter, which CloudEvents forbids (spec §3.1); remove it")
    return text


def encode_extensions(extensions: Any) -> tuple[bytes, Any]:
    """The JSON object of extension attributes, and the traceparent found among them (spec §3.1.1)."""
    if not isinstance(extensions, Mapping):
        raise InvalidArgumentError(f"extensions must be a mapping, not {type(extensions).__name__}")
    members: list[bytes] = []
    traceparent = None
    for name, value in extensions.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidArgumentError(f"extension {name!r}: a name is 1 to 100 of a-z and 0-9")
        if name == "traceparent":
            traceparent = value
            continue
        if name in _RESERVED:
            raise InvalidArgumentError(f"extension {name!r}: the name is an attribute of its own; give it as one")
        if isinstance(value, bool):
            text = b"true" if value else b"false"
        elif isinstance(value, int):
            if not -(1 << 31) <= value < 1 << 31:
                raise InvalidArgumentError(
                    f"extension {name!r}: an integer has 32 bits (CloudEvents §3.1); give a string"
                )
            text = b"%d" % value
        else:
            text = b'"' + escape(check_text(f"extension {name!r}", value, empty=name != "dataschema")) + b'"'
        members.append(b'"%s":%s' % (name.encode(), text))
    joined = b"{" + b",".join(members) + b"}"
    if len(joined) > TEXT_MAX:
        raise InvalidArgumentError(f"extensions have {len(joined)} bytes of JSON; at most {TEXT_MAX} are allowed")
    return (joined if members else b""), traceparent


def encode_metadata(metadata: Any) -> bytes:
    """The JSON object of the publisher's metadata."""
    if not isinstance(metadata, Mapping):
        raise InvalidArgumentError(f"metadata must be a mapping, not {type(metadata).__name__}")
    members: list[bytes] = []
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgumentError(f"metadata {name!r} must be a string under a string")
        try:
            members.append(b'"%s":"%s"' % (escape(name.encode()), escape(value.encode())))
        except UnicodeEncodeError:
            raise InvalidArgumentError(f"metadata {name!r} has an unpaired surrogate") from None
    joined = b"{" + b",".join(members) + b"}"
    if len(joined) > TEXT_MAX:
        raise InvalidArgumentError(f"metadata has {len(joined)} bytes of JSON; at most {TEXT_MAX} are allowed")
    return joined if members else b""


def parse_object(data: bytes, what: str, *, strings: bool = False) -> dict[str, Any]:
    """Read a stored JSON object of strings and, unless `strings`, of booleans and 32-bit integers. Raises `PayloadError`: it is none."""
    try:
        result = json.loads(data.decode())
        if b"\\u" in data:
            json.dumps(result, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise PayloadError(f"{what}: no JSON object in UTF-8 without unpaired surrogates") from None
    if type(result) is not dict:
        raise PayloadError(f"{what}: no JSON object")
    for name, value in result.items():
        if not isinstance(value, str) and (strings or not isinstance(value, int) or not -(1 << 31) <= value < 1 << 31):
            raise PayloadError(f"{what}: {name!r} is no string{'' if strings else ', boolean or 32-bit integer'}")
    return result


TemplatePart: TypeAlias = Union[bytes, str, range, "tuple[range, int]", "tuple[str, int]"]


def check_template(template: Iterable[TemplatePart]) -> list[TemplatePart]:
    """Return the parts of a template of `OutgoingBatch.render`; refuse what is none (`ValueError`)."""
    parts = list(template)
    if len(parts) > 32:
        raise ValueError("a template has at most 32 parts")
    for number, part in enumerate(parts):
        if isinstance(part, bytes) or part in ("json", "id", "key", "time"):
            continue
        if isinstance(part, tuple):
            if part[:1] == ("key",) and len(part) == 2 and part[1] in range(1, 2**31):
                continue
            if len(part) != 2 or part[1] not in (1, 2, 4, 8):
                raise ValueError(f"part {number} of the template: a binary length has 1, 2, 4 or 8 bytes")
            part = part[0]
        if not isinstance(part, range):
            raise ValueError(f"a template has bytes, ranges, 'json', 'id', 'key' and 'time', not {part!r}")
        if not 0 <= part.start <= part.stop <= len(parts):
            raise ValueError(f"part {number} of the template is the length of parts that are not there")
        if number in part or range in map(type, parts[part.start : part.stop]):
            raise ValueError(f"part {number} of the template is the length of a length")
    return parts
