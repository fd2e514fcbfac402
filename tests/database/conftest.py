"""A PostgreSQL server of this process, whose sessions and tables no other worker sees."""

from __future__ import annotations

from tests.support.servers import shared_server

postgres_url = shared_server("postgres:PostgresServer", workers=False)
