"""The lock suite on every harness of the table, on a fake without renewal, token and line, and over a sidecar."""

from __future__ import annotations

from cloud_runtimes.testing import LockSuite
from tests.support.harnesses.dapr import DAPR
from tests.support.harnesses.embedded import HARNESSES
from tests.support.harnesses.etcd import ETCD
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.lock_fakes import DictLockHarness
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.redis import REDIS, VALKEY
from tests.support.harnesses.rows import rows


class TestLock(LockSuite):
    harness = rows(
        {**HARNESSES, DictLockHarness.name: DictLockHarness},
        beside=DAPR,
        beside_layotto=LAYOTTO,
        etcd_server=ETCD,
        nats_server=NATS,
        postgres_url=POSTGRES,
        redis_server=REDIS,
        valkey_server=VALKEY,
    )
