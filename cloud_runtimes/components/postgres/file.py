"""Files on PostgreSQL: a version of a file is chunks that nobody finds until the row of its name points at them.

A version that was replaced stays for `_KEPT`, for those who read it. Chunks of an upload that was left go after `_UPLOAD`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

from ...errors import AlreadyExistsError, ClosedError, ConflictError, InternalError
from ...spi import file as spi
from ...spi.file import Chunk, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.operation import Operation
from .._file import ServerFiles
from .._state import dump_names, load_names
from .._unreadable import read_entries
from . import PostgresComponent
from .connection import Connection, Flow
from .database import PostgresDriver, on_connection
from .statement import BEGIN, COMMIT, RELAXED, ROLLBACK, Statement, prefix_end

_CHUNK: Final = 512 * 1024
_KEPT: Final = 3_600_000
"""Milliseconds."""
_UPLOAD: Final = 86_400_000
"""Milliseconds."""
_COLUMNS: Final = "f.name, f.content, f.size, f.modified, f.content_type, f.metadata"
_AT: Final = "store = $1 AND name = $2"
_STAT: Final = Statement(f"SELECT {_COLUMNS} FROM {{schema}}.files f WHERE {_AT}", "text text", shares="reads")
_READ: Final = Statement(
    "SELECT number, CASE WHEN number = $2 / {chunk} OR number = ($3 - 1) / {chunk} THEN substring(body "
    "FROM greatest($2 - number::int8 * {chunk}, 0)::int4 + 1 "
    "FOR (least($3 - number::int8 * {chunk}, {chunk}) - greatest($2 - number::int8 * {chunk}, 0))::int4) ELSE body END "
    "FROM {schema}.chunks WHERE content = $1 AND number BETWEEN $2 / {chunk} AND ($3 - 1) / {chunk} ORDER BY number".replace(
        "{chunk}", str(_CHUNK)
    ),
    "int8 int8 int8",
)
_NAMES: Final = Statement(
    f"SELECT f.name, {_COLUMNS} FROM {{schema}}.files f "
    "WHERE f.store = $1 AND f.name >= $2 AND ($3::text IS NULL OR f.name < $3) ORDER BY f.name LIMIT $4",
    "text text text int8",
)
# goes from entry to entry by the index, whatever there is in a folder: "0" follows "/". LIMIT ends the recursion.
_ENTRIES: Final = Statement(
    "WITH RECURSIVE entries AS ("
    'SELECT NULL::{schema}.files AS file, NULL::text COLLATE "C" AS entry, $2::text COLLATE "C" AS next UNION ALL '
    "SELECT n.file, n.entry, CASE WHEN n.entry LIKE '%/' THEN left(n.entry, -1) || '0' ELSE n.entry || chr(1) END "
    "FROM entries e, LATERAL (SELECT f AS file, CASE WHEN position('/' IN substr(f.name, length($5) + 1)) = 0 THEN f.name "
    "ELSE left(f.name, length($5) + position('/' IN substr(f.name, length($5) + 1))) END AS entry "
    "FROM {schema}.files f WHERE f.store = $1 AND f.name >= e.next ORDER BY f.name LIMIT 1) n "
    "WHERE $3::text IS NULL OR (n.file).name < $3) "
    f"SELECT entry, {_COLUMNS.replace('f.', '(file).')} FROM entries WHERE entry IS NOT NULL LIMIT $4",
    "text text text int8 text",
)
_BEGIN: Final = Statement(
    f"INSERT INTO {{schema}}.contents (ends) VALUES ({{schema}}.now_ms() + {_UPLOAD}) RETURNING id"
)
_CHUNK_IN: Final = Statement(
    "INSERT INTO {schema}.chunks (content, number, body) VALUES ($1, $2, $3)", "int8 int4 bytea"
)
_EXISTS: Final = Statement(f"SELECT 1 FROM {{schema}}.files WHERE {_AT}", "text text")
_LOCK: Final = Statement(f"SELECT content FROM {{schema}}.files WHERE {_AT} FOR UPDATE", "text text")
_STORE: Final = Statement(
    "INSERT INTO {schema}.files AS f (store, name, content, size, modified, content_type, metadata) "
    "VALUES ($1, $2, $3, $4, {schema}.now_ms(), $5, $6) ON CONFLICT (store, name) DO UPDATE SET content = excluded.content, "
    "size = excluded.size, modified = excluded.modified, content_type = excluded.content_type, metadata = excluded.metadata "
    f"WHERE $7 RETURNING {_COLUMNS}",
    "text text int8 int8 text text bool",
)
_STAYS: Final = Statement("UPDATE {schema}.contents SET ends = NULL WHERE id = $1", "int8")
_ENDS: Final = Statement(
    "UPDATE {schema}.contents SET ends = {schema}.now_ms() + $2 WHERE id = ANY ($1)", "int8[] int8"
)
_DROP: Final = Statement("DELETE FROM {schema}.contents WHERE id = $1 AND ends IS NOT NULL", "int8")
_DELETE: Final = Statement(
    f"WITH gone AS (DELETE FROM {{schema}}.files WHERE {_AT} RETURNING content) "
    f"UPDATE {{schema}}.contents SET ends = {{schema}}.now_ms() + {_KEPT} WHERE id IN (SELECT content FROM gone)",
    "text text",
)
_COPY_CHUNKS: Final = Statement(
    "INSERT INTO {schema}.chunks (content, number, body) SELECT $2, number, body FROM {schema}.chunks WHERE content = $1",
    "int8 int8",
)
_MOVE: Final = Statement(
    f"UPDATE {{schema}}.files AS f SET name = $3 WHERE {_AT} RETURNING {_COLUMNS}", "text text text"
)


class PostgresFiles(PostgresDriver, ServerFiles):
    """File store: a namespace in the table of files."""

    features = frozenset(
        {spi.CONTENT_TYPE, spi.COPY, spi.ETAG, spi.EXCLUSIVE, spi.LISTED, spi.METADATA, spi.MOVE, spi.RANGE, spi.SIZES}
    )

    def __init__(self, component: PostgresComponent, name: str) -> None:
        super().__init__(component, name)

    # -- reading ----------------------------------------------------------

    def _stat(self, connection: Connection, name: str, /) -> Flow[FileInfo | None]:
        rows = (yield from connection.execute(_STAT, self.name, name)).rows
        return self._info(rows[0]) if rows else None

    stat, stat_async = on_connection(_stat)

    def _info(self, row: Any) -> FileInfo:
        try:
            return _info(row)
        except Exception as error:
            name = f"{self.name}/{row[0]}"
            raise InternalError(f"the row of the file {name} cannot be read: store it again, or delete it") from error

    def _read(self, connection: Connection, name: str, start: int, length: int | None, /) -> Flow[bytes | None]:
        rows = (yield from connection.execute(_STAT, self.name, name)).rows
        if not rows:
            return None
        content, size = rows[0][1], rows[0][2]
        end = size if length is None else min(size, start + length)
        return (yield from self.part(connection, name, content, start, end))

    read, read_async = on_connection(_read)

    def part(self, connection: Connection, name: str, content: int, start: int, end: int) -> Flow[bytes]:
        """Return the bytes of a version from ``start`` to ``end``, both within it."""
        if end <= start:
            return b""
        rows = (yield from connection.execute(_READ, content, start, end)).rows
        data = b"".join([row[1] for row in rows])
        if len(data) != end - start:
            raise ConflictError(f"{self.name}/{name} was replaced more than an hour ago: open it again")
        return data

    def _open_read(self, connection: Connection, name: str, /) -> Flow[FileReader | None]:
        info = yield from self._stat(connection, name)
        return None if info is None else _Reader(self, info)

    open_read, open_read_async = on_connection(_open_read)

    def _list(
        self, connection: Connection, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> Flow[list[FileInfo]]:
        entries: list[FileInfo] = []
        while True:
            want = None if limit is None else limit - len(entries)
            values = (self.name, _first(prefix, recursive, after), prefix_end(prefix), want)
            listing = (
                connection.execute(_NAMES, *values) if recursive else connection.execute(_ENTRIES, *values, prefix)
            )
            rows = (yield from listing).rows
            entries += read_entries(f"files {self.name!r}", rows, itemgetter(0), _listed)
            if want is None or len(rows) < want or len(entries) == limit:
                return entries
            after = rows[-1][0]

    list_files, list_files_async = on_connection(_list)

    # -- writing ----------------------------------------------------------

    def _open_write(self, connection: Connection, name: str, how: FileWrite, /) -> Flow[FileWriter]:
        existing, begun = yield from connection.pipeline([(_EXISTS, (self.name, name)), (_BEGIN, ())])
        if existing.rows and not how.overwrite:
            raise self.exists(name)
        return _Writer(self, name, how, int(begun.rows[0][0]))

    open_write, open_write_async = on_connection(_open_write)

    def exists(self, name: str) -> AlreadyExistsError:
        """Return why a file cannot be made."""
        return AlreadyExistsError(f"{self.name}/{name} exists: give overwrite=True to replace it")

    def _delete(self, connection: Connection, name: str, /) -> Flow[None]:
        yield from connection.execute(_DELETE, self.name, name)

    delete, delete_async = on_connection(_delete)

    def _copy(self, connection: Connection, source: str, target: str, /) -> Flow[FileInfo | None]:
        rows = (yield from connection.execute(_STAT, self.name, source)).rows
        if not rows:
            return None
        _, content, size, _, content_type, metadata = rows[0]
        yield from connection.execute(BEGIN)
        new = (yield from connection.execute(_BEGIN)).rows[0][0]
        yield from connection.execute(_COPY_CHUNKS, content, new)
        return (yield from self.store_file(connection, target, new, size, content_type, metadata, True))

    copy, copy_async = on_connection(_copy)

    def store_file(
        self,
        connection: Connection,
        name: str,
        content: int,
        size: int,
        content_type: str | None,
        metadata: str | None,
        overwrite: bool,
    ) -> Flow[FileInfo]:
        """Let a name point at a version, in the transaction that is open, and commit it."""
        values = (self.name, name, content, size, content_type, metadata, overwrite)
        locked, stored, _ = yield from connection.pipeline(
            [(_LOCK, (self.name, name)), (_STORE, values), (_STAYS, (content,))]
        )
        if not stored.rows:
            yield from connection.execute(ROLLBACK)
            raise self.exists(name)
        old = [row[0] for row in locked.rows]
        yield from connection.pipeline([(_ENDS, (old, _KEPT)), (COMMIT, ())] if old else [(COMMIT, ())])
        return self._info(stored.rows[0])

    def _move(self, connection: Connection, source: str, target: str, /) -> Flow[FileInfo | None]:
        if source == target:
            return (yield from self._stat(connection, source))
        locks = [(_LOCK, (self.name, name)) for name in sorted((source, target))]
        rows = (yield from connection.pipeline([(BEGIN, ()), *locks]))[1 + (source > target)].rows
        if not rows:
            yield from connection.execute(ROLLBACK)
            return None
        _, moved, _ = yield from connection.pipeline(
            [(_DELETE, (self.name, target)), (_MOVE, (self.name, source, target)), (COMMIT, ())]
        )
        return self._info(moved.rows[0])

    move, move_async = on_connection(_move)


class _Reader(FileReader):
    """Reader of one version of a file."""

    def __init__(self, files: PostgresFiles, info: FileInfo) -> None:
        self.executor, self.database = files.executor, files.database
        self.info = info
        self._files = files
        assert info.etag is not None
        self._content = int(info.etag, 16)
        self._closed = False

    def _read(self, connection: Connection, offset: int, size: int, /) -> Flow[bytes]:
        if self._closed:
            raise ClosedError(f"{self._files.name}/{self.info.name} is closed: open it again")
        end = min(offset + size, self.info.size or 0)
        return (yield from self._files.part(connection, self.info.name, self._content, offset, end))

    read, read_async = on_connection(_read)

    def close(self, op: Operation, /) -> None:
        self._closed = True

    async def close_async(self, op: Operation, /) -> None:
        self._closed = True


class _Writer(FileWriter):
    """A version in the making."""

    def __init__(self, files: PostgresFiles, name: str, how: FileWrite, content: int) -> None:
        self.executor, self.database = files.executor, files.database
        self._files = files
        self._name = name
        self._how = how
        self._content = content
        self._rest = bytearray()
        self._number = 0
        self._size = 0
        self._ended = False

    def _take(self, data: Chunk) -> list[tuple[int, bytes]]:
        """Return the whole chunks that there are now, numbered."""
        if self._ended:
            raise ClosedError(f"{self._files.name}/{self._name} is stored or given up: begin again")
        self._rest += data
        whole = []
        while len(self._rest) >= _CHUNK:
            whole.append((self._number, bytes(self._rest[:_CHUNK])))
            del self._rest[:_CHUNK]
            self._number += 1
            self._size += _CHUNK
        return whole

    def _write(self, connection: Connection, data: Chunk, /) -> Flow[None]:
        for part in _parts(data):
            for number, body in self._take(part):
                yield from connection.pipeline([(RELAXED, ()), (_CHUNK_IN, (self._content, number, body))])

    write, write_async = on_connection(_write)

    def _commit(self, connection: Connection, /) -> Flow[FileInfo]:
        self._take(b"")
        self._ended = True
        yield from connection.execute(BEGIN)
        if self._rest:
            yield from connection.execute(_CHUNK_IN, self._content, self._number, bytes(self._rest))
        size = self._size + len(self._rest)
        how = self._how
        values = (self._name, self._content, size, how.content_type, dump_names(how.metadata), how.overwrite)
        return (yield from self._files.store_file(connection, *values))

    commit, commit_async = on_connection(_commit)

    def abort(self, op: Operation, /) -> None:
        if not self._ended:
            self._ended = True
            self._files.component.in_background(lambda: lambda connection: connection.execute(_DROP, self._content))

    async def abort_async(self, op: Operation, /) -> None:
        self.abort(op)


def _first(prefix: str, recursive: bool, after: str | None) -> str:
    """Return the least name that may be listed: none whose entry is not behind ``after``."""
    if after is None or after < prefix:
        return prefix
    folder, slash, _ = after[len(prefix) :].partition("/")
    if slash and not recursive and after.startswith(prefix):
        return prefix + folder + "0"  # behind "/"
    return after + "\1"


def _parts(data: Chunk) -> Iterable[memoryview]:
    view = memoryview(data).cast("B")
    return (view[start : start + _CHUNK] for start in range(0, len(view), _CHUNK))


def _listed(row: Any) -> FileInfo:
    return _info(row[1:]) if row[0] == row[1] else FileInfo(row[0], 0)


def _info(row: Any) -> FileInfo:
    name, content, size, modified, content_type, metadata = row
    return FileInfo(
        name,
        size,
        datetime.fromtimestamp(modified / 1000, UTC),
        f"{content:016x}",
        content_type,
        load_names(metadata),
    )
