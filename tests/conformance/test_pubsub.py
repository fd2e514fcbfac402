"""The pub/sub suite on every harness of the table, and over a sidecar by gRPC; publishing over HTTP is in ``tests/sidecar_client``."""

from __future__ import annotations

from cloud_runtimes.testing import PubSubSuite
from tests.support.harnesses.dapr import DaprGrpc
from tests.support.harnesses.embedded import HARNESSES
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.redis import REDIS, VALKEY
from tests.support.harnesses.rows import rows


class TestPubSub(PubSubSuite):
    harness = rows(
        HARNESSES,
        beside={DaprGrpc.name: DaprGrpc},
        beside_layotto=LAYOTTO,
        postgres_url=POSTGRES,
        redis_server=REDIS,
        valkey_server=VALKEY,
    )
