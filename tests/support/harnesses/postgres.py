"""PostgreSQL as the component of every service it has, with a clock of the server that a test sets forward."""

from __future__ import annotations

import os
import time
from functools import cached_property
from typing import Any

import pytest

from cloud_runtimes.components._net.engines import engines
from cloud_runtimes.components._schedule.runs import LeasedRuns
from cloud_runtimes.components.postgres import PostgresSettings
from cloud_runtimes.components.postgres.database import PostgresDatabase
from cloud_runtimes.components.postgres.schedule import _Runs
from cloud_runtimes.components.postgres.sweep import sweep_all
from tests.support.harnesses.clients import Clients, own_name


class PostgresHome(Clients):
    """A schema of its own in the test run's server."""

    name = "postgres"

    def __init__(self, url: str) -> None:
        self._psycopg: Any = pytest.importorskip("psycopg")
        self.url = url
        self.schema = own_name("_")
        self._schemas = [self.schema]
        self._ahead_ms = 0
        # whoever runs jobs renews its leases by a clock that goes as fast
        _Runs._clock = lambda _: time.monotonic() + self._ahead_ms / 1000  # type: ignore[method-assign]

    def config(self) -> dict[str, Any]:
        home = {"url": self.url, "schema": self.schema}
        return {"capa": {"home": home}}

    @cached_property
    def _connection(self) -> Any:
        """Kept, since a test may advance the clock often and must be faster than what looks at it."""
        return self._psycopg.connect(self.url, autocommit=True)

    def advance(self, seconds: float) -> None:
        ahead = self._ahead_ms + round(seconds * 1000)
        self._connection.execute(
            f"CREATE OR REPLACE FUNCTION {self.schema}.now_ms() RETURNS int8 LANGUAGE sql AS "
            f"'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8 + {ahead}'"
        )
        self._ahead_ms = ahead
        # members and runners sleep until something is due; they have slept so long now
        for each in engines(PostgresDatabase):
            each.notifier.wake_all()

    def sweep(self, url: str | None = None) -> None:
        """Sweep now, as the component does once a minute; ``url`` is of another account."""
        settings = PostgresSettings(url=url or self.url, schema=self.schema)
        database = PostgresDatabase.acquire(settings)
        try:
            sweep_all(database)
        finally:
            database.release()

    def store(self, kind: str = "store") -> str:
        name = super().store(kind)
        if kind == "database":  # a schema of the server, which other processes of the run use too
            name = f"{name}-{os.getpid()}"
            self._schemas.append(name)
        return name

    def close(self) -> None:
        super().close()
        _Runs._clock = LeasedRuns._clock  # type: ignore[method-assign]
        if self._schemas or "_connection" in vars(self):
            with self._connection as connection:
                connection.execute("SET client_min_messages = error")
                for schema in self._schemas:
                    self._drop(connection, schema)

    def _drop(self, connection: Any, schema: str) -> None:
        for last in (False, False, True):
            try:
                connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
                return
            except self._psycopg.errors.DeadlockDetected:  # what a cancelled call left behind is just being undone
                if last:
                    raise


class SharedHome(PostgresHome):
    """The same in one schema for all tests of the process, each with stores of its own: making one takes longer than most tests."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.schema = f"home_{os.getpid()}"
        self._schemas.clear()

    def close(self) -> None:
        if self._ahead_ms:
            self.advance(-self._ahead_ms / 1000)
        super().close()


POSTGRES: dict[str, type[PostgresHome]] = {SharedHome.name: SharedHome}
POSTGRES_JOBS: dict[str, type[PostgresHome]] = {PostgresHome.name: PostgresHome}
