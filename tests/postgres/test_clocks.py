"""Clients whose clock is an hour off: leases, ttl, delays and schedules go by the server's."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.child import Child
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

pytestmark = pytest.mark.process

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def astray() -> None:
    """Do all that has to do with time, and tell what came of it; runs with a clock of its own."""
    with CloudRuntimesClient(app_id="suite", timeout=10) as client:
        ran: list[float] = []
        client.state.save("s", "short", 1, ttl=1.0)
        client.state.save("s", "long", 1, ttl=60.0)
        lease = client.lock.try_lock("locks", "astray", expiry=2.0)
        kept = client.lock.try_lock("locks", f"kept{os.environ['FAKETIME']}", expiry=120.0)
        assert lease is not None
        assert kept is not None
        job = client.schedule.job("tick")(lambda: ran.append(time.monotonic()))
        client.schedule.schedule_job("tick", due_time=0.5, target=job, overwrite=True)
        with client.schedule.running(), client.pubsub.subscribe("bus", "t", start="earliest") as sub:
            begun = time.monotonic()
            client.pubsub.publish("bus", "t", "late", delay=1.0)
            event = sub.receive(60)
            assert event is not None
            event.ack()
            waited = time.monotonic() - begun
            until(lambda: ran)
            say(event=event.data, waited=waited, wall=time.time(), ran=len(ran), lost=kept.lost)
            sys.stdin.readline()
            say(short=client.state.get("s", "short"), long=client.state.get("s", "long"), lost=lease.lost)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as postgres:
        yield postgres


@pytest.mark.promise("D1")
@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_wrong_does_not_matter(server: PostgresServer, seconds: int, tmp_path: Path) -> None:
    if not FAKETIME:
        pytest.skip("libfaketime is not installed")
    environment = {
        "CLOUD_RUNTIMES_HOME": server.url,
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME": f"{seconds:+}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    child = Child(Path(__file__), "astray", environment=environment)
    try:
        with CloudRuntimesClient(app_id="other", config={"capa": {"home": server.url}}, timeout=10) as client:
            line = child.line()
            assert abs(line["wall"] - time.time() - seconds) < 30  # its clock is wrong
            assert line["event"] == "late"
            assert 0.9 < line["waited"] < 50
            assert line["ran"] == 1
            assert not line["lost"]
            # others see the same lease, and its end
            with client.lock.hold("locks", "astray", wait=60):
                assert client.lock.try_lock("locks", f"kept{seconds:+}") is None
            child.go()
            line = child.line()
            assert line["short"] is None
            assert line["long"] == 1
            assert line["lost"]
    finally:
        child.close()
    with psycopg.connect(server.url) as connection:
        due = connection.execute(
            "SELECT count(*) FROM cloud_runtimes.schedule_runs WHERE status = 'succeeded'"
        ).fetchone()
    assert due is not None
    assert due[0] >= 1


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(__file__))
    globals()[sys.argv[1]]()
