"""The secret suite on every harness of its table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from secret_harnesses import SECRET_HARNESSES

from cloud_runtimes.testing import SecretHarness, SecretSuite
from cloud_runtimes.testing.canary import Canary


class TestSecret(SecretSuite):
    @pytest.fixture(params=sorted(SECRET_HARNESSES))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, canary: Canary
    ) -> Iterator[SecretHarness]:
        sources = canary.declare(tmp_path / "sources")
        sources.mkdir()
        harness: SecretHarness = SECRET_HARNESSES[request.param](monkeypatch, sources)
        yield harness
        harness.close()
