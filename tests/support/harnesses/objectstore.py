"""Buckets as components: one for each store."""

from __future__ import annotations

import os
from typing import Any

from cloud_runtimes.components.objectstore import state
from tests.support.harnesses.clients import Clients
from tests.support.objectstore import buckets, table

__all__ = ["OBJECTSTORE", "OBJECTSTORE_STATE", "BucketState", "Buckets"]


class Buckets(Clients):
    """Files of a run's server. The configuration declares all stores before the first call."""

    name = "objectstore"
    service = "file"
    bad_etag = "fffffffffffffff"
    many = 1200 if "OBJECTSTORE" in os.environ else 150

    def __init__(self, url: str) -> None:
        self.url = url
        self.names = buckets(url, 3)
        self._unused = iter(self.names)

    def config(self) -> dict[str, Any]:
        config = {self.service: {name: table(self.url, name) for name in self.names}}
        return config

    def store(self, kind: str = "store") -> str:
        return next(self._unused)


class BucketState(Buckets):
    """State of a run's server, whose times are those of the client: they are moved on."""

    service = "state"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._ahead = 0
        self._real = state.now_ms
        state.now_ms = lambda: self._real() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += round(seconds * 1000)

    def close(self) -> None:
        super().close()
        state.now_ms = self._real


OBJECTSTORE: dict[str, type[Buckets]] = {Buckets.name: Buckets}
OBJECTSTORE_STATE: dict[str, type[Buckets]] = {BucketState.name: BucketState}
