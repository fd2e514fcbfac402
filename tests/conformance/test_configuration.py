"""The configuration suite on every harness of the table, on watched files of every kind, and over a sidecar."""

from __future__ import annotations

from cloud_runtimes.testing import ConfigurationSuite
from tests.support.harnesses.aws import AWS
from tests.support.harnesses.dapr import DAPR
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.etcd import ETCD
from tests.support.harnesses.files import FILES, YamlFileHarness
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.redis import VALKEY
from tests.support.harnesses.rows import rows


class TestConfiguration(ConfigurationSuite):
    harness = rows(
        {**HARNESSES, **FILES},
        second=(MemoryHarness.name, YamlFileHarness.name),
        short=(
            ConfigurationSuite.test_get,
            ConfigurationSuite.test_odd_values,
            ConfigurationSuite.test_odd_keys,
            ConfigurationSuite.test_stores_and_clients,
            ConfigurationSuite.test_save_and_delete,
            ConfigurationSuite.test_a_save_is_one_change,
            ConfigurationSuite.test_a_key_that_is_not_there_yet,
            ConfigurationSuite.test_current_and_closing,
        ),
        beside=DAPR,
        beside_layotto=LAYOTTO,
        etcd_server=ETCD,
        moto_url=AWS,
        nats_server=NATS,
        postgres_url=POSTGRES,
        valkey_server=VALKEY,
    )
