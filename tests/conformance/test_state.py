"""The state suite on every harness of the table, through both bridges on fakes, and over a sidecar."""

from __future__ import annotations

import pytest

from cloud_runtimes.testing import StateSuite
from tests.support.harnesses.dapr import DAPR_STATE, DaprBoth
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.etcd import ETCD
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.objectstore import OBJECTSTORE_STATE
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.redis import IN_DAPRS, REDIS, VALKEY, RedisHome
from tests.support.harnesses.rows import rows
from tests.support.harnesses.state_fakes import FAKE_STATE


@pytest.mark.promise("H3")
class TestState(StateSuite):
    harness = rows(
        {**HARNESSES, **FAKE_STATE},
        second=(MemoryHarness.name, DaprBoth.name, RedisHome.name),
        short=(
            StateSuite.test_stores_and_clients,
            StateSuite.test_undeclared_features_are_refused,
            StateSuite.test_keys_are_literal,
            StateSuite.test_bulk,
            StateSuite.test_list_keys,
            StateSuite.test_etag,
            StateSuite.test_concurrent_compare_and_set,
            StateSuite.test_fence,
            StateSuite.test_ttl,
            StateSuite.test_transaction,
            StateSuite.test_a_failed_transaction_rolls_back,
            StateSuite.test_a_transaction_publishes,
            StateSuite.test_an_outbox_is_in_the_order_of_commits,
        ),
        beside=DAPR_STATE,
        beside_layotto=LAYOTTO,
        etcd_server=ETCD,
        nats_server=NATS,
        objectstore_url=OBJECTSTORE_STATE,
        postgres_url=POSTGRES,
        redis_server=REDIS,
        valkey_server={**VALKEY, **IN_DAPRS},
    )
