"""Peers of a home on PostgreSQL: psycopg by hand, procrastinate, PgQueuer; processor time of the server's processes."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import orjson
import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from benches.bench_envelope import by_hand
from tests.support.postgres import PostgresServer, processor_seconds

__all__ = ["BATCH", "ByHand", "Jobs", "PgQueuerJobs", "ProcrastinateJobs", "Server", "served"]

BATCH = 10_000
"""Events of one commit of a peer that publishes: as many as ours has when it is in a hurry."""
_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_ROW = struct.Struct(">hi")
_END = b"\xff\xff"


class Server:
    """A server that syncs each commit."""

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT pg_read_file('postmaster.pid'), version(), current_setting('fsync') || ' ' || current_setting('synchronous_commit')"
            ).fetchone()
        assert row is not None
        assert row[2] == "on on"
        self._postmaster = int(row[0].split("\n")[0])
        self.version = " ".join(row[1].split()[:2])

    @property
    def clocks(self) -> dict[str, Callable[[], float]]:
        """Clocks for the measurement; goals are for the first."""
        return {
            "client and server CPU": lambda: time.process_time() + processor_seconds(self._postmaster),
            "client CPU": time.process_time,
            "wall clock": time.perf_counter,
        }


@contextmanager
def served() -> Iterator[Server]:
    """Start a server, and let it write as much log as it keeps: from then on it uses files again, as one does that has run for an hour."""
    with PostgresServer(fsync="on", synchronous_commit="on", min_wal_size="1GB", max_wal_size="2GB") as server:
        url = server.url
        with psycopg.connect(url, autocommit=True) as connection:
            for _ in range(2):
                connection.execute(
                    "SELECT count(pg_logical_emit_message(false, '', repeat('x', 1000000))) FROM generate_series(1, 1000)"
                )
                connection.execute("CHECKPOINT")
        yield Server(url)


class ByHand:
    """A queue and a key-value table as a good engineer writes them with psycopg: binary, prepared, one round trip where one is enough."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        for name in ("copied", "inserted", "queue", "relaxed"):
            self._make(f"CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL)")
        self._make("CREATE TABLE state (key text PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 80)")

    def _make(self, sql: str) -> None:
        self.connection.execute(sql.encode())

    def copy(self, events: Sequence[Any], table: str = "copied") -> None:
        """COPY binary, one row for each event, a commit for each batch."""
        with self.connection.cursor() as cursor:
            for start in range(0, len(events), BATCH):
                parts = [_HEAD]
                for event in events[start : start + BATCH]:
                    body = by_hand(event)
                    parts += (_ROW.pack(1, len(body)), body)
                parts.append(_END)
                with cursor.copy(f"COPY {table} (body) FROM STDIN (FORMAT binary)".encode()) as copy:
                    copy.write(b"".join(parts))

    def executemany(self, events: Sequence[Any]) -> None:
        """The same by `executemany`, which sends them in a pipeline."""
        with self.connection.cursor() as cursor:
            for start in range(0, len(events), BATCH):
                rows = [(by_hand(event),) for event in events[start : start + BATCH]]
                with self.connection.transaction():
                    cursor.executemany("INSERT INTO inserted (body) VALUES (%b)", rows)

    def take(self, table: str, count: int) -> list[Any]:
        """Take events off a queue for good, and commit."""
        sql = (
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) "
            "RETURNING body"
        )
        rows = self.connection.execute(sql.encode(), (count,), prepare=True, binary=True).fetchall()
        return [orjson.loads(body)["data"] for (body,) in rows]

    def rows(self, table: str) -> int:
        """Count."""
        row = self.connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        """Close."""
        self.connection.close()


GET = "SELECT value FROM state WHERE key = %s"
SAVE = "INSERT INTO state VALUES (%s, %b) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class StateByHand:
    """`get` and `save` over psycopg_pool, as many connections as ours has, for threads or a loop."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, size: int = 10) -> None:
        options = {"kwargs": {"autocommit": True, "prepare_threshold": 0}, "min_size": size, "max_size": size}
        self._loop = loop
        self.pool = ConnectionPool(url, open=True, **options)  # type: ignore[arg-type]
        self.pool.wait()
        self._async: Any = AsyncConnectionPool(url, open=False, **options)  # type: ignore[arg-type]
        loop.run_until_complete(self._async.open(wait=True))

    def get(self, key: str) -> Any:
        """Read and decode."""
        with self.pool.connection() as connection:
            row = connection.execute(GET, (key,), binary=True).fetchone()
        return None if row is None else orjson.loads(row[0])

    def save(self, key: str, value: Any) -> None:
        """Encode and store."""
        with self.pool.connection() as connection:
            connection.execute(SAVE, (key, orjson.dumps(value)))

    async def get_async(self, key: str) -> Any:
        """Asynchronous `get`."""
        async with self._async.connection() as connection:
            row = await (await connection.execute(GET, (key,), binary=True)).fetchone()
        return None if row is None else orjson.loads(row[0])

    async def save_async(self, key: str, value: Any) -> None:
        """Asynchronous `save`."""
        async with self._async.connection() as connection:
            await connection.execute(SAVE, (key, orjson.dumps(value)))

    def close(self) -> None:
        """Close."""
        self.pool.close()
        self._loop.run_until_complete(self._async.close())


def in_flight(call: Callable[[], object], count: int, flight: int, pool: ThreadPoolExecutor) -> Callable[[], None]:
    """Return what makes so many calls, so many of them at once, in threads."""

    def some(share: int) -> None:
        for _ in range(share):
            call()

    def run() -> None:
        if flight == 1:
            some(count)
        else:
            for done in [pool.submit(some, count // flight) for _ in range(flight)]:
                done.result()

    return run


def in_flight_async(
    call: Callable[[], Awaitable[object]], count: int, flight: int, loop: asyncio.AbstractEventLoop
) -> Callable[[], None]:
    """The same in an event loop."""

    async def some(share: int) -> None:
        for _ in range(share):
            await call()

    async def all_of_them() -> None:
        await asyncio.gather(*(some(count // flight) for _ in range(flight)))

    return lambda: loop.run_until_complete(all_of_them())


class Jobs:
    """A library of jobs: one for each event, whose handler counts it."""

    name: str

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.handled = 0
        self._loop = loop

    def enqueue(self, events: Sequence[Any]) -> None:
        """Enqueue them in one call, as each of them offers."""
        self._loop.run_until_complete(self._enqueue(events))

    def process(self) -> None:
        """Process all that there is with a worker of the library's own defaults."""
        self._loop.run_until_complete(self._process())

    def close(self) -> None:
        """Close."""
        self._loop.run_until_complete(self._close())

    async def _enqueue(self, events: Sequence[Any]) -> None:
        raise NotImplementedError

    async def _process(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError


class ProcrastinateJobs(Jobs):
    """procrastinate."""

    name = "procrastinate"

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        from procrastinate import App, PsycopgConnector

        super().__init__(loop)
        self._app = App(connector=PsycopgConnector(conninfo=url))

        @self._app.task(name="count")
        async def count(event: Any) -> None:
            self.handled += 1

        self._task = count
        loop.run_until_complete(self._open())

    async def _open(self) -> None:
        await self._app.open_async()
        if not await self._app.check_connection_async():  # no schema yet
            await self._app.schema_manager.apply_schema_async()

    async def _enqueue(self, events: Sequence[Any]) -> None:
        await self._task.batch_defer_async(*({"event": event} for event in events))

    async def _process(self) -> None:
        await self._app.run_worker_async(wait=False)

    async def _close(self) -> None:
        await self._app.close_async()


class PgQueuerJobs(Jobs):
    """PgQueuer, over asyncpg as its documentation has it."""

    name = "PgQueuer"

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        loop.run_until_complete(self._open(url))

    async def _open(self, url: str) -> None:
        import asyncpg
        from pgqueuer.queries import Queries

        self._connection = await asyncpg.connect(url)
        self._queries = Queries.from_asyncpg_connection(self._connection)
        if not await self._queries.schema_is_installed():
            await self._queries.install()

    async def _enqueue(self, events: Sequence[Any]) -> None:
        bodies: list[bytes | None] = [orjson.dumps(event) for event in events]
        await self._queries.enqueue(["count"] * len(bodies), bodies, [0] * len(bodies))

    async def _process(self) -> None:
        from pgqueuer import PgQueuer
        from pgqueuer.types import QueueExecutionMode

        worker = PgQueuer.from_asyncpg_connection(self._connection)

        @worker.entrypoint("count")
        async def count(job: Any) -> None:
            orjson.loads(job.payload)
            self.handled += 1

        await worker.qm.run(mode=QueueExecutionMode.drain)

    async def _close(self) -> None:
        await self._connection.close()
