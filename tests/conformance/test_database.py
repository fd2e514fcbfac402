"""The database suite on the embedded default, in a file and in memory, and on real servers and drivers by URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harnesses import DATABASES, HARNESSES

from cloud_runtimes.testing import DatabaseSuite, Harness


class TestDatabase(DatabaseSuite):
    @pytest.fixture(params=sorted({**HARNESSES, **DATABASES}))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness
        if request.param in DATABASES:
            harness = DATABASES[request.param](request, tmp_path)
        else:
            harness = HARNESSES[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()
