"""The state suite on every harness of the table, through both bridges on fakes, and over a sidecar."""

from __future__ import annotations

from dapr_harnesses import DAPR_STATE
from harness_rows import rows
from harnesses import FAKE_STATE, HARNESSES
from layotto_harnesses import LAYOTTO

from cloud_runtimes.testing import StateSuite


class TestState(StateSuite):
    harness = rows({**HARNESSES, **FAKE_STATE}, beside=DAPR_STATE, beside_layotto=LAYOTTO)
