"""The file suite on every harness of the table, by the binding of a sidecar, and over a Layotto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dapr_bindings import DAPR_FILES
from harnesses import HARNESSES
from layotto_harnesses import LAYOTTO

from cloud_runtimes.testing import FileSuite, Harness


class TestFile(FileSuite):
    @pytest.fixture(params=sorted({**HARNESSES, **DAPR_FILES, **LAYOTTO}))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness
        if request.param in DAPR_FILES:
            harness = DAPR_FILES[request.param](request.getfixturevalue("bindings"))
        elif request.param in LAYOTTO:
            harness = LAYOTTO[request.param](request.getfixturevalue("beside_layotto"))
        else:
            harness = HARNESSES[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()
