"""The schedule suite on every harness of the table, and on a fake that, like Dapr, has neither policies nor history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harnesses import HARNESSES

from cloud_runtimes.testing import Harness, ScheduleSuite

_ROWS = {**HARNESSES}


class TestSchedule(ScheduleSuite):
    @pytest.fixture(params=sorted(_ROWS))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness = _ROWS[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()
