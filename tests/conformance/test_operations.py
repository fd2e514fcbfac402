"""``client.admin`` for locks, services, jobs and stores, on every harness of the table, and over a sidecar, which tells none of it."""

from __future__ import annotations

from cloud_runtimes.testing import OperationsSuite
from tests.support.harnesses.dapr import DaprGrpc
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.etcd import EtcdClock
from tests.support.harnesses.nats import NatsClock
from tests.support.harnesses.postgres import POSTGRES_JOBS
from tests.support.harnesses.redis import VALKEY
from tests.support.harnesses.rows import rows


class TestOperations(OperationsSuite):
    harness = rows(
        HARNESSES,
        second=(MemoryHarness.name,),
        short=(OperationsSuite.test_locks, OperationsSuite.test_services, OperationsSuite.test_jobs),
        beside={DaprGrpc.name: DaprGrpc},
        etcd_server={EtcdClock.name: EtcdClock},
        nats_server={NatsClock.name: NatsClock},
        postgres_url=POSTGRES_JOBS,
        valkey_server=VALKEY,
    )
