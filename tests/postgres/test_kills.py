"""Clients and servers that are killed while all services work: nothing acknowledged is absent, nothing is held or run by two, and the living go on by themselves."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.postgres.pairs import PAIRS, Pair, Said
from tests.support import Figure, Rounds
from tests.support.child import Child
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).parent / "pairs.py"
_SOON = 30.0


class Worker:
    """A process that runs writers; a thread reads what it says."""

    def __init__(self, url: str, number: int, pairs: dict[str, Pair]) -> None:
        self.name = f"w{number}"
        kind = ("sync", "async")[number % 2]
        self._child = Child(SCRIPT, self.name, kind, *pairs, environment={"CLOUD_RUNTIMES_HOME": url})
        self.said: Said = []
        self.killed: float | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._child.process.stdout is not None
        for line in self._child.process.stdout:
            if line.endswith("\n"):  # one cut by the kill was not said
                self.said.append(json.loads(line))

    def proves(self, proof: str, since: float) -> bool:
        """Return whether it has said something since then."""
        for line in reversed(self.said):
            if line["at"] < since:
                return False
            if proof in line:
                return True
        return False

    def kill(self) -> None:
        if self.killed is None:
            self.killed = time.monotonic()
            self._child.process.kill()
            self._thread.join(60)
            self._child.close()


class Storm:
    """Workers on a server, and what becomes of them."""

    def __init__(self, url: str, pairs: dict[str, Pair]) -> None:
        self.url = url
        self._pairs = pairs
        self._all: list[Worker] = []
        self.client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": url}}, timeout=20)

    def begin(self, count: int) -> None:
        """Start so many workers, and wait until all goes well."""
        for pair in self._pairs.values():
            pair.prepare(self.client)
        for _ in range(count):
            self.add()
        self.recovered(0.0)

    def add(self) -> None:
        self._all.append(Worker(self.url, len(self._all), self._pairs))

    def kill_one(self) -> None:
        """Kill a worker, and start another."""
        random.choice([worker for worker in self._all if worker.killed is None]).kill()
        self.add()

    def recovered(self, since: float) -> float:
        """Wait until all that lives goes on, and return how many seconds that took."""
        began = time.monotonic()
        for name, pair in self._pairs.items():
            for proof in pair.proof:
                alive = [worker for worker in self._all if worker.killed is None]
                enough = any if pair.shared else all
                until(
                    lambda: self._whole() and enough(each.proves(proof, since) for each in alive),  # noqa: B023
                    f"{proof} of {name} again",
                    _SOON,
                )
        return time.monotonic() - began

    def _whole(self) -> bool:
        for worker in self._all:
            for line in reversed(worker.said[-20:]):
                assert "broken" not in line, line
        return True

    def end(self) -> dict[str, str]:
        """Kill all, and check what is there."""
        for worker in self._all:
            worker.kill()
        self._whole()
        lines = [{**line, "by": worker.name, "killed": worker.killed} for worker in self._all for line in worker.said]
        return {
            name: pair.check(self.client, [line for line in lines if line["pair"] == name])
            for name, pair in self._pairs.items()
        }

    def close(self) -> None:
        for worker in self._all:
            worker.kill()
        self.client.close()


@contextmanager
def storm(url: str, count: int = 2) -> Iterator[Storm]:
    workers = Storm(url, PAIRS)
    try:
        workers.begin(count)
        yield workers
    finally:
        workers.close()


class Cluster:
    """A primary and its synchronous standby, under one URL; each may become the other."""

    def __init__(self) -> None:
        settings = {"wal_retrieve_retry_interval": "200ms"}
        self.primary, self._standby = PostgresServer(**settings), PostgresServer(**settings)
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in (self.primary, self._standby))
        self.url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    def __enter__(self) -> Cluster:
        try:
            self.primary.__enter__()
            self._stand_by()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.primary.close()
        self._standby.close()

    def _stand_by(self) -> None:
        """Have a standby that holds all that is acknowledged."""
        self._standby.follow(self.primary)
        self._standby.start()
        self.primary.configure(synchronous_standby_names="standby")
        with psycopg.connect(self.primary.url, autocommit=True) as connection:
            until(lambda: connection.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone())

    def fail_over(self) -> None:
        """Kill the primary, and have the standby take over; what was the primary follows it."""
        self.primary.kill()
        self._standby.promote()
        self._standby.configure(synchronous_standby_names=None)
        self.primary, self._standby = self._standby, self.primary
        self._stand_by()


def client_dies(_: Cluster, storm: Storm) -> None:
    storm.kill_one()


def connections_die(cluster: Cluster, _: Storm) -> None:
    with psycopg.connect(cluster.primary.url, autocommit=True) as connection:
        for _ in range(5):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            time.sleep(random.uniform(0.0, 0.1))


def server_dies(cluster: Cluster, _: Storm) -> None:
    cluster.primary.kill()
    time.sleep(random.uniform(0.0, 0.5))
    cluster.primary.start()


def postmaster_dies(cluster: Cluster, _: Storm) -> None:
    cluster.primary.kill_postmaster()
    cluster.primary.start()


def server_restarts(cluster: Cluster, _: Storm) -> None:
    cluster.primary.restart()


def server_hangs(cluster: Cluster, _: Storm) -> None:
    cluster.primary.signal(signal.SIGSTOP)
    time.sleep(0.5)
    cluster.primary.signal(signal.SIGCONT)


def standby_takes_over(cluster: Cluster, _: Storm) -> None:
    cluster.fail_over()


FAULTS = [client_dies, connections_die, server_dies, standby_takes_over, server_restarts, server_hangs, postmaster_dies]


@pytest.mark.promise("A2", "A8", "B1")
def test_nothing_acknowledged_is_lost(rounds: Rounds, figure: Figure) -> None:
    count, slowest = rounds(1, 20), 0.0
    with Cluster() as cluster, storm(cluster.url, rounds(2, 4)) as workers:
        faults = FAULTS[: rounds(4, len(FAULTS))]
        for _ in range(count):
            for fault in random.sample(faults, len(faults)):
                time.sleep(random.uniform(0.1, 0.3))
                fault(cluster, workers)
                slowest = max(slowest, workers.recovered(time.monotonic()))
        for name, summary in workers.end().items():
            figure(f"PostgreSQL with a standby, {len(faults)} faults, {count} times each: {name}", summary)
        figure("PostgreSQL with a standby: from the end of a fault until everybody goes on", f"at most {slowest:.1f} s")
