"""The file suite on every harness of the table, by the binding of a sidecar, and over a Layotto."""

from __future__ import annotations

from cloud_runtimes.testing import FileSuite
from tests.support.harnesses.dapr_bindings import DAPR_FILES
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.objectstore import OBJECTSTORE
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.rows import rows


class TestFile(FileSuite):
    harness = rows(
        HARNESSES,
        second=(MemoryHarness.name,),
        short=(
            FileSuite.test_round_trip,
            FileSuite.test_a_source_that_fails_stores_nothing,
            FileSuite.test_attributes,
            FileSuite.test_of_many_creators_one_wins,
            FileSuite.test_names_are_literal,
            FileSuite.test_list,
            FileSuite.test_move,
            FileSuite.test_a_handle_writes,
            FileSuite.test_a_reader_keeps_its_version,
            FileSuite.test_readers_never_see_a_mixture,
        ),
        bindings=DAPR_FILES,
        beside_layotto=LAYOTTO,
        nats_server=NATS,
        objectstore_url=OBJECTSTORE,
        postgres_url=POSTGRES,
    )
