"""The second process: events → totals per carrier, in state once per batch.

How large a batch is and what counts as late it reads from configuration. A batch is acknowledged after its totals are stored. What is delivered again meanwhile is known by its id and counted instead of being added twice; the ids are those that this process has seen, so the guard ends with it. At the end it is asked for its report by RPC, and signs it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

from cloud_runtimes.client import CloudRuntimesClient
from cloud_runtimes.pubsub import Event, EventBatch

from .settings import APPLIED, BATCH, DEFAULTS, FIELDS, LATE, REPORT, SECRET, TOPIC, Settings, Totals, sign, state_key

__all__ = ["consume"]


class _Tally:
    """Totals in memory, and what was applied to them."""

    def __init__(self, late: int) -> None:
        self._late = late
        self._lock = threading.Lock()
        self.totals: dict[str, Totals] = {}
        self.seen: set[str] = set()
        self.duplicates = 0
        self.batches = 0
        self.first = 0.0
        self.last = 0.0

    def add(self, batch: EventBatch[Any]) -> set[str]:
        """Add a batch; return the carriers it touched."""
        with self._lock:
            return self._add(batch)

    def _add(self, batch: EventBatch[Any]) -> set[str]:
        touched: set[str] = set()
        self.first = self.first or time.time()
        for event in batch:
            if self._is_new(event):
                touched.add(self._apply(event.data))
        self.batches += 1
        self.last = time.time()
        return touched

    def _is_new(self, event: Event[Any]) -> bool:
        id = event.id
        if id in self.seen:
            self.duplicates += 1
            return False
        self.seen.add(id)
        return True

    def _apply(self, flight: Mapping[str, Any]) -> str:
        carrier: str = flight["carrier"]
        total = self.totals.get(carrier)
        if total is None:
            total = self.totals[carrier] = dict.fromkeys(FIELDS, 0)
        total["flights"] += 1
        total["distance"] += flight["distance"]
        if (flight["dep_delay"] or 0) > self._late:
            total["delayed"] += 1
        total["air_time"] += flight["air_time"] or 0
        return carrier

    def applied(self) -> dict[str, Any]:
        """Return the record that stands beside the totals."""
        return {
            "events": len(self.seen),
            "duplicates": self.duplicates,
            "batches": self.batches,
            "first": self.first,
            "last": self.last,
        }

    def report(self, key: str) -> dict[str, Any]:
        """Return everything, signed; called by the thread that serves it."""
        with self._lock:
            report = {"totals": {carrier: dict(total) for carrier, total in self.totals.items()}, **self.applied()}
        return {**report, "signature": sign(report, key)}


def consume(settings: Settings) -> int:
    """Consume until SIGTERM or SIGINT."""
    stop = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, handle)
    with settings.client() as client:
        wanted = DEFAULTS | client.configuration.get_configuration(settings.configuration, list(DEFAULTS))
        key = client.secret.get_secret(settings.secret, SECRET)
        tally = _Tally(int(wanted[LATE]))
        client.rpc.register_method(REPORT, lambda: tally.report(key.value))
        whole = client.supports("state.transaction", settings.store)
        with (
            client.rpc.serving(),
            client.pubsub.subscribe(settings.pubsub, TOPIC, batch=int(wanted[BATCH])) as events,
        ):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            while not stop:
                batch = events.receive(timeout=0.2)
                if batch:
                    _store(client, settings.store, tally, tally.add(batch), whole)
                    batch.ack()
    return 0


def _store(client: CloudRuntimesClient, store: str, tally: _Tally, touched: set[str], whole: bool) -> None:
    """Save the totals of some carriers and the record of what was applied: all or nothing where the store can."""
    values: dict[str, Any] = {state_key(carrier): tally.totals[carrier] for carrier in sorted(touched)}
    values[APPLIED] = tally.applied()
    if not whole:
        client.state.save_bulk(store, values)
        return
    with client.state.transaction(store) as transaction:
        for key, value in values.items():
            transaction.save(key, value)
