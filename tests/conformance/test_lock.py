"""The lock suite on every harness of the table, on a fake without renewal, token and line, and over a sidecar."""

from __future__ import annotations

from dapr_harnesses import DAPR
from harness_rows import rows
from harnesses import HARNESSES
from layotto_harnesses import LAYOTTO
from lock_fakes import DictLockHarness

from cloud_runtimes.testing import LockSuite


class TestLock(LockSuite):
    harness = rows({**HARNESSES, DictLockHarness.name: DictLockHarness}, beside=DAPR, beside_layotto=LAYOTTO)
