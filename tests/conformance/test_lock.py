"""The lock suite on every harness of the table, on a fake without renewal, token and line, and over a sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dapr_harnesses import DAPR, Beside
from harnesses import HARNESSES
from layotto_harnesses import LAYOTTO
from lock_fakes import DictLockHarness

from cloud_runtimes.testing import Harness, LockSuite

_ROWS = {**HARNESSES, DictLockHarness.name: DictLockHarness}


class TestLock(LockSuite):
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
