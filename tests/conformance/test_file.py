"""The file suite on every harness of the table, by the binding of a sidecar, and over a Layotto."""

from __future__ import annotations

from dapr_bindings import DAPR_FILES
from harness_rows import rows
from harnesses import HARNESSES
from layotto_harnesses import LAYOTTO

from cloud_runtimes.testing import FileSuite


class TestFile(FileSuite):
    harness = rows(HARNESSES, bindings=DAPR_FILES, beside_layotto=LAYOTTO)
