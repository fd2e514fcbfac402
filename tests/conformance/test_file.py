"""The file suite on every harness of the table, by the binding of a sidecar, and over a Layotto."""

from __future__ import annotations

from cloud_runtimes.testing import FileSuite
from tests.support.harnesses.dapr_bindings import DAPR_FILES
from tests.support.harnesses.embedded import HARNESSES
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.objectstore import OBJECTSTORE
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.rows import rows


class TestFile(FileSuite):
    harness = rows(
        HARNESSES,
        bindings=DAPR_FILES,
        beside_layotto=LAYOTTO,
        nats_server=NATS,
        objectstore_url=OBJECTSTORE,
        postgres_url=POSTGRES,
    )
