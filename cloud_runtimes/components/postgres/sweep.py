"""Sweeping: what has ended goes, a little at a time, by one process of all.

Expired state goes, locks that ended, rows of deleted configuration, versions of files that nobody reads any more, and partitions of frames that no group needs and that are older than ``retention``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from ..._core.backoff import Backoff
from ..._core.logs import repeated
from ..._core.threads import Background, Changes
from ...errors import ClosedError, CloudRuntimesError
from ...spi.operation import Method, Operation
from .._lock import FORGET_MS
from . import PostgresSettings
from .claim import UNSEEN
from .connection import Connection, Flow
from .failures import SqlFailure
from .schema import make_partitions, partition_ms
from .statement import BEGIN, COMMIT, RELAXED, ROLLBACK, Statement

if TYPE_CHECKING:
    from .database import PostgresDatabase

TOMBSTONE_MS: Final = 3_600_000
"""How long the row of deleted configuration stays at least. For that long, subscribers read only changes."""
_PAUSE: Final = Backoff(60.0, 60.0, jitter=(0.5, 1.5))
_BATCH: Final = 1000
_SWEEP: Final = Method("postgres", "sweep", repeatable=True)

# a sub-select is run once, so an index finds what is past; in order, so that nobody expects a third of the table to be
_PAST: Final = "(SELECT {schema}.now_ms())"


def _some(table: str, where: str, order: str = "") -> str:
    """Return the part of a ``DELETE`` behind ``FROM``, for a batch of rows.

    They are found by their places, never by reading the table, and looked at again: one that was changed meanwhile stays.
    """
    name = f"{{schema}}.{table}"
    batch = f"SELECT ctid FROM {name} WHERE {where} {order and f'ORDER BY {order} '}LIMIT {_BATCH}"
    return f"{name} WHERE ctid = ANY (ARRAY({batch})) AND {where}"


_MINE: Final = Statement("SELECT pg_try_advisory_xact_lock(hashtext('{schema}'), 1)")
_ROWS: Final = tuple(
    Statement(f"DELETE FROM {_some(*what)}")
    for what in (
        ("state", f"expires <= {_PAST}", "expires"),
        ("locks", f"deadline <= {_PAST} - {FORGET_MS}"),
        (
            "lock_line",
            "NOT EXISTS (SELECT 1 FROM {schema}.locks l WHERE l.store = lock_line.store AND l.resource = lock_line.resource)",
        ),
        ("services", f"deadline <= {_PAST}"),
        ("contents", f"ends <= {_PAST}", "ends"),
    )
)
_TOMBSTONES: Final = Statement(
    f"WITH old AS (DELETE FROM {_some('configuration', f'deleted <= {_PAST} - {TOMBSTONE_MS}', 'deleted')} RETURNING store, version) "
    "UPDATE {schema}.configuration_versions v SET swept = greatest(v.swept, o.version) "
    "FROM (SELECT store, max(version) AS version FROM old GROUP BY store) o WHERE v.store = o.store"
)
_FORGOTTEN: Final = Statement("DELETE FROM {schema}.groups WHERE seen <= {schema}.now_ms() - $1", "int8")
_OLD_RUNS: Final = Statement(f"DELETE FROM {_some('schedule_runs', f'ended <= {_PAST} - $1', 'ended')}", "int8")
_EXCESS_RUNS: Final = Statement(
    "DELETE FROM {schema}.schedule_runs r USING (SELECT app, name FROM {schema}.schedule_runs GROUP BY app, name "
    "HAVING count(*) > $1 LIMIT 32) many WHERE r.app = many.app AND r.name = many.name AND r.ended IS NOT NULL AND r.id <= "
    "(SELECT id FROM {schema}.schedule_runs o WHERE o.app = many.app AND o.name = many.name ORDER BY id DESC LIMIT 1 OFFSET $1)",
    "int8",
)
_PARTITIONS: Final = Statement(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = '{schema}.frames'::regclass ORDER BY c.relname"
)
_DROP: Final = Statement("SELECT {schema}.drop_partition($1)", "int8")
_NOW: Final = Statement("SELECT {schema}.now_ms()")


def sweep_all(database: PostgresDatabase, stops: Callable[[], bool] = lambda: False) -> None:
    """Sweep, and again at once after a full batch unless it ``stops``: else a store whose values expire faster would grow for ever."""
    each = partial(_sweep, settings=database.settings)
    while database.run(Operation(_SWEEP, "postgres", 30.0), each) and not stops():
        pass


def _sweep(connection: Connection, settings: PostgresSettings) -> Flow[bool]:
    """Sweep once, a batch of rows; does nothing where another process is at it. Returns whether there may be more."""
    _, _, mine = yield from connection.pipeline([(BEGIN, ()), (RELAXED, ()), (_MINE, ())])
    if not mine.rows[0][0]:
        yield from connection.execute(ROLLBACK)
        return False
    calls: list[tuple[Statement, tuple[int, ...]]] = [(statement, ()) for statement in (*_ROWS, _TOMBSTONES)]
    calls.append((_FORGOTTEN, (int(settings.group_expiry * 1000),)))
    calls += [(_OLD_RUNS, (int(settings.history * 1000),)), (_EXCESS_RUNS, (settings.history_runs,)), (COMMIT, ())]
    results = yield from connection.pipeline(calls)
    yield from make_partitions(connection, settings.retention)
    yield from _drop_partitions(connection, settings)
    return any(result.count >= _BATCH for result in results)


def _drop_partitions(connection: Connection, settings: PostgresSettings) -> Flow[None]:
    now = (yield from connection.execute(_NOW)).rows[0][0]
    width = partition_ms(settings.retention)
    for (name,) in (yield from connection.execute(_PARTITIONS)).rows:
        start = name.rpartition("_")[2]
        if not start.isdigit() or int(start) + width + settings.retention * 1000 > now:
            continue
        needed = Statement(
            f"SELECT EXISTS (SELECT 1 FROM {{schema}}.groups g JOIN {{schema}}.{name} f ON f.topic = g.topic AND {UNSEEN}) "
            f"OR EXISTS (SELECT 1 FROM {{schema}}.claims c JOIN {{schema}}.{name} f ON f.id = c.frame AND f.created = c.created)"
        )
        try:
            # whoever reads or publishes in this moment is not made to wait for long
            timeout = Statement("SELECT set_config('lock_timeout', '200', true)")
            if not (yield from connection.execute(needed)).rows[0][0]:
                yield from connection.pipeline([(timeout, ()), (_DROP, (int(start),))])
        except SqlFailure as error:
            if error.state not in ("55P03", "42P01"):  # locked: later; gone: another process was faster
                raise


class Sweeper:
    """The thread that sweeps for one process, as long as its database is used."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = weakref.ref(database)
        self._changes = Changes()
        self._closed = False
        self._thread = Background(self._run, "cloud-runtimes-postgres-sweep")

    def start(self) -> None:
        """Sweep from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a sweep under way ends by itself."""
        self._closed = True
        self._changes.announce()

    def _run(self) -> None:
        while not self._closed:
            end = monotonic() + _PAUSE.after(1)  # processes that started together do not meet
            ticket = self._changes.ticket()
            if self._closed or self._changes.wait(ticket, end - monotonic()):
                return
            database = self._database()
            if database is None:
                return
            try:
                sweep_all(database, lambda: self._closed)
            except ClosedError:
                return
            except CloudRuntimesError as error:
                repeated("postgres sweep", "sweeping failed, it is tried again: %s", error)
