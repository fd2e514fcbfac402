"""The database suite on the embedded default, in a file and in memory, and on real servers and drivers by URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.testing import DatabaseSuite, Harness
from tests.support.harnesses.dapr_bindings import DAPR_DATABASES, DAPR_FILES
from tests.support.harnesses.databases import DATABASES
from tests.support.harnesses.embedded import HARNESSES
from tests.support.harnesses.postgres import POSTGRES

_DATABASES = {**DATABASES, **DAPR_DATABASES}


class TestDatabase(DatabaseSuite):
    @pytest.fixture(params=sorted({**HARNESSES, **_DATABASES, **DAPR_FILES, **POSTGRES}))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness
        if request.param in _DATABASES:
            harness = _DATABASES[request.param](request, tmp_path)
        elif request.param in POSTGRES:
            harness = POSTGRES[request.param](request.getfixturevalue("postgres_url"))
        elif request.param in DAPR_FILES:
            harness = DAPR_FILES[request.param](request.getfixturevalue("bindings"))
        else:
            harness = HARNESSES[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()
