"""The lock suite on every harness of the table, on a fake without renewal, token and line, and over a sidecar."""

from __future__ import annotations

from cloud_runtimes.testing import LockSuite
from tests.support.harnesses.dapr import DAPR
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.etcd import ETCD
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.lock_fakes import DictLockHarness
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.redis import REDIS, VALKEY, RedisHome
from tests.support.harnesses.rows import rows


class TestLock(LockSuite):
    harness = rows(
        {**HARNESSES, DictLockHarness.name: DictLockHarness},
        second=(MemoryHarness.name, RedisHome.name),
        short=(
            LockSuite.test_acquire_and_release,
            LockSuite.test_one_of_many_gets_it,
            LockSuite.test_unlock,
            LockSuite.test_expires_by_the_clock_of_the_store,
            LockSuite.test_tokens_grow,
            LockSuite.test_renew,
            LockSuite.test_hold,
            LockSuite.test_waits_for_a_release,
            LockSuite.test_contention,
            LockSuite.test_a_closed_client,
        ),
        beside=DAPR,
        beside_layotto=LAYOTTO,
        etcd_server=ETCD,
        nats_server=NATS,
        postgres_url=POSTGRES,
        redis_server=REDIS,
        valkey_server=VALKEY,
    )
