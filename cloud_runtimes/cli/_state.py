"""``state get|save|delete|list``."""

from __future__ import annotations

import base64
import sys
from typing import Any, Final

from ..codec import json
from ..codec.payload import JSON, decode_payload
from ..errors import PayloadError
from ._errors import NOT_FOUND, UsageError
from ._session import Invocation, connect
from ._streams import complain, write
from ._tables import Table, record

__all__ = ["delete", "get", "list_keys", "save"]

_BEGINS_JSON: Final = frozenset('{["')
"""What begins so and is no JSON is a slip, not a text."""


def _is_json(content_type: str | None) -> bool:
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind == JSON or kind.endswith("+json")


def get(invocation: Invocation, store: str, key: str, item: bool) -> int:
    """Write the value of a key (or all that is known of it)."""
    with connect(invocation) as client:
        found = client.state.get_item(store, key, type=bytes)
    if found is None:
        complain(f"no key {key!r} in {store!r}")
        return NOT_FOUND
    value: Any = None if _is_json(found.content_type) and not item else decode_payload(found.value, found.content_type)
    if not item:
        if _is_json(found.content_type):
            write(found.value + b"\n")  # the stored bytes: exact, whatever the size of a number
        elif isinstance(value, (bytes, str)):
            write(found.value)
        else:
            write(json.encode(value) + b"\n")
        return 0
    shown: dict[str, Any] = {"key": key}
    if isinstance(value, bytes):
        shown["value_base64"] = base64.b64encode(value).decode()
    else:
        shown["value"] = value
    shown |= {
        "etag": found.etag,
        "content_type": found.content_type,
        "ttl": found.ttl,
        "expires_at": None if found.expires_at is None else found.expires_at.isoformat(),
        "metadata": dict(found.metadata),
    }
    record(shown)
    return 0


def save(
    invocation: Invocation,
    store: str,
    key: str,
    value: str | None,
    *,
    text: bool,
    file: str | None,
    content_type: str | None,
    ttl: float | None,
    etag: str | None,
    first_write: bool,
    fence: int | None = None,
) -> int:
    """Save a value."""
    if (value is None) == (file is None):
        raise UsageError("give a VALUE (- is stdin) or --file PATH, one of them")
    if text and (file is not None or content_type is not None):
        raise UsageError("--text says what VALUE is: it does not go with --file or --content-type")
    if etag is not None and first_write:
        raise UsageError("--etag and --first-write exclude each other")
    data: Any
    if file is not None:
        data = _read(file)
    else:
        assert value is not None
        data, content_type = _value(
            _read("-") if value == "-" else _encode(value), "text/plain" if text else content_type
        )
    with connect(invocation) as client:
        client.state.save(
            store,
            key,
            data,
            etag=etag,
            ttl=ttl,
            concurrency="first-write" if first_write else None,
            content_type=content_type,
            fence=fence,
        )
    return 0


def _encode(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise UsageError("VALUE is not UTF-8: give such bytes with --file") from None


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _value(given: bytes, content_type: str | None) -> tuple[Any, str | None]:
    """Return what to save, and as what: JSON keeps its own bytes, what is no JSON is a string."""
    try:
        text = given.decode()
    except UnicodeDecodeError:
        raise UsageError("the value is not UTF-8: give such bytes with --file -") from None
    if content_type is not None and not _is_json(content_type):
        if content_type.partition(";")[0].strip().lower() in ("application/msgpack", "application/x-msgpack"):
            return json.decode(given), content_type
        return given, content_type
    try:
        json.decode(given)
    except PayloadError as error:
        if content_type is not None or text.lstrip()[:1] in _BEGINS_JSON:
            raise UsageError(f"the value is {error}: --text takes it as it is") from None
        return text, None
    return given.strip(b" \t\r\n"), content_type or JSON


def delete(invocation: Invocation, store: str, key: str, etag: str | None) -> int:
    """Delete a key."""
    with connect(invocation) as client:
        client.state.delete(store, key, etag=etag)
    return 0


def list_keys(
    invocation: Invocation, store: str, *, prefix: str, limit: int | None, after: str | None, as_json: bool
) -> int:
    """Write keys, one a line."""
    with connect(invocation) as client:
        keys = client.state.list_keys(store, prefix, limit=limit, after=after)
    if keys and sys.stdout.isatty() and not as_json:
        Table(("key",), whole=True).add([[key] for key in keys])
    else:
        write(b"".join((json.encode(key) if as_json else key.encode()) + b"\n" for key in keys))
    return 0
