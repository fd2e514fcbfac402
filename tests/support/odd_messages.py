"""Messages that neighbours on a broker send without meaning harm: other formats, other versions, headers that look like ours."""

from __future__ import annotations

import json
import struct
from typing import Any, Final, NamedTuple

from cloud_runtimes._native import events_py as kernel

__all__ = ["LATER", "ODD", "Odd", "with_frame_header"]


class Odd(NamedTuple):
    """Unusual message.

    Attributes:
        name: what is odd about it.
        data: the body.
        headers: headers by generic names: those of an event in binary mode without their prefix, and our ``due``,
            ``past``, ``topic``.
    """

    name: str
    data: bytes
    headers: dict[str, bytes]


def with_frame_header(version: int, rest: bytes = b"") -> bytes:
    """Return the header of a frame of a version, and what is behind it."""
    return b"CRF" + bytes([version]) + struct.pack("<I", 1) + b"\x03app\x04type\x01t" + rest


_EVENT: Final[dict[str, Any]] = {"specversion": "1.0", "id": "i", "source": "/s", "type": "t"}
_RECORD: Final = kernel.encode_record(b"1", "application/json", key="kk")
_FRAME: Final = kernel.build_frame("app", "type", "t", [_RECORD])


def _event(**more: Any) -> bytes:
    return json.dumps(_EVENT | more).encode()


_BODIES: Final = {
    "CRF": b"CRF",
    "text that begins so": b"CRF-17 is ready",
    "version 1 alone": b"CRF\x01",
    "version 1 damaged": b"CRF\x01 damaged",
    "version 2 alone": b"CRF\x02",
    "version 1 cut off": _FRAME[:-3],
    "version 1 with a byte more": _FRAME + b"\x00",
    "version 1 with a count of 2^32-1": _FRAME[:4] + b"\xff" * 4 + _FRAME[8:],
    "version 1 with a key that is no text": _FRAME.replace(b"kk", b"\xff\xfe"),
    "empty": b"",
    "NUL": b"\x00",
    "no text": b"\xff\xfe\xfd",
    "text with NUL": b"a\x00b",
    "superscript two": "²".encode(),
    "5,000 digits": b"7" * 5000,
    "null": b"null",
    "a string": b'"text"',
    "an object": b"{}",
    "nested 2,000 deep": b"[" * 2000 + b"]" * 2000,
    "opened 2,000 times": b'{"a":' * 2000,
    "data nested 2,000 deep": _event()[:-1] + b',"data":' + b"[" * 2000 + b"]" * 2000 + b"}",
    "a batch": b"[" + _event() + b"," + _event() + b"]",
    "an event of version 0.3": _event(specversion="0.3"),
    "an event without a source": b'{"specversion":"1.0","id":"i","type":"t"}',
    "an id that is a number": _event(id=7),
    "an id with a control character": _event(id="a\x01"),
    "a name twice": b'{"specversion":"1.0","id":"i","id":"j","source":"/s","type":"t"}',
    "a time that is none": _event(time="yesterday"),
    "an unpaired surrogate": b'{"specversion":"1.0","id":"\\ud800","source":"/s","type":"t"}',
    "an extension of 10^400": _event(big=0)[:-2] + b"1" + b"0" * 400 + b"}",
    "a byte order mark": b"\xef\xbb\xbf" + _event(),
    "Avro": b"Obj\x01\x04\x14avro.codec",
    "a schema registry's": b"\x00\x00\x00\x00\x01\x02",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "MessagePack": b"\x81\xa1n\x01",
}
_HEADERS: Final[dict[str, tuple[bytes, dict[str, bytes]]]] = {
    "an empty content type": (b"bytes", {"content-type": b""}),
    "a content type with a control character": (b"x", {"content-type": b"text/\x01plain"}),
    "a content type with NUL": (b"x", {"content-type": b"\x00"}),
    "a content type that is no text": (b"x", {"content-type": b"\xff\xfe"}),
    "junk as a content type": (b"x", {"content-type": "²; =".encode()}),
    "no event that says it is one": (b"x", {"content-type": b"application/cloudevents+json"}),
    "a batch that says so": (b"[" + _event() + b"]", {"content-type": b"application/cloudevents-batch+json"}),
    "binary mode without the rest": (b"x", {"ce:specversion": b"1.0"}),
    "binary mode of version 2": (b"x", {"ce:specversion": b"2.0", "ce:id": b"1"}),
    "an id with a control character in binary mode": (
        b"x",
        {"ce:specversion": b"1.0", "ce:id": b"a\x02", "ce:source": b"/", "ce:type": b"t"},
    ),
    "a time that is none in binary mode": (
        b"x",
        {
            "ce:specversion": b"1.0",
            "ce:id": b"1",
            "ce:source": b"/",
            "ce:type": b"t",
            "ce:time": b"4611686018427387904",
        },
    ),
    "an attribute name that is none": (
        b"x",
        {"ce:specversion": b"1.0", "ce:id": b"1", "ce:source": b"/", "ce:type": b"t", "ce:Nam-e": b"1"},
    ),
    "due at the superscript two": (b"1", {"due": "²".encode()}),
    "due at 400 digits": (b"1", {"due": b"7" * 400}),
    "due at 5,000 digits": (b"1", {"due": b"7" * 5000}),
    "due before 1970": (b"1", {"due": b"-5"}),
    "a past that is none": (b"1", {"past": "² ² ² x".encode()}),
    "a past of 400 digits": (b"1", {"past": b"7" * 400 + b" 0 0 x"}),
    "a past of 5,000 digits": (b"1", {"past": b"7" * 5000 + b" 1 1 x"}),
    "a past beyond the year 9999": (b"1", {"past": b"0 " + b"9" * 18 + b" 0 x"}),
    "a past that is no text": (b"1", {"past": b"\xff\xfe 1 1"}),
    "a past with an error of control characters": (b"1", {"past": b"0 1 1 a\x01\x02b"}),
    "a topic with NUL": (b"1", {"topic": b"a\x00b"}),
    "a topic that is no text": (b"1", {"topic": b"\xff"}),
    "an empty topic": (b"1", {"topic": b""}),
}
ODD: Final = [
    *(Odd(name, data, {}) for name, data in _BODIES.items()),
    *(Odd(name, data, headers) for name, (data, headers) in _HEADERS.items()),
]
LATER: Final = with_frame_header(2, b"whatever is behind it")
"""A frame of a later version, which is poison for this one."""
