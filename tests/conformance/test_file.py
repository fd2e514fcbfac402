"""The file suite on every harness of the table."""

from __future__ import annotations

import pytest

from cloud_runtimes.testing import FileSuite, Harness


class TestFile(FileSuite):
    @pytest.fixture
    def harness(self, any_harness: Harness) -> Harness:
        return any_harness
