"""The configuration suite on every harness of the table, on watched files of every kind, and over a sidecar."""

from __future__ import annotations

from dapr_harnesses import DAPR
from harness_rows import rows
from harnesses import FILES, HARNESSES
from layotto_harnesses import LAYOTTO

from cloud_runtimes.testing import ConfigurationSuite


class TestConfiguration(ConfigurationSuite):
    harness = rows({**HARNESSES, **FILES}, beside=DAPR, beside_layotto=LAYOTTO)
