"""The first process: configures and starts the consumer, publishes, waits for it, asks for its report, compares."""

from __future__ import annotations

import hmac
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any, Final

from cloud_runtimes.client import CloudRuntimesClient
from cloud_runtimes.errors import InternalError

from . import flights
from .home import prepare, remove
from .report import Outcome, Show, progress, report
from .settings import APPLIED, DEFAULTS, REPORT, SECRET, TOPIC, Settings, sign, state_key

__all__ = ["run"]

_VARIABLE: Final = "CLOUD_RUNTIMES_SECRET_{}_REPORT__KEY"
_LOOK: Final = 0.2
_STALLED: Final = 30.0
"""Seconds without a consumed event after which the rest counts as lost."""


def run(settings: Settings) -> int:
    """Run all of it; return the exit code."""
    began = monotonic()
    path = flights.archive()
    total = flights.count(path, settings.events)
    folder = settings.folder
    if folder is not None and settings.part != "consume":
        prepare(folder)
    if settings.config is None:
        # secrets of a home are read from the environment, which the consumer inherits
        os.environ.setdefault(_VARIABLE.format(settings.secret.replace("-", "__").upper()), secrets.token_hex(16))
    with settings.client() as client:
        client.wait_ready()
        if client.supports("configuration.write", settings.configuration):
            client.configuration.save_configuration(settings.configuration, DEFAULTS)
        key = client.secret.get_secret(settings.secret, SECRET)
        client.state.delete(settings.store, APPLIED)
        if settings.part == "publish":
            with progress(total) as show:
                published, failed, seconds = _publish(client, settings, path, _Watch(client, settings.store, show))
            sys.stdout.write(f"{published:,} events published in {seconds:.2f} s, {failed:,} failed\n")
            return 1 if failed else 0
        with _consumer(settings) as consumer, progress(total) as show:
            watch = _Watch(client, settings.store, show)
            published, failed, publishing = total, 0, 0.0
            if settings.part is None:
                published, failed, publishing = _publish(client, settings, path, watch)
            ended = time()
            expected = flights.totals(path, settings.events)
            _wait(watch, consumer, published)
            asked = monotonic()
            reply: dict[str, Any] = client.rpc.invoke_method(settings.app_id, REPORT)
            answered = monotonic() - asked
        applied = watch.look()
        items = client.state.get_bulk(settings.store, [state_key(carrier) for carrier in sorted(expected)])
    outcome = Outcome(
        published=published,
        failed=failed,
        publishing=publishing,
        applied=applied,
        lag=max(0.0, applied.get("last", ended) - ended),
        expected=expected,
        reported=reply["totals"],
        signed=hmac.compare_digest(reply.pop("signature"), sign(reply, key.value)),
        answered=answered,
        totals={carrier: items[state_key(carrier)].value for carrier in expected if state_key(carrier) in items},
        wall=monotonic() - began,
    )
    sys.stdout.write(report(outcome, settings))
    if folder is not None and settings.home is None and not settings.keep:
        remove(folder)
    return 0 if outcome.good else 1


class _Watch:
    """Reads how far the consumer is, from the record it keeps in state."""

    def __init__(self, client: CloudRuntimesClient, store: str, show: Show) -> None:
        self._client = client
        self._store = store
        self.show = show
        self._due = 0.0
        self.consumed = 0

    def look(self) -> dict[str, Any]:
        """Read the record now."""
        applied: dict[str, Any] = self._client.state.get(self._store, APPLIED) or {}
        self.consumed = applied.get("events", 0)
        return applied

    def pass_by(self, published: int) -> None:
        """Show where both are, a few times a second."""
        if monotonic() >= self._due:
            self.look()
            self.show(published, self.consumed)
            self._due = monotonic() + _LOOK


@contextmanager
def _consumer(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Start the second process, wait until it is subscribed, and end it afterwards."""
    command = [sys.executable, "-m", "examples.demo", "consumer", *settings.arguments()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise InternalError("the consumer did not start; it has said why")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _publish(client: CloudRuntimesClient, settings: Settings, path: Path, watch: _Watch) -> tuple[int, int, float]:
    """Publish all flights; return how many were delivered and failed, and the seconds: reading, encoding and flush included."""
    started = monotonic()
    event, carrier = flights.event, flights.CARRIER

    with client.pubsub.publisher(settings.pubsub, TOPIC, on_delivery=lambda result: None) as publisher:
        send = publisher.send
        for number, row in enumerate(flights.rows(path, settings.events), 1):
            send(event(row), key=row[carrier])
            if not number & 1023:
                watch.pass_by(number)
        publisher.flush()
        seconds = monotonic() - started
        done = publisher.stats()
    return done.delivered, done.failed, seconds


def _wait(watch: _Watch, consumer: subprocess.Popen[str], published: int) -> None:
    """Wait until the consumer has applied all, or goes no further."""
    moved = monotonic()
    before = -1
    while True:
        watch.look()
        if watch.consumed >= published or consumer.poll() is not None:
            break
        if watch.consumed != before:
            before, moved = watch.consumed, monotonic()
        elif monotonic() - moved > _STALLED:
            break
        watch.pass_by(published)
        sleep(0.02)
    watch.show(published, watch.consumed)
