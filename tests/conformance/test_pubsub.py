"""The pub/sub suite on every harness of the table, and over a sidecar by gRPC; publishing over HTTP is in ``tests/sidecar_client``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dapr_harnesses import Beside, DaprGrpc
from harnesses import HARNESSES
from layotto_harnesses import LAYOTTO

from cloud_runtimes.testing import Harness, PubSubSuite


class TestPubSub(PubSubSuite):
    @pytest.fixture(params=sorted({*HARNESSES, DaprGrpc.name, *LAYOTTO}))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness
        if request.param == DaprGrpc.name:
            beside: Beside = request.getfixturevalue("beside")
            harness = DaprGrpc(beside)
        elif request.param in LAYOTTO:
            harness = LAYOTTO[request.param](request.getfixturevalue("beside_layotto"))
        else:
            harness = HARNESSES[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()
