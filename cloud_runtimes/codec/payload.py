"""The payload rules, shared by every service that carries a value: which bytes a value becomes, and what bytes become again.

In: bytes as they are, str under ``text/*`` and XML as UTF-8, the rest as JSON or MessagePack. Out: by the content type, or into a given type.
"""

from __future__ import annotations

import re
from typing import Any

from .._native import hooks
from ..errors import InvalidArgumentError, PayloadError
from .convert import convert
from .json import _decode as _decode_json
from .json import decode as _decode_json_into
from .json import encode as _encode_json

__all__ = ["JSON", "MSGPACK", "OCTETS", "content_kind", "decode_payload", "encode_payload"]

JSON = "application/json"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"

_MAX_CONTENT_TYPE = 255
_TOO_MANY_KINDS = 256

# RFC 9110, section 8.3.1: type "/" subtype *( OWS ";" OWS [ parameter ] )
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(
    # possessive, since spaces around an empty parameter could be taken in two ways each
    rf'({_TOKEN}/{_TOKEN})(?:[ \t]*+;[ \t]*+(?:{_TOKEN}=(?:{_TOKEN}|"(?:[ \t!#-\[\]-~]|\\[\t -~])*+"))?+)*+[ \t]*+'
)
_kinds: dict[str, str] = {JSON: "json", MSGPACK: "msgpack", OCTETS: "bytes"}


def content_kind(content_type: str) -> str:
    """Return how a media type is decoded: ``json``, ``msgpack``, ``text`` or ``bytes``."""
    try:
        kind = _kinds.get(content_type)
    except TypeError:  # cannot be a key
        kind = None
    if kind is not None:
        return kind
    if not isinstance(content_type, str):
        raise InvalidArgumentError(f"content_type must be a str, not {type(content_type).__name__}")
    match = _MEDIA_TYPE.fullmatch(content_type) if len(content_type) <= _MAX_CONTENT_TYPE else None
    if match is None:
        raise InvalidArgumentError(
            f"content_type={content_type[:80]!r} is no media type such as {JSON} (ASCII, at most {_MAX_CONTENT_TYPE} characters)"
        )
    name = match[1].lower()
    if name == JSON or name.endswith("+json"):
        kind = "json"
    elif name in (MSGPACK, "application/x-msgpack"):
        kind = "msgpack"
    else:
        is_text = name.startswith("text/") or name == "application/xml" or name.endswith("+xml")  # RFC 7303
        kind = "text" if is_text else "bytes"
    if len(_kinds) >= _TOO_MANY_KINDS:
        _kinds.clear()
    _kinds[content_type] = kind
    return kind


def encode_payload(data: Any, content_type: str | None = None) -> tuple[bytes, str]:
    """Encode a value for the wire or a store.

    None as data is the value ``null``; as content type it is ``application/octet-stream`` for bytes-like data and else ``application/json``. `PayloadError`: the value has no form under this content type.
    """
    if content_type is None and type(data) is dict:  # by far the most common
        return _encode_json(data), JSON
    if isinstance(data, (bytes, bytearray, memoryview)):
        if content_type is None:
            content_type = OCTETS
        else:
            content_kind(content_type)
        if type(data) is bytes:
            return data, content_type
        try:
            return bytes(data), content_type
        except ValueError as error:
            raise PayloadError(f"the memoryview cannot be read: {error}") from error
    if content_type is None:
        return _encode_json(data), JSON
    kind = content_kind(content_type)
    if kind == "json":
        return _encode_json(data), content_type
    if kind == "msgpack":
        from . import msgpack

        return msgpack.encode(data), content_type
    if kind == "text" and isinstance(data, str):
        try:
            return str.encode(data), content_type
        except UnicodeEncodeError as error:
            raise PayloadError("a str with a lone surrogate is not valid UTF-8") from error
    raise PayloadError(
        f"content_type={content_type!r} does not encode a value of type {type(data).__name__}: {JSON} (or +json) and {MSGPACK} encode"
        " values, text/* and XML a str; bytes pass as they are under any"
    )


def decode_payload(data: bytes, content_type: str | None, type: Any = None) -> Any:
    """Decode what `encode_payload` gave.

    Without a content type they stay bytes. With a type the value is given as that, strictly; `bytes` gives them undecoded. `PayloadError`: they are not what the content type says, or the value is not of the type.
    """
    if type is None and content_type == JSON:  # by far the most common
        return _decode_json(data)
    if type is bytes:
        return data
    kind = "bytes" if content_type is None else content_kind(content_type)
    if kind == "json":
        return _decode_json_into(data, type=type)
    if kind == "msgpack":
        from . import msgpack

        return msgpack.decode(data, type=type)
    if kind == "text":
        try:
            value: Any = str(data, "utf-8")
        except UnicodeDecodeError as error:
            if type is None and not str(content_type).lower().startswith("text/"):
                return data  # XML that names another encoding inside
            raise PayloadError(f"{content_type}: not valid UTF-8: {error}") from error
    else:
        value = data
    if type is None:
        return value
    if kind == "text":
        return convert(value, type)
    try:
        return convert(value, type)
    except PayloadError as error:
        raise PayloadError(
            f"content_type={content_type!r} stands for bytes: {error} (give type=bytes, or send it as {JSON} or {MSGPACK})"
        ) from error


hooks.encode_payload = encode_payload
