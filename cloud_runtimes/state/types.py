"""Types of the state service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

Consistency: TypeAlias = Literal["eventual", "strong"]
Concurrency: TypeAlias = Literal["first-write", "last-write"]
Ttl: TypeAlias = float | timedelta


class ReadOptions(TypedDict, total=False):
    """Keyword arguments that every read takes."""

    consistency: Consistency | None
    timeout: float | None
    metadata: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateItem(Generic[T]):
    """A key with its value; `save_bulk` takes it too.

    Attributes:
        key: 1 to 1,024 bytes of UTF-8.
        value: the decoded value; ``None`` is a value too.
        etag: the version read (or, for a save, the one that must still be current).
        content_type: how the value is encoded.
        ttl: remaining seconds (or, for a save, seconds to live).
        expires_at: when it goes away (UTC), ``None``: never.
        metadata: of the component.
    """

    key: str
    value: T
    etag: str | None = None
    content_type: str | None = None
    ttl: Ttl | None = None
    expires_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
