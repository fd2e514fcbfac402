"""What the sidecar answers over HTTP, of which nothing is believed."""

from __future__ import annotations

from typing import Any, NoReturn

from ...codec import json
from ...errors import InternalError, InvalidArgumentError, PayloadError
from ...spi.secret import Secret

__all__ = ["decoded", "failed_entries", "odd", "secrets", "texts"]


def decoded(data: bytes) -> Any:
    """Return the JSON of an answer.

    Raises:
        InternalError: it is none.
    """
    try:
        return json.decode(data)
    except PayloadError:  # whose words may quote a secret
        raise InternalError("the sidecar's answer is no JSON") from None


def texts(found: Any) -> dict[str, str]:
    """Return an object of texts, ``{}`` where there is none."""
    if not isinstance(found, dict | None) or not all(isinstance(each, str) for each in (found or {}).values()):
        odd()
    return found or {}


def secrets(data: bytes) -> dict[str, Secret] | None:
    """Read secrets of an answer; ``None``: it is of another form. No error leaves here, whose frames would show it."""
    try:
        found: Any = json.decode(data)
        return {key: Secret(entries) for key, entries in found.items() if isinstance(entries, dict) or odd()}
    except (PayloadError, InternalError, InvalidArgumentError, AttributeError):
        return None


def failed_entries(data: bytes) -> frozenset[str] | None:
    """Return the ids of the entries that failed; ``None``: they are not told."""
    try:
        found: Any = json.decode(data)
        return frozenset(str(each["entryId"]) for each in found["failedEntries"])
    except (PayloadError, KeyError, TypeError):
        return None


def odd() -> NoReturn:
    """Refuse an answer.

    Raises:
        InternalError: always.
    """
    raise InternalError("the sidecar's answer is of another form than Dapr's")
