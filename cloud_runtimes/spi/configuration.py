"""The SPI of the configuration service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .driver import Driver
from .executor import in_thread
from .operation import Operation

__all__ = [
    "ATOMIC",
    "GROUP",
    "LABEL",
    "SUBSCRIBE",
    "TAGS",
    "VERSION",
    "WRITE",
    "ConfigurationDriver",
    "ConfigurationItem",
    "ConfigurationSource",
    "Selection",
    "Update",
]


@dataclass(frozen=True, slots=True)
class ConfigurationItem:
    """Key with its value; `save_configuration` takes such items too.

    Attributes:
        key: 1 to 1,024 bytes of UTF-8.
        value: text; ``""`` is a value. Of a deleted key: ``""``.
        version: another after every change, ``None`` where the component has none; opaque. A save does not look at
            it.
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


WRITE: Final = "write"
"""`save_configuration` and `delete_configuration`; without it a store is read-only."""
ATOMIC: Final = "atomic"
"""One save or delete applies all of its keys or none, and a subscriber gets them at once."""
GROUP: Final = "group"
"""``group=``: namespaces within a store."""
LABEL: Final = "label"
"""``label=``: variants of a value."""
TAGS: Final = "tags"
"""An item's tags are kept."""
SUBSCRIBE: Final = "subscribe"
"""`subscribe_configuration`; a driver that does not declare it refuses it before any I/O, and says what would help."""
VERSION: Final = "version"
"""Items have a version, another after every change. Saving what is stored already may be one or not."""


class Selection(NamedTuple):
    """Which items are meant.

    Attributes:
        keys: checked, each once; empty: all, but for a delete none.
        group, label: ``None``: the store's default ones.
        metadata: for the component.
    """

    keys: tuple[str, ...]
    group: str | None
    label: str | None
    metadata: Mapping[str, str] | None


class Update(NamedTuple):
    """Result of a look at the source.

    Attributes:
        items: by key.
        complete: these are all items, so a known key that is not among them was deleted. Otherwise they are the
            changed items, deleted ones included.
    """

    items: Mapping[str, ConfigurationItem]
    complete: bool


class ConfigurationSource(ABC):
    """Source of changes for a subscription, driven by one thread (except `wake`).

    It opens nothing before the first `wait`.

    A source need not remember what it has reported: an `Update` with all items is always right. It is due after
    anything that may have made the source miss a change. A retryable error is a lost connection: the source is asked
    again, and reconnects.
    """

    @abstractmethod
    def look(self) -> Update | None:
        """Return what changed since the last look, ``None``: nothing. Does not wait for changes."""

    @abstractmethod
    def wait(self, timeout: float, /) -> None:
        """Return when there may be news, when woken, or after ``timeout`` seconds.

        The first wait may connect what wakes it, and then returns at once, so that the next look is later than the connection.
        """

    @abstractmethod
    def wake(self) -> None:
        """End a `wait`, from any thread. A wake before the first wait may get lost."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what `wait` opened."""


class ConfigurationDriver(Driver, ABC):
    """Key-value configuration of one store."""

    @abstractmethod
    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        """Return the items of a selection, all of one moment; absent ones are left out."""

    get_async = in_thread(get)

    @abstractmethod
    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        """Save items in order, each under its own group and label."""

    save_async = in_thread(save)

    @abstractmethod
    def delete(self, op: Operation, selection: Selection, /) -> None:
        """Delete the keys of a selection; absent ones are fine."""

    delete_async = in_thread(delete)

    @abstractmethod
    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        """Return a source and all that there is now; the source's next look gives every change since."""

    subscribe_async = in_thread(subscribe)
