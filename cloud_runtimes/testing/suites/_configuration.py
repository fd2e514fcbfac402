"""What the parts of the suite of a `ConfigurationDriver` share: a store with keys, and receiving what changed."""

from __future__ import annotations

import pytest

from ...client import CloudRuntimesClient
from ...configuration import ConfigurationItem, ConfigurationSubscription
from ..faces import Face
from ..harness import Harness
from ._base import Suite

__all__ = ["QUIET", "TWENTY", "ConfigurationCases", "Items", "gather", "receive", "silent", "values"]

Items = dict[str, ConfigurationItem]

QUIET = 0.2
"""Seconds in which nothing comes, where nothing may."""
TWENTY = {f"{name}{number}": f"{name}-{number}" for name in ("one.key", "two.key") for number in range(10)}


def values(items: Items | None) -> dict[str, str | None]:
    """Return key → value, ``None``: deleted."""
    assert items is not None, "nothing came in time"
    for key, item in items.items():
        assert item.key == key
        assert not item.deleted or item.value == ""
    return {key: None if item.deleted else item.value for key, item in items.items()}


def receive(face: Face, sub: ConfigurationSubscription) -> dict[str, str | None]:
    """Return what comes next."""
    return values(face.call(sub, "receive", 10))


def gather(face: Face, sub: ConfigurationSubscription, wanted: dict[str, str | None]) -> dict[str, str | None]:
    """Return what comes until these last values have; all of it merged."""
    found: dict[str, str | None] = {}
    while any(found.get(key, "absent") != value for key, value in wanted.items()):
        found |= receive(face, sub)
    return found


def silent(face: Face, first: ConfigurationSubscription, *others: ConfigurationSubscription) -> None:
    """Nothing comes to any of them in the same time."""
    assert face.call(first, "receive", QUIET) is None
    for each in others:
        assert face.call(each, "receive", 0.01) is None


class ConfigurationCases(Suite):
    """Base of the parts."""

    service = "configuration"

    def put(self, harness: Harness, client: CloudRuntimesClient, store: str, **changed: str | None) -> None:
        """Change values, whoever may."""
        harness.configure(client, store, changed)

    @pytest.fixture
    def filled(self, harness: Harness, client: CloudRuntimesClient, store: str) -> str:
        """A store with twenty keys."""
        harness.configure(client, store, TWENTY)
        return store
