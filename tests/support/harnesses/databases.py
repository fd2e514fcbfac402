"""Databases by their URLs, beside the embedded default."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from tests.support.harnesses.clients import Clients

_SERVERS: set[str] = set()
"""Servers on which this process has made its databases."""


class UrlHarness(Clients):
    """A database by its URL; two store names are declared."""

    stores: ClassVar[tuple[str, ...]] = ("first", "second")

    def __init__(self, urls: Sequence[str]) -> None:
        tables = {name: {"component": "sqlalchemy", "url": url} for name, url in zip(self.stores, urls, strict=True)}
        self._config = {"database": tables}
        self._free = list(self.stores)

    def store(self, kind: str = "store") -> str:
        return self._free.pop(0)

    def config(self) -> dict[str, Any]:
        return self._config


class PostgresHarness(UrlHarness):
    """PostgreSQL, by psycopg in both APIs."""

    name = "postgresql"
    driver: ClassVar[str] = "psycopg"

    def __init__(self, url: str) -> None:
        self._psycopg = pytest.importorskip("psycopg")
        pytest.importorskip(self.driver)
        names = [f"{name}_{os.getpid()}" for name in self.stores]
        if url not in _SERVERS:
            _SERVERS.add(url)
            with self._psycopg.connect(url, autocommit=True) as connection:
                for name in names:
                    connection.execute(f"CREATE DATABASE {name}")
        self._urls = [url.rpartition("/")[0] + f"/{name}" for name in names]
        super().__init__([each.replace("postgresql", self._scheme(), 1) for each in self._urls])

    def store(self, kind: str = "store") -> str:
        name = super().store(kind)
        with self._psycopg.connect(self._urls[self.stores.index(name)], autocommit=True) as connection:
            # a lock that a test before left behind fails here
            connection.execute("SET lock_timeout = '10s'")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return name

    def _scheme(self) -> str:
        return "postgresql+psycopg"


class AsyncpgHarness(PostgresHarness):
    """PostgreSQL, by an async driver."""

    name = "postgresql+asyncpg"
    driver = "asyncpg"

    def _scheme(self) -> str:
        return "postgresql+asyncpg"


# databases beside the embedded default, which is in HARNESSES
DATABASES: dict[str, type[Any]] = {harness.name: harness for harness in (AsyncpgHarness, PostgresHarness)}
