"""Jobs that several machines share: what holders leave when they die, and clocks that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.etcd.messages import pack, range_of, read_range, under
from cloud_runtimes.components.etcd.schedule import EtcdSchedule
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.schedule import Outcome
from tests.support.etcd import EtcdServer, asked
from tests.support.harnesses.etcd import EtcdClock
from tests.support.leased_jobs import ClaimedJobs, Member

RANGE = "/etcdserverpb.KV/Range"


class Ending(EtcdClock):
    """Leases end too, of whom the time was long enough."""

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        if seconds < 15:
            return
        prefix = f"{self.prefix}/schedule/suite/m/".encode()
        for item in read_range(asked(self.server.url, RANGE, range_of(prefix, under(prefix)))).items:
            asked(self.server.url, "/etcdserverpb.Lease/LeaseRevoke", pack((1, item.lease)))


@pytest.fixture
def clock(etcd_server: EtcdServer) -> Iterator[Ending]:
    instance = Ending(etcd_server)
    yield instance
    instance.close()


class TestJobs(ClaimedJobs):
    driver = EtcdSchedule
    durable: ClassVar = {}


@pytest.mark.promise("D1")
def test_a_clock_that_is_wrong_takes_nothing(clock: Ending, member: Member) -> None:
    client = clock.client()
    client.schedule.schedule_job("j", due_time=0)
    holder, other = member(), member()
    (run,) = holder.exchange((), 8)
    for seconds in (14.9, 1e6, -2e6):
        EtcdClock.advance(clock, seconds)
        assert not other.exchange((), 8)
    holder.exchange([Outcome(run.token)], 0)
    (record,) = client.schedule.list_runs("j")
    assert (record.status, record.attempt) == ("succeeded", 1)


def test_records_of_runs_end(clock: Ending) -> None:
    """As many as the settings say, the latest; a job of the name goes on behind them."""
    config = {"capa": {"home": {"url": clock.server.url, "prefix": clock.prefix, "history_runs": 3, "history": 60}}}
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        for _ in range(2):
            client.schedule.schedule_job("j", due_time=0)
            driver = client._context.runtime().driver("schedule", "default")
            op = Operation(Method("schedule", "run", repeatable=True), "s", 5.0)
            source: Any = driver.join(op, lambda: frozenset("j"))  # type: ignore[attr-defined]
            ids = [client.schedule.run_now("j") for _ in range(3)]
            for _ in range(4):
                for run in source.exchange((), 8):
                    source.exchange([Outcome(run.token)], 0)
            source.close(())
            run_ids = {record.run_id for record in client.schedule.list_runs("j")}
            assert len(run_ids) == 3
            assert len(run_ids & set(ids)) >= 2
            client.schedule.delete_job("j")
