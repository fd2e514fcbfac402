"""Types of the configuration service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ConfigurationItem"]


@dataclass(frozen=True, slots=True)
class ConfigurationItem:
    """One key with its value; also what `save_configuration` takes.

    Attributes:
        key: 1 to 1,024 bytes of UTF-8.
        value: text; ``""`` is a value. Of a deleted key: ``""``.
        version: another after every change, ``None`` where the component has none; opaque. A save does not look at it.
        group: the namespace within the store, ``None``: the store's default one.
        label: the variant of the value, ``None``: the store's default one.
        tags: names and values for people and tools.
        metadata: of the component.
        deleted: the key was deleted; only a subscription gives such items.
    """

    key: str
    value: str
    version: str | None = None
    group: str | None = None
    label: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    deleted: bool = False
