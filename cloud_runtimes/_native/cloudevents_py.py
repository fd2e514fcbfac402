"""CloudEvents 1.0 structured JSON from and to records, in Python.

Mechanism: `parse_cloudevent` is one pass over UTF-8 bytes that knows only as much JSON as it needs (RFC 8259): top-level members are read, `data` is checked token by token without building anything, its bytes are kept as they are. `render` joins the members in the order that docs/log-format.md fixes; a JSON payload goes in as it is, after the same check, because a payload that is no JSON would otherwise write members of its own.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from ..errors import InvalidArgumentError, PayloadError
from . import record_py as layout
from .attributes import TEXT_MAX, check_text, escape
from .ids_py import now_us, parse_uuid7
from .json_py import bad, integer, is_value, skip_name, skip_space, skip_string, skip_value, unescape
from .record_py import EXPIRES, EXTENSIONS, ID_TEXT, KEY, SUBJECT, TIME_TEXT, TRACEPARENT

__all__ = ["check_topic", "frame_header", "is_json", "parse_cloudevent", "render"]

_EXTENSION = re.compile(r"[a-z0-9]{1,100}", re.ASCII)
_TEXTS = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "traceparent"})
_TEXTS |= {"partitionkey", "expirytime"}


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
    """What the pass over an event collects: offsets of `data`, texts by name, other members as JSON."""

    __slots__ = ("base64", "data", "extensions", "texts")

    def __init__(self) -> None:
        self.data: tuple[int, int] | None = None
        self.base64: bytes | None = None
        self.texts: dict[str, str] = {}
        self.extensions: list[bytes] = []


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
        elif name in _TEXTS:
            members.texts[name] = text.decode()
        else:
            value = check_text(name, text.decode(), PayloadError, empty=name != "dataschema")
            members.extensions.append(b'"%s":"%s"' % (name.encode(), escape(value)))
        return stop
    if name in _TEXTS or name in ("data_base64", "dataschema"):
        bad(at, f"{name} is no string")
    if data.startswith((b"true", b"false"), at):
        value = b"true" if data[at] == 0x74 else b"false"
        stop = at + len(value)
    else:
        number, stop = integer(data, at, name)
        value = b"%d" % number
    members.extensions.append(b'"%s":%s' % (name.encode(), value))
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


def parse_cloudevent(data: bytes | bytearray | memoryview | str, topic: str = "") -> bytes:
    """Make a frame of one record from structured JSON (CloudEvents 1.0, JSON format 1.0.2). `PayloadError` names the attribute or the byte.

    An event without a time gets the present one; `data` without ``datacontenttype`` is ``application/json``; no data is an empty payload without a content type.
    """
    topic_text = check_topic(topic)
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
    flags, pieces = 0, []
    raw_id = parse_uuid7(texts["id"])
    if raw_id is None:
        flags, raw_id, pieces = ID_TEXT, layout.NO_ID, [id_text]
    content_type: bytes | None = None
    if "datacontenttype" in texts:
        content_type = check_text("datacontenttype", texts["datacontenttype"], PayloadError)
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
    if "partitionkey" in texts:
        flags |= KEY
        pieces.append(check_text("partitionkey", texts["partitionkey"], PayloadError))
    if "traceparent" in texts:
        flags |= TRACEPARENT
        pieces.append(layout.check_traceparent(texts["traceparent"], PayloadError))
    if content_type and not number:
        flags |= layout.CONTENT_TYPE
        pieces.append(content_type)
    if "subject" in texts:
        flags |= SUBJECT
        pieces.append(check_text("subject", texts["subject"], PayloadError))
    time_us, time_text = now_us(), None
    if "time" in texts:
        time_us, time_text = layout.encode_time("time", texts["time"], PayloadError)
    if time_text is not None:
        flags |= TIME_TEXT
        pieces.append(time_text)
    if members.extensions:
        joined = b"{" + b",".join(members.extensions) + b"}"
        if len(joined) > TEXT_MAX:
            raise PayloadError(f"CloudEvent: extensions have more than {TEXT_MAX} bytes")
        flags |= EXTENSIONS
        pieces.append(joined)
    expires = 0
    if "expirytime" in texts:
        flags |= EXPIRES
        expires = max(layout.encode_time("expirytime", texts["expirytime"], PayloadError)[0], 1)
    record = layout.pack_record(flags, number, raw_id, time_us, expires, pieces, payload)
    return frame_header(1, source, type_, topic_text) + record


def frame_header(count: int, source: bytes, type_: bytes, topic: bytes) -> bytes:
    """The bytes of a frame in front of its records."""
    parts = [layout.varint(len(source)), source, layout.varint(len(type_)), type_, layout.varint(len(topic)), topic]
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
