"""The configuration suite on every harness of the table, on watched files of every kind, and over a sidecar."""

from __future__ import annotations

from cloud_runtimes.testing import ConfigurationSuite
from tests.support.harnesses.aws import AWS
from tests.support.harnesses.dapr import DAPR
from tests.support.harnesses.embedded import HARNESSES
from tests.support.harnesses.etcd import ETCD
from tests.support.harnesses.files import FILES
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.redis import VALKEY
from tests.support.harnesses.rows import rows


class TestConfiguration(ConfigurationSuite):
    harness = rows(
        {**HARNESSES, **FILES},
        beside=DAPR,
        beside_layotto=LAYOTTO,
        etcd_server=ETCD,
        moto_url=AWS,
        nats_server=NATS,
        postgres_url=POSTGRES,
        valkey_server=VALKEY,
    )
