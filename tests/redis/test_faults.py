"""Producers, consumers and the server are killed, their network parted, the server harmed: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud_runtimes.errors import DeadlineExceededError, ResourceExhaustedError, UnavailableError
from tests.support import Figure, Make, Rounds
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.redis import RedisHome
from tests.support.loss import KILLS, come_and_go, dead, kill_all, outlast_harm, slow
from tests.support.redis import RedisServer, Serve, serve


@contextmanager
def full(server: RedisServer, proxy: FaultProxy) -> Iterator[None]:
    server.command("CONFIG", "SET", "maxmemory", "1")
    yield
    server.command("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def read_only(server: RedisServer, proxy: FaultProxy) -> Iterator[None]:
    server.command("REPLICAOF", "127.0.0.1", "1")  # of none, so it keeps what it has
    yield
    server.command("REPLICAOF", "NO", "ONE")


HARMS = {
    "slow": (slow, DeadlineExceededError, "0.3 s"),
    "full": (full, ResourceExhaustedError, "maxmemory"),
    "read-only": (read_only, UnavailableError, "READONLY"),
    "dead": (dead, UnavailableError, "cannot be reached"),
}


@pytest.mark.promise("A2")
def test_nothing_acknowledged_is_lost(rounds: Rounds, figure: Figure, tmp_path: Path) -> None:
    kept = {"retention": 10}  # else a server that starts again reads what came in all the time before
    with serve("valkey", appendonly="yes", appendfsync="always") as server:
        figure(f"{KILLS}, Valkey with appendfsync always", kill_all(server, rounds(2, 600), tmp_path, kept))


@pytest.mark.parametrize("layout", ["event", "frame"])
def test_members_that_come_and_go_settle_all(home: RedisHome, layout: str, rounds: Rounds) -> None:
    come_and_go({"url": home.server.url, "prefix": home.prefix, "layout": layout}, rounds(3_000, 500_000))
    stream = f"{{{home.prefix}:pubsub:bus}}:topic:t"
    assert home.server.command("XPENDING", stream, "suite").startswith(b"*4\r\n:0\r\n")
    assert home.server.command("XINFO", "CONSUMERS", stream, "suite") == b"*0\r\n"


@pytest.mark.promise("B1")
@pytest.mark.parametrize("harm", [*HARMS])
def test_publishers_outlast(served: Serve, client: Make, harm: str, rounds: Rounds) -> None:
    """A server that is slow, full, read-only or dead. In CI each harm is tried with one API."""
    server = served(appendonly="yes", appendfsync="always")
    outlast_harm(server, client, HARMS, harm, rounds(1, 2))
