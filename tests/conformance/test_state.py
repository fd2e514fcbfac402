"""The state suite on every harness of the table, through both bridges on fakes, and over a sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dapr_harnesses import DAPR_STATE, Beside
from harnesses import FAKE_STATE, HARNESSES
from layotto_harnesses import LAYOTTO

from cloud_runtimes.testing import Harness, StateSuite

_ROWS = {**HARNESSES, **FAKE_STATE}


class TestState(StateSuite):
    @pytest.fixture(params=sorted({**_ROWS, **DAPR_STATE, **LAYOTTO}))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness
        if request.param in DAPR_STATE:
            beside: Beside = request.getfixturevalue("beside")
            harness = DAPR_STATE[request.param](beside)
        elif request.param in LAYOTTO:
            harness = LAYOTTO[request.param](request.getfixturevalue("beside_layotto"))
        else:
            harness = _ROWS[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()
