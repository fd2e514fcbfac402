"""The pub/sub suite on every harness of the table, and over a sidecar by gRPC; publishing over HTTP is in ``tests/sidecar_client``."""

from __future__ import annotations

from dapr_harnesses import DaprGrpc
from harness_rows import rows
from harnesses import HARNESSES
from layotto_harnesses import LAYOTTO

from cloud_runtimes.testing import PubSubSuite


class TestPubSub(PubSubSuite):
    harness = rows(HARNESSES, beside={DaprGrpc.name: DaprGrpc}, beside_layotto=LAYOTTO)
