"""CloudEvents 1.0 structured JSON from and to records, in Python.

Mechanism: `parse_cloudevent` is one pass over UTF-8 bytes that knows only as much JSON as it needs (RFC 8259): top-level members are read, `data` is checked token by token without building anything, its bytes are kept as they are. `render` joins the members in the order that docs/log-format.md fixes; a JSON payload goes in as it is, after the same check, because a payload that is no JSON would otherwise write members of its own.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import InvalidArgumentError, PayloadError
from . import record_py as layout
from .attributes import TEXT_MAX, TEXTS, check_text, escape
from .ids_py import now_us, parse_uuid7
from .otlp_py import varint
from .record_py import EXTENSIONS, ID_TEXT, KEY, SOURCE, SUBJECT, TIME_TEXT, TRACEPARENT, TYPE

__all__ = ["check_topic", "frame_header", "is_json", "pack_cloudevents", "parse_cloudevent", "render"]


# ---- just as much JSON as events need (RFC 8259): a value is checked token by token without building anything. The functions take checked UTF-8 ----

DEPTH_MAX = 128

_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
_SCALAR = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]{0,9})")
_UNESCAPE = re.compile(rb"\\u[dD][89abAB]([0-9a-fA-F]{2})\\u[dD][c-fC-F]([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.)")
_PLAIN = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def bad(at: int, what: str) -> NoReturn:
    raise PayloadError(f"CloudEvent: {what} at byte {at}")


def skip_space(data: bytes, at: int) -> int:
    match = _SPACE.match(data, at)
    return match.end() if match else at


def skip_string(data: bytes, at: int) -> int:
    match = _STRING.match(data, at)
    if match is None:
        bad(at, "no complete JSON string")
    return match.end()


def skip_name(data: bytes, at: int) -> int:
    """Skip ``"name" :`` and the spaces behind."""
    at = skip_space(data, skip_string(data, at))
    if data[at : at + 1] != b":":
        bad(at, "no colon")
    return skip_space(data, at + 1)


def skip_value(data: bytes, at: int) -> int:
    """The offset behind the JSON value at `at`, at most 128 arrays and objects deep. Raises `PayloadError`: there is no complete value."""
    closers: list[int] = []
    while True:
        first = data[at : at + 1]
        if first in (b"{", b"["):
            if len(closers) == DEPTH_MAX:
                bad(at, f"data nested deeper than {DEPTH_MAX}")
            closer = 0x7D if first == b"{" else 0x5D
            at = skip_space(data, at + 1)
            if at >= len(data) or data[at] != closer:
                closers.append(closer)
                if closer == 0x7D:
                    at = skip_name(data, at)
                continue
            at += 1
        elif first == b'"':
            at = skip_string(data, at)
        else:
            match = _SCALAR.match(data, at)
            if match is None:
                bad(at, "no JSON value")
            at = match.end()
        while closers:
            at = skip_space(data, at)
            if at >= len(data):
                bad(at, "the end")
            if data[at] == 0x2C:
                at = skip_space(data, at + 1)
                if closers[-1] == 0x7D:
                    at = skip_name(data, at)
                break
            if data[at] != closers.pop():
                bad(at, "no comma or closing bracket")
            at += 1
        else:
            return at


def _replacement(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        high = int(match[0][2:6], 16) - 0xD800
        low = int(match[0][8:12], 16) - 0xDC00
        return chr(0x10000 + (high << 10) + low).encode()
    if match[3] is not None:
        # a lone surrogate cannot be encoded
        return chr(int(match[3], 16)).encode()
    return _PLAIN.get(match[4], match[4])


def unescape(data: bytes, at: int, end: int, name: str) -> bytes:
    """The UTF-8 of the JSON string token ``data[at:end]``."""
    text = data[at + 1 : end - 1]
    if b"\\" not in text:
        return text
    try:
        return _UNESCAPE.sub(_replacement, text)
    except UnicodeEncodeError:
        raise PayloadError(f"CloudEvent: {name} has an unpaired surrogate at byte {at}") from None


def integer(data: bytes, at: int, name: str) -> tuple[int, int]:
    match = _INTEGER.match(data, at)
    value = int(match[0]) if match else 1 << 31
    if match is None or not -(1 << 31) <= value < 1 << 31 or data[match.end() : match.end() + 1] in b".eE0123456789":
        raise PayloadError(f"CloudEvent: {name} is no string, boolean or 32-bit integer, at byte {at}")
    return value, match.end()


def is_value(data: bytes) -> bool:
    """Whether bytes are one JSON value in UTF-8, with spaces around."""
    try:
        data.decode()
        return skip_space(data, skip_value(data, skip_space(data, 0))) == len(data)
    except (UnicodeDecodeError, PayloadError):
        return False


# ---- events ----

_EXTENSION = re.compile(r"[a-z0-9]{1,100}", re.ASCII)


def is_json(content_type: bytes) -> bool:
    """Whether a media type declares JSON: ``*/json`` or ``*/*+json`` without its parameters (JSON format §3.1.1)."""
    media = content_type.split(b";", 1)[0].strip(b" \t").lower()
    return media.endswith((b"/json", b"+json")) and b"/" in media


def is_text(content_type: bytes) -> bool:
    """Whether a media type is ``text/*``."""
    return content_type[:5].lower() == b"text/"


def _decode_base64(text: bytes) -> bytes:
    """RFC 4648 §4, padded, without spaces or stray bits."""
    try:
        payload = a2b_base64(text, strict_mode=True)
    except Base64Error:
        payload = b""
    if b2a_base64(payload, newline=False) != text:
        raise PayloadError("CloudEvent: data_base64 is not base64 of RFC 4648 §4 with padding")
    return payload


class _Members:
    """Members that the pass over an event collects: offsets of `data`, texts by name, other members as JSON."""

    __slots__ = ("base64", "data", "extensions", "room", "texts")

    def __init__(self) -> None:
        self.data: tuple[int, int] | None = None
        self.base64: bytes | None = None
        self.texts: dict[str, str] = {}
        self.extensions: list[bytes] = []
        self.room = TEXT_MAX - 1

    def extend(self, member: bytes) -> None:
        """Add an extension; refuse too many at once, not only once all are read."""
        self.room -= len(member) + 1
        if self.room < 0:
            raise PayloadError(f"CloudEvent: extensions have more than {TEXT_MAX} bytes")
        self.extensions.append(member)


def _read_member(data: bytes, at: int, name: str, members: _Members) -> int:
    if name == "data":
        stop = skip_value(data, at)
        members.data = at, stop
        return stop
    if data.startswith(b"null", at):
        # JSON format §2.2: null is unset
        return at + 4
    if data[at : at + 1] == b'"':
        stop = skip_string(data, at)
        text = unescape(data, at, stop, name)
        if name == "data_base64":
            members.base64 = text
        elif name in TEXTS:
            members.texts[name] = text.decode()
        else:
            value = check_text(name, text.decode(), PayloadError, empty=name != "dataschema")
            members.extend(b'"%s":"%s"' % (name.encode(), escape(value)))
        return stop
    if name in TEXTS or name in ("data_base64", "dataschema"):
        bad(at, f"{name} is no string")
    if data.startswith((b"true", b"false"), at):
        value = b"true" if data[at] == 0x74 else b"false"
        stop = at + len(value)
    else:
        number, stop = integer(data, at, name)
        value = b"%d" % number
    members.extend(b'"%s":%s' % (name.encode(), value))
    return stop


def _read_members(data: bytes) -> _Members:
    members = _Members()
    seen: set[str] = set()
    at = skip_space(data, 0)
    if data[at : at + 1] != b"{":
        bad(at, "no JSON object")
    at = skip_space(data, at + 1)
    if data[at : at + 1] == b"}":
        bad(at, "no attribute")
    while True:
        stop = skip_string(data, at)
        name = unescape(data, at, stop, "a name").decode()
        if name in seen:
            bad(at, f"{name} stands twice,")
        if not _EXTENSION.fullmatch(name) and name != "data_base64":
            bad(at, f"attribute name {name[:100]!r} is not 1 to 100 of a-z and 0-9 (spec §3.1),")
        seen.add(name)
        at = skip_space(data, _read_member(data, skip_name(data, at), name, members))
        mark = data[at : at + 1]
        if mark == b"}":
            break
        if mark != b",":
            bad(at, "no comma or closing bracket")
        at = skip_space(data, at + 1)
    at = skip_space(data, at + 1)
    if at != len(data):
        bad(at, "something behind the event")
    return members


def _optional(texts: dict[str, str], name: str) -> bytes | None:
    return check_text(name, texts[name], PayloadError) if name in texts else None


def parse_cloudevent(data: bytes | bytearray | memoryview | str, topic: str = "") -> bytes:
    """Make a frame of one record from structured JSON (CloudEvents 1.0, JSON format 1.0.2). `PayloadError` names the attribute or the byte.

    An event without a time gets the present one; `data` without ``datacontenttype`` is ``application/json``; no data is an empty payload without a content type.
    """
    topic_text = check_topic(topic)
    source, type_, record = _read_event(data, None)
    return frame_header(1, source, type_, topic_text) + record


def pack_cloudevents(documents: Sequence[bytes], topic: str = "") -> tuple[bytes | None, list[int]]:
    """Make one frame of the events of several documents, and return it with the places of those that are none; ``None`` where all are none.

    The frame has source and type of the first event.
    """
    topic_text = check_topic(topic)
    header: tuple[bytes, bytes] | None = None
    records: list[bytes] = []
    bad: list[int] = []
    for index, document in enumerate(documents):
        try:
            source, type_, record = _read_event(document, header)
        except PayloadError:
            bad.append(index)
            continue
        header = header or (source, type_)
        records.append(record)
    if header is None:
        return None, bad
    return frame_header(len(records), *header, topic_text) + b"".join(records), bad


def _read_event(data: Any, header: tuple[bytes, bytes] | None) -> tuple[bytes, bytes, bytes]:
    """Return source, type and record of a document; the record has its own where those of the frame's header are others."""
    if isinstance(data, str):
        try:
            data = data.encode()
        except UnicodeEncodeError:
            raise PayloadError("CloudEvent: text with an unpaired surrogate") from None
    else:
        data = layout.view(data)
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise PayloadError(f"CloudEvent: no UTF-8 at byte {error.start}") from None
    members = _read_members(data)
    texts = members.texts
    if texts.get("specversion") != "1.0":
        raise PayloadError("CloudEvent: specversion must be '1.0'")
    for name in ("id", "source", "type"):
        if name not in texts:
            raise PayloadError(f"CloudEvent: {name} is missing")
    id_text, source, type_ = (check_text(name, texts[name], PayloadError) for name in ("id", "source", "type"))
    raw_id = parse_uuid7(texts["id"])
    content_type = _optional(texts, "datacontenttype")
    if members.data is not None:
        if members.base64 is not None:
            raise PayloadError("CloudEvent: data and data_base64 exclude each other")
        content_type = content_type or b"application/json"
        at, stop = members.data
        textual = data[at] == 0x22 and not is_json(content_type)
        payload = unescape(data, at, stop, "data") if textual else data[at:stop]
    elif members.base64 is not None:
        payload = _decode_base64(members.base64)
    else:
        payload, content_type = b"", None
    number = layout.CONTENT_TYPE_NUMBERS.get(content_type.decode(), 0) if content_type else 0
    time_us = now_us()
    traceparent = texts.get("traceparent")
    pieces = {
        ID_TEXT: id_text if raw_id is None else None,
        KEY: _optional(texts, "partitionkey"),
        TRACEPARENT: None if traceparent is None else layout.check_traceparent(traceparent, PayloadError),
        layout.CONTENT_TYPE: None if number else content_type,
        TYPE: None if header is None or type_ == header[1] else type_,
        SOURCE: None if header is None or source == header[0] else source,
        SUBJECT: _optional(texts, "subject"),
    }
    if "time" in texts:
        time_us, pieces[TIME_TEXT] = layout.encode_time("time", texts["time"], PayloadError)
    if members.extensions:
        pieces[EXTENSIONS] = b"{" + b",".join(members.extensions) + b"}"
    expires = 0
    if "expirytime" in texts:
        expires = max(layout.encode_time("expirytime", texts["expirytime"], PayloadError)[0], 1)
    return source, type_, layout.pack_record(0, number, raw_id or layout.NO_ID, time_us, expires, pieces, payload)


def frame_header(count: int, source: bytes, type_: bytes, topic: bytes) -> bytes:
    """The bytes of a frame in front of its records."""
    parts = [varint(len(source)), source, varint(len(type_)), type_, varint(len(topic)), topic]
    return b"CRF\x01" + count.to_bytes(4, "little") + b"".join(parts)


def check_topic(topic: str) -> bytes:
    """The UTF-8 of a topic, which may be empty."""
    return check_text("topic", topic, InvalidArgumentError, empty=True)


def _utf8(text: bytes, name: str) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise PayloadError(f"record: {name} is not UTF-8") from None
    return text


def _render_data(payload: bytes, content_type: bytes) -> bytes:
    if not payload and (not content_type or is_json(content_type)):
        return b""
    if content_type and is_json(content_type):
        if is_value(payload):
            return b',"data":' + payload
    elif is_text(content_type):
        try:
            payload.decode()
            return b',"data":"' + escape(payload) + b'"'
        except UnicodeDecodeError:
            pass
    return b',"data_base64":"' + b2a_base64(payload, newline=False) + b'"'


def render(
    texts: dict[int, bytes],
    id_text: bytes,
    source: bytes,
    type_: bytes,
    time: bytes,
    content_type: bytes,
    expires: int,
    payload: bytes,
) -> bytes:
    """Structured JSON of one event; `texts` holds the optional fields by their flag."""
    out = [b'{"specversion":"1.0"']

    def member(name: bytes, text: bytes) -> None:
        if text:
            out.append(b',"%s":"%s"' % (name, escape(_utf8(text, name.decode()))))

    member(b"id", id_text)
    member(b"source", source)
    member(b"type", type_)
    member(b"subject", texts.get(SUBJECT, b""))
    member(b"time", time)
    member(b"datacontenttype", content_type)
    member(b"partitionkey", texts.get(KEY, b""))
    member(b"traceparent", texts.get(TRACEPARENT, b""))
    if expires:
        member(b"expirytime", layout.format_time(expires).encode())
    extensions = texts.get(EXTENSIONS)
    if extensions:
        if extensions[:2] != b'{"' or extensions[-1:] != b"}" or not is_value(extensions):
            raise PayloadError("record: extensions: no JSON object")
        out += (b",", extensions[1:-1])
    out += (_render_data(payload, content_type), b"}")
    return b"".join(out)
