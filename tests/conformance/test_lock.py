"""The lock suite on every harness of the table."""

from __future__ import annotations

import pytest

from cloud_runtimes.testing import Harness, LockSuite


class TestLock(LockSuite):
    @pytest.fixture
    def harness(self, any_harness: Harness) -> Harness:
        return any_harness
