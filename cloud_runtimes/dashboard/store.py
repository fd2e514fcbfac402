"""Where the viewer keeps what it received: an SQLite file of its own, beside the embedded store.

Telemetry is bulky and may be thrown away, so it shares neither the file nor the write gate with an application's data. One process has the file open, which a lock beside it sees to. Each request is a *batch*: what it holds is written, and later evicted, in one transaction, the oldest batch first.

Every record that came is counted: received = kept + evicted + rejected + repeated, for each signal, in every snapshot.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from .._core.clocks import Clocks
from .._core.home import check_file_system, is_memory, make_home
from .._core.os_errors import explain_os_error
from .._core.os_locks import try_lock
from .._core.sqlite_failures import explain
from ..errors import CloudRuntimesError, InvalidArgumentError, UnavailableError, UnsupportedError
from .rows import Batch, Point

DATABASE: Final = "telemetry.db"
MAX_BYTES: Final = 256 << 20
LEAST_BYTES: Final = 1 << 20
MAX_AGE: Final = 7 * 86_400.0
"""Seconds."""
MAX_SPANS: Final = 10_000
"""Of a trace that are kept."""
_APPLICATION: Final = 0x43525456  # "CRTV"
_VERSION: Final = 1
_ROOM: Final = 0.9
"""Down to this part of the limit is evicted at once, so that not every request evicts."""
# numbers are never used twice: a batch is dropped by the last number that each table had with it
_SCHEMA: Final = (
    "CREATE TABLE batches(id INTEGER PRIMARY KEY AUTOINCREMENT, received INT, spans INT, logs INT, points INT)",
    "CREATE INDEX batches_received ON batches(received)",
    "CREATE TABLE sources(id INTEGER PRIMARY KEY, service TEXT, body BLOB UNIQUE, batch INT)",
    (
        "CREATE TABLE spans(id INTEGER PRIMARY KEY AUTOINCREMENT, source INT, trace BLOB, span BLOB, parent BLOB, name TEXT, kind INT, "
        "start INT, duration INT, status INT, message TEXT, detail BLOB)"
    ),
    "CREATE UNIQUE INDEX spans_trace ON spans(trace, span)",
    (
        "CREATE TABLE traces(trace BLOB PRIMARY KEY, start INT, duration INT, spans INT, errors INT, services INT, "
        "rooted INT, service TEXT, name TEXT) WITHOUT ROWID"
    ),
    "CREATE INDEX traces_start ON traces(start)",
    (
        "CREATE TABLE logs(id INTEGER PRIMARY KEY AUTOINCREMENT, source INT, time INT, severity INT, level TEXT, body TEXT, trace BLOB, "
        "span BLOB, detail BLOB)"
    ),
    "CREATE INDEX logs_time ON logs(time)",
    "CREATE INDEX logs_trace ON logs(trace) WHERE trace IS NOT NULL",
    (
        "CREATE TABLE series(id INTEGER PRIMARY KEY, source INT, name TEXT, kind TEXT, unit TEXT, attributes BLOB, "
        "description TEXT, batch INT)"
    ),
    "CREATE UNIQUE INDEX series_identity ON series(name, source, kind, unit, attributes)",
    "CREATE TABLE points(id INTEGER PRIMARY KEY AUTOINCREMENT, series INT, time INT, value REAL, count INT, detail BLOB)",
    "CREATE INDEX points_series ON points(series, time)",
    "CREATE TABLE counters(signal TEXT, what TEXT, number INT, PRIMARY KEY (signal, what)) WITHOUT ROWID",
)
_TABLES: Final = {"traces": "spans", "logs": "logs", "metrics": "points"}
_TRACE: Final = """INSERT OR REPLACE INTO traces
SELECT :trace, min(s.start), max(s.start + s.duration) - min(s.start), count(*), sum(s.status = 2),
    count(DISTINCT o.service), r.parent IS NULL, p.service, r.name
FROM spans s JOIN sources o ON o.id = s.source
JOIN (SELECT source, parent, name FROM spans WHERE trace = :trace ORDER BY parent IS NOT NULL, start, id LIMIT 1) r
JOIN sources p ON p.id = r.source
WHERE s.trace = :trace GROUP BY s.trace"""


class Store:
    """The database; opened by `open`, used from any thread.

    Args:
        home: the folder, or ``:memory:``.
        max_bytes: of the database; the oldest batches are evicted beyond it.
        max_age: seconds since a batch was received; older ones are evicted.
        clocks: the wall clock counts.
    """

    def __init__(self, home: str, *, max_bytes: int = MAX_BYTES, max_age: float = MAX_AGE, clocks: Clocks) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < LEAST_BYTES:
            raise InvalidArgumentError(f"max_bytes={max_bytes!r}: give at least {LEAST_BYTES:,} bytes")
        self.path = home if is_memory(home) else str(Path(home) / DATABASE)
        self._max_bytes = max_bytes
        self._max_age = int(max_age * 1000)
        self._clocks = clocks
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._owner = -1
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    # -- opening and closing ----------------------------------------------

    def open(self) -> None:
        """Open the database, making it if need be, and evict what is too old or too much.

        Raises:
            CloudRuntimesError: it cannot be used, or another process has it; names the remedy.
        """
        try:
            if is_memory(self.path):
                self._writer = self._reader = self._connect("file::memory:")
                self._reading = self._lock
            else:
                self._open_file()
            self._prepare()
            with self._lock:
                self._transaction(self._evict)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise explain(error, self.path) from error
            if isinstance(error, OSError) and not isinstance(error, CloudRuntimesError):
                raise explain_os_error(error, Path(self.path)) from error
            raise

    def _open_file(self) -> None:
        folder = Path(self.path).parent
        make_home(folder)
        check_file_system(folder)
        self._owner = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not try_lock(self._owner):
            raise UnavailableError(
                f"another process receives telemetry into {self.path}: end it, or give another --home", retryable=False
            )
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # else as open as the umask says
        self._writer = self._connect(Path(self.path).as_uri() + "?mode=rw")
        self._reader = self._connect(Path(self.path).as_uri() + "?mode=rw")

    def _connect(self, uri: str) -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)

    def _prepare(self) -> None:
        assert self._writer is not None
        run = self._writer.execute
        version, application = run("PRAGMA user_version").fetchone()[0], run("PRAGMA application_id").fetchone()[0]
        fresh = not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not fresh and (version, application) != (_VERSION, _APPLICATION):
            raise UnsupportedError(
                f"{self.path} is of another release or program: move it away, or give another --home"
            )
        if fresh:
            run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL").close()
        run("PRAGMA journal_size_limit = 16777216").close()
        run("PRAGMA synchronous = NORMAL")  # a power cut loses the last requests, and nothing else
        if fresh:
            self._transaction(self._create)

    def _create(self) -> None:
        assert self._writer is not None
        for statement in _SCHEMA:
            self._writer.execute(statement)
        self._writer.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._writer.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Close it; does nothing when it is closed."""
        with self._lock:
            for connection in {self._writer, self._reader} - {None}:
                assert connection is not None
                connection.close()
            self._writer = self._reader = None
            if self._owner >= 0:
                os.close(self._owner)
                self._owner = -1

    # -- reading ----------------------------------------------------------

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one SELECT and return its rows."""
        with self._reading:
            if self._reader is None:
                raise UnavailableError(f"{self.path} is closed")
            try:
                return self._reader.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise explain(error, self.path) from error

    def used(self) -> int:
        """Return the bytes in use in the database."""
        pages, free, size = self.query(
            "SELECT p.page_count, f.freelist_count, s.page_size FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s"
        )[0]
        return int((pages - free) * size)

    # -- writing ----------------------------------------------------------

    def add(self, signal: str, batch: Batch) -> Batch:
        """Keep what a request held in one transaction, and return it without spans of traces that are too large.

        Raises:
            CloudRuntimesError: it could not be written.
        """
        with self._lock:
            if self._writer is None:
                raise UnavailableError(f"{self.path} is closed")
            try:
                if signal == "traces":
                    batch = self._within_limits(batch)
                self._transaction(lambda: self._add(signal, batch))
                self._shrink()
                return batch
            except sqlite3.Error as error:
                raise explain(error, self.path) from error

    def _within_limits(self, batch: Batch) -> Batch:
        """Reject spans beyond `MAX_SPANS` of a trace: each batch costs a look at all spans of its traces."""
        assert self._writer is not None
        room: dict[bytes, int] = {}
        rows = []
        for row in batch.rows:
            trace = row[2].trace
            if trace not in room:
                kept = self._writer.execute("SELECT spans FROM traces WHERE trace = ?", (trace,)).fetchone()
                room[trace] = MAX_SPANS - (0 if kept is None else kept[0])
            room[trace] -= 1
            if room[trace] >= 0:
                rows.append(row)
        over = len(batch.rows) - len(rows)
        reason = f"a trace has at most {MAX_SPANS:,} spans here"
        return batch._replace(rows=rows, rejected=batch.rejected + over, reason=reason) if over else batch

    def _transaction(self, work: Callable[[], None]) -> None:
        assert self._writer is not None
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            work()
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def _add(self, signal: str, batch: Batch) -> None:
        assert self._writer is not None
        run = self._writer.execute
        number = run("SELECT 1 + coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'batches'").fetchone()[0]
        sources = _Sources(self._writer, number)
        keep = {"traces": self._spans, "logs": self._logs, "metrics": self._points}[signal]
        stored = keep(sources, batch.rows)
        if stored:
            run(
                "INSERT INTO batches SELECT ?, ?, (SELECT coalesce(max(id), 0) FROM spans), "
                "(SELECT coalesce(max(id), 0) FROM logs), (SELECT coalesce(max(id), 0) FROM points)",
                (number, self._clocks.wall_ms()),
            )
        self._count(signal, "received", len(batch.rows) + batch.rejected)
        self._count(signal, "rejected", batch.rejected)
        self._count(signal, "repeated", len(batch.rows) - stored)
        self._evict()

    def _count(self, signal: str, what: str, number: int) -> None:
        if number:
            assert self._writer is not None
            self._writer.execute(
                "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number",
                (signal, what, number),
            )

    def _spans(self, sources: _Sources, rows: list[tuple[str, bytes, Any]]) -> int:
        assert self._writer is not None
        # a client that did not hear our answer sends a batch again
        stored = self._writer.executemany(
            "INSERT OR IGNORE INTO spans VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(sources.find(service, body), *span) for service, body, span in rows],
        ).rowcount
        self._refresh({span.trace for _, _, span in rows})
        return max(0, stored)

    def _refresh(self, traces: set[bytes]) -> None:
        """Tell again what is shown of traces whose spans have changed."""
        assert self._writer is not None
        for trace in traces:
            if self._writer.execute(_TRACE, {"trace": trace}).rowcount == 0:
                self._writer.execute("DELETE FROM traces WHERE trace = ?", (trace,))

    def _logs(self, sources: _Sources, rows: list[tuple[str, bytes, Any]]) -> int:
        assert self._writer is not None
        now = self._clocks.wall_ms() * 1_000_000
        self._writer.executemany(
            "INSERT INTO logs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(sources.find(service, body), log.time or now, *log[1:]) for service, body, log in rows],
        )
        return len(rows)

    def _points(self, sources: _Sources, rows: list[tuple[str, bytes, Any]]) -> int:
        assert self._writer is not None
        now = self._clocks.wall_ms() * 1_000_000
        self._writer.executemany(
            "INSERT INTO points VALUES (NULL, ?, ?, ?, ?, ?)",
            [
                (sources.series(service, body, point), point.time or now, point.value, point.recorded, point.detail)
                for service, body, point in rows
            ],
        )
        return len(rows)

    # -- evicting ---------------------------------------------------------

    def _evict(self) -> None:
        assert self._writer is not None
        run = self._writer.execute
        cursor = run("SELECT max(id) FROM batches WHERE received < ?", (self._clocks.wall_ms() - self._max_age,))
        if (old := cursor.fetchone()[0]) is not None:
            self._drop(old)
        limit = self._max_bytes
        while self._in_use() > limit:
            # a twentieth at a time, since nobody knows how much a batch takes in the indexes
            cut = run(
                "SELECT max(id) FROM (SELECT id FROM batches ORDER BY id LIMIT 1 + (SELECT count(*) / 20 FROM batches))"
            ).fetchone()[0]
            if cut is None:
                return
            self._drop(cut)
            limit = int(_ROOM * self._max_bytes)

    def _in_use(self) -> int:
        assert self._writer is not None
        pages, free, size = (
            self._writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _drop(self, cut: int) -> None:
        """Evict all batches up to one."""
        assert self._writer is not None
        run = self._writer.execute
        last = dict(
            zip(
                _TABLES.values(),
                run("SELECT spans, logs, points FROM batches WHERE id = ?", (cut,)).fetchone(),
                strict=True,
            )
        )
        hit = {row[0] for row in run("SELECT DISTINCT trace FROM spans WHERE id <= ?", (last["spans"],))}
        for signal, table in _TABLES.items():
            gone = run(f"DELETE FROM {table} WHERE id <= ?", (last[table],)).rowcount
            self._count(signal, "evicted", gone)
        self._refresh(hit)
        for table, column in (("batches", "id"), ("series", "batch"), ("sources", "batch")):
            run(f"DELETE FROM {table} WHERE {column} <= ?", (cut,))

    def _shrink(self) -> None:
        """Give the file system what a lower limit than before, or one huge request, has left empty."""
        assert self._writer is not None
        pages, size = (self._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        if pages * size > self._max_bytes:
            # as a script, since `execute` ends a statement without columns after its first step, which is one page
            self._writer.executescript(f"PRAGMA incremental_vacuum({pages - self._max_bytes // size})")


class _Sources:
    """Resources and series of one batch: each stands once in its table, with the last batch that has rows of it."""

    def __init__(self, writer: sqlite3.Connection, batch: int) -> None:
        self._run = writer.execute
        self._batch = batch
        self._sources: dict[bytes, int] = {}
        self._series: dict[Any, int] = {}

    def find(self, service: str, body: bytes) -> int:
        """Return the number of a resource and scope."""
        number = self._sources.get(body)
        if number is None:
            number = self._sources[body] = self._run(
                "INSERT INTO sources VALUES (NULL, ?, ?, ?) ON CONFLICT(body) DO UPDATE SET batch = excluded.batch RETURNING id",
                (service, body, self._batch),
            ).fetchone()[0]
        return number

    def series(self, service: str, body: bytes, point: Point) -> int:
        """Return the number of a point's series."""
        source = self.find(service, body)
        identity = (source, point.name, point.kind, point.unit, point.attributes)
        number = self._series.get(identity)
        if number is None:
            number = self._series[identity] = self._run(
                "INSERT INTO series VALUES (NULL, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(name, source, kind, unit, attributes) "
                "DO UPDATE SET batch = excluded.batch, description = excluded.description RETURNING id",
                (*identity, point.description, self._batch),
            ).fetchone()[0]
        return number
