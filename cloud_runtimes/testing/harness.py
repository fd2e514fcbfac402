"""Requirements of a conformance suite on the thing under test."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from .._http.limits import MAX_BODY

if TYPE_CHECKING:
    from ..client import CloudRuntimesClient

F = TypeVar("F", bound=Callable[..., Any])
_names = itertools.count(1)


class Harness(ABC):
    """Makes clients on the component under test, all of them on the same data.

    Attributes:
        name: of the row in the table of what works where.
        bad_etag: an etag that this component could have given and never did.
        empty_settings: whether a configuration store keeps a value that is empty.
        odd_settings: whether a key of a configuration store may have other signs than ASCII letters, digits and ``._-/``; else it is refused.
        slashes: whether a key of a configuration store may have a ``/``; else saving one is refused.
        event_metadata: whether a subscriber gets the publisher's ``metadata``.
        raw_types: whether an event without an envelope keeps its content type.
        applications: whether jobs are those of the client's ``app_id``; else they are the sidecar's.
        refuses_rowless: whether `query` refuses a statement without rows before any I/O, not by the database's word.
        tells_expiry: whether a value of state tells when it expires.
        any_http_method: whether a call may have a method that HTTP itself does not name.
        largest_body: bytes of a call's body that arrive.
        knows_services: whether it is known that a call of a service that nobody is was not made.
        prefetch: how many events a member of a group may have fetched beyond its ``max_in_flight``.
        at_once: events of a member that the component delivers before one of them is answered; some deliver one at a time.
        bulk_order: whether events of one request come in their order.
        many: keys of a test with many; fewer where each is a request and the server slow.
        moves_members: whether a group without an order is moved while it has members.
        counts_late: whether the events of groups are counted some seconds late.
        shows_held: whether peeking shows all events that members of a group hold; else the oldest, unless none of them is settled.
        tells_dead: whether dead letters are moved by the client or the embedded component, which say why; else by a sidecar.
    """

    name: str
    bad_etag: str = "00000000000000aa"
    empty_settings: bool = True
    odd_settings: bool = True
    slashes: bool = True
    event_metadata: bool = True
    raw_types: bool = True
    applications: bool = True
    refuses_rowless: bool = False
    tells_expiry: bool = True
    any_http_method: bool = True
    largest_body: int = MAX_BODY
    knows_services: bool = True
    prefetch: int = 0
    at_once: int = 10
    bulk_order: bool = True
    many: int = 1200
    moves_members: bool = True
    shows_held: bool = True
    counts_late: bool = False
    tells_dead: bool = True

    @abstractmethod
    def client(self, **arguments: Any) -> CloudRuntimesClient:
        """Return a client; the harness closes it at the end."""

    def store(self, kind: str = "store") -> str:
        """Return a component's name that no other test uses."""
        return f"{kind}-{next(_names)}"

    def configure(self, client: CloudRuntimesClient, store: str, values: Mapping[str, str | None]) -> None:
        """Set values of a configuration store, ``None`` deletes; override where the store is read-only for clients."""
        client.configuration.save_configuration(
            store, {key: value for key, value in values.items() if value is not None}
        )
        client.configuration.delete_configuration(store, [key for key, value in values.items() if value is None])

    def advance(self, seconds: float) -> None:
        """Let the clocks of the component advance; by default this really waits."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close all clients and remove the data."""


class SecretHarness(Harness):
    """A harness of a store of secrets, which the service itself cannot write.

    Attributes:
        multiple: whether a secret may have several entries.
        keys: keys that the component can hold, beyond letters, digits and ``-``.
        empty: whether a secret may be empty.
    """

    multiple: bool = False
    keys: tuple[str, ...] = ()
    empty: bool = True

    @abstractmethod
    def put(self, store: str, key: str, value: str) -> None:
        """Set a secret of one entry, named as its key."""

    @abstractmethod
    def remove(self, store: str, key: str) -> None:
        """Take a secret away."""

    def put_entries(self, store: str, key: str, entries: Mapping[str, str]) -> None:
        """Set a secret of several entries, where `multiple` says so."""
        raise NotImplementedError


def requires(*features: str) -> Callable[[F], F]:
    """Mark a test that needs features, such as ``state.ttl``; it is skipped where the component does not declare them.

    That nothing is declared away in silence is what ``docs/features.toml`` and its test are for.
    """

    def mark(test: F) -> F:
        marked: F = pytest.mark.requires(*features)(test)
        return marked

    return mark
