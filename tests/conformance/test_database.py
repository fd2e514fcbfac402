"""The database suite on the embedded default, in a file and in memory, and on real servers and drivers by URL."""

from __future__ import annotations

import pytest

from cloud_runtimes.testing import DatabaseSuite
from tests.support.harnesses.dapr_bindings import DAPR_DATABASES, DAPR_FILES, DaprGrpcPostgres
from tests.support.harnesses.databases import DATABASES
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.rows import rows


@pytest.mark.promise("H2")
class TestDatabase(DatabaseSuite):
    harness = rows(
        HARNESSES,
        second=(MemoryHarness.name, DaprGrpcPostgres.name),
        short=(
            DatabaseSuite.test_not_declared_is_refused,
            DatabaseSuite.test_rows,
            DatabaseSuite.test_every_kind_of_column,
            DatabaseSuite.test_execute,
            DatabaseSuite.test_errors,
            DatabaseSuite.test_a_timeout_ends_the_work,
            DatabaseSuite.test_stores_and_clients,
            DatabaseSuite.test_a_transaction,
            DatabaseSuite.test_an_exception_rolls_back,
            DatabaseSuite.test_transactions_at_once,
            DatabaseSuite.test_a_stream,
        ),
        bindings=DAPR_FILES,
        postgres_url={**DATABASES, **DAPR_DATABASES, **POSTGRES},
    )
