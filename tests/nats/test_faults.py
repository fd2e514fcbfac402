"""Producers, consumers and the server are killed, their network parted, the server harmed: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud_runtimes.errors import DeadlineExceededError, PermissionDeniedError, ResourceExhaustedError, UnavailableError
from cloud_runtimes.testing import Api
from tests.support import Figure, Make, Rounds
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.nats import NatsHome
from tests.support.loss import KILLS, come_and_go, dead, kill_all, outlast_harm, slow, stall
from tests.support.nats import NatsServer, Serve, stopped
from tests.support.nats_other import beside
from tests.support.waiting import until


@contextmanager
def full(server: NatsServer, proxy: FaultProxy) -> Iterator[None]:
    with beside(server.port) as other:
        for size in (50_000, 1_000, 10):
            while "error" not in other.publish(bytes(size), "fill"):
                pass
        yield
        other.api("STREAM.PURGE", {"filter": other.subject("fill")})


HARMS = {
    "slow": (slow, DeadlineExceededError, "0.3 s"),
    "full": (full, ResourceExhaustedError, "limit of JetStream"),
    "dead": (dead, UnavailableError, "can be reached"),
}


@pytest.mark.promise("A2", figure="SIGKILL of producers, consumers and servers")
def test_nothing_acknowledged_is_lost(served: Serve, rounds: Rounds, figure: Figure, tmp_path: Path) -> None:
    server = served(jetstream={"sync_interval": "always"})
    figure(f"{KILLS}, JetStream with sync_interval always", kill_all(server, rounds(1, 1000), tmp_path))


@pytest.mark.parametrize("layout", ["event", "frame"])
def test_members_that_come_and_go_settle_all(home: NatsHome, layout: str, rounds: Rounds) -> None:
    come_and_go({"url": home.server.url, "prefix": home.prefix, "layout": layout}, rounds(3_000, 500_000))
    with beside(home.server.port, home.prefix) as other:
        until(lambda: other.pending() == 0)


@pytest.mark.promise("B1")
@pytest.mark.parametrize("harm", [*HARMS])
def test_publishers_outlast(served: Serve, client: Make, harm: str, rounds: Rounds) -> None:
    """A server that is slow, full or dead. In CI each harm is tried with one API."""
    server = served(jetstream={"sync_interval": "always", "max_file_store": 1 << 20})
    outlast_harm(server, client, HARMS, harm, rounds(1, 2))


def test_a_publisher_outlasts_a_stall(served: Serve, client: Make) -> None:
    server = served()
    stall(client(server.url), stopped(server))


def test_a_sealed_stream(home: NatsHome, api: Api) -> None:
    """It is read-only for ever."""
    client = home.client()
    api.call(client.pubsub, "publish", "bus", "t", 1)
    with beside(home.server.port, home.prefix) as other:
        other.api("STREAM.UPDATE", {**other.api("STREAM.INFO")["config"], "sealed": True})
    error = api.fails(PermissionDeniedError, match="sealed stream.*another name or prefix")(
        client.pubsub, "publish", "bus", "t", 2
    )
    assert not error.maybe_applied
    assert not error.retryable
