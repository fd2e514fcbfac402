"""The configuration suite on every harness of the table, on watched files of every kind, and over a sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dapr_harnesses import DAPR, Beside
from harnesses import FILES, HARNESSES
from layotto_harnesses import LAYOTTO

from cloud_runtimes.testing import ConfigurationSuite, Harness

_ROWS = {**HARNESSES, **FILES}


class TestConfiguration(ConfigurationSuite):
    @pytest.fixture(params=sorted({**_ROWS, **DAPR, **LAYOTTO}))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness
        if request.param in DAPR:
            beside: Beside = request.getfixturevalue("beside")
            harness = DAPR[request.param](beside)
        elif request.param in LAYOTTO:
            harness = LAYOTTO[request.param](request.getfixturevalue("beside_layotto"))
        else:
            harness = _ROWS[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()
