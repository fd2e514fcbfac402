"""The configuration suite on every harness of the table, and on watched files of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harnesses import FILES, HARNESSES

from cloud_runtimes.testing import ConfigurationSuite, Harness

_ROWS = {**HARNESSES, **FILES}


class TestConfiguration(ConfigurationSuite):
    @pytest.fixture(params=sorted(_ROWS))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness = _ROWS[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()
