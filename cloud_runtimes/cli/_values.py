"""Values that are arguments: JSON, text, the bytes of a file, and pairs NAME=VALUE."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

from ..codec import json
from ..codec.payload import JSON
from ..errors import PayloadError
from ._errors import UsageError

_BEGINS_JSON: Final = frozenset('{["')
"""First characters of JSON: a value that begins so and is none is a slip, not a text."""


def is_json(content_type: str | None) -> bool:
    """Return whether a content type is JSON."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind == JSON or kind.endswith("+json")


def pairs(given: Iterable[str] | None, option: str) -> list[tuple[str, str]]:
    """Return the names and values of an option that is repeatable.

    Raises:
        UsageError: one is not NAME=VALUE.
    """
    result = []
    for each in given or ():
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise UsageError(f"{option} {each!r}: give NAME=VALUE")
        result.append((name, value))
    return result


def json_or_text(text: str) -> Any:
    """Return the value that a text is as JSON, else the text."""
    try:
        return json.decode(text.encode())
    except (PayloadError, UnicodeEncodeError):
        return text


def encode(value: str) -> bytes:
    """Return the bytes of an argument.

    Raises:
        UsageError: it is not UTF-8.
    """
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise UsageError("VALUE is not UTF-8: give such bytes with --file") from None


def read(path: str) -> bytes:
    """Return the bytes of a file, or of stdin.

    Raises:
        UsageError: the file cannot be read.
    """
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def value(argument: str, content_type: str | None) -> tuple[Any, str | None]:
    """Return what to send for an argument, and as what: JSON keeps its own bytes, what is no JSON is a string.

    Args:
        argument: the value; ``-``: stdin has it.
        content_type: as it was given; ``None``: JSON, else text.
    """
    given = read("-") if argument == "-" else encode(argument)
    try:
        text = given.decode()
    except UnicodeDecodeError:
        raise UsageError("the value is not UTF-8: give such bytes with --file -") from None
    if content_type is not None and not is_json(content_type):
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
