"""The state suite on every harness of the table, through both bridges on fakes, and over a sidecar."""

from __future__ import annotations

from cloud_runtimes.testing import StateSuite
from tests.support.harnesses.dapr import DAPR_STATE
from tests.support.harnesses.embedded import HARNESSES
from tests.support.harnesses.etcd import ETCD
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.objectstore import OBJECTSTORE_STATE
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.redis import IN_DAPRS, REDIS, VALKEY
from tests.support.harnesses.rows import rows
from tests.support.harnesses.state_fakes import FAKE_STATE


class TestState(StateSuite):
    harness = rows(
        {**HARNESSES, **FAKE_STATE},
        beside=DAPR_STATE,
        beside_layotto=LAYOTTO,
        etcd_server=ETCD,
        nats_server=NATS,
        objectstore_url=OBJECTSTORE_STATE,
        postgres_url=POSTGRES,
        redis_server=REDIS,
        valkey_server={**VALKEY, **IN_DAPRS},
    )
