"""Sweeping of one component's tables, a little at a time, on the engine's writer thread.

Expired state rows and locks go, rows of deleted configuration, old records of runs, and frames that no group needs any more and that are older than ``retention``.
"""

from __future__ import annotations

import sqlite3
import weakref
from typing import TYPE_CHECKING, Final

from .lock import sweep_locks
from .state import sweep_expired
from .write_task import WriteTask

if TYPE_CHECKING:
    from .context import SqliteContext
    from .engine import Engine

__all__ = ["TOMBSTONE_MS", "start", "sweep_frames", "sweep_tombstones"]

TOMBSTONE_MS: Final = 3_600_000
"""How long the row of deleted configuration stays at least. For that long, subscribers read only changes."""

_BATCH: Final = 32

_TOMBSTONES: Final = "SELECT id, store, version FROM configuration WHERE deleted <= ? ORDER BY deleted LIMIT 200"
# Old enough; behind the cursor of every living group of its topic; in no claim of theirs.
_OLD: Final = f"""
SELECT f.id FROM topics t JOIN frames f ON f.topic = t.id
WHERE f.id <= coalesce((SELECT min(g.frame) FROM groups g WHERE g.topic = t.id AND g.seen > :unseen), f.id)
  AND f.created <= :old
  AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.topic = t.id AND g.seen > :unseen AND g.frame = f.id AND g.position < f.count)
  AND NOT EXISTS (SELECT 1 FROM claims c JOIN groups g ON g.id = c.grp WHERE c.frame = f.id AND g.seen > :unseen)
LIMIT {_BATCH}
"""

_RUNS: Final = 1000
_OLD_RUNS: Final = f"SELECT id FROM schedule_runs WHERE ended <= ? LIMIT {_RUNS}"
_MANY_RUNS: Final = "SELECT app, name FROM schedule_runs GROUP BY app, name HAVING count(*) > ? LIMIT 32"
_EXCESS_RUNS: Final = (
    "DELETE FROM schedule_runs WHERE app = :app AND name = :name AND ended IS NOT NULL AND id <= "
    "(SELECT id FROM schedule_runs WHERE app = :app AND name = :name ORDER BY id DESC LIMIT 1 OFFSET :keep)"
)


def start(context: SqliteContext) -> None:
    """Have the engine sweep for a component, as long as the component lives."""
    engine = context.engine
    alive = weakref.ref(context)

    def sweeper() -> bool:
        living = alive()
        if living is None:
            return False
        sweep_locks(engine)
        more = sweep_expired(engine, living.durable)
        more = sweep_tombstones(engine, living.durable) or more
        more = sweep_runs(engine, living.settings.history, living.settings.history_runs) or more
        return sweep_frames(engine, living.settings.retention, living.settings.group_expiry, living.durable) or more

    engine.sweepers.append(sweeper)
    weakref.finalize(context, engine.sweepers.remove, sweeper)


def sweep_frames(engine: Engine, retention: float, group_expiry: float, durable: bool) -> bool:
    """Delete a few frames that nobody needs; tells whether there may be more."""
    now = engine.clocks.wall_ms()
    limits = {"old": now - int(retention * 1000), "unseen": now - int(group_expiry * 1000)}
    if not engine.query(None, _OLD, limits):
        return False

    def body(connection: sqlite3.Connection) -> None:
        ids = connection.execute(_OLD, limits).fetchall()
        connection.executemany("DELETE FROM claims WHERE frame = ?", ids)
        connection.executemany("DELETE FROM frames WHERE id = ?", ids)

    engine.submit(WriteTask(body, durable=durable))
    return True


def sweep_tombstones(engine: Engine, durable: bool) -> bool:
    """Delete a few old rows of deleted configuration; tells whether there may be more."""
    old = engine.clocks.wall_ms() - TOMBSTONE_MS
    if not engine.query(None, _TOMBSTONES, (old,)):
        return False

    def body(connection: sqlite3.Connection) -> None:
        rows = connection.execute(_TOMBSTONES, (old,)).fetchall()
        connection.executemany(
            "UPDATE configuration_versions SET swept = max(swept, ?) WHERE store = ?",
            [(version, store) for _, store, version in rows],
        )
        connection.executemany("DELETE FROM configuration WHERE id = ?", [(row[0],) for row in rows])

    engine.submit(WriteTask(body, durable=durable))
    return True


def sweep_runs(engine: Engine, keep_for: float, keep: int) -> bool:
    """Delete a few old records of runs, and those beyond a job's number; tells whether there may be more."""
    old = engine.clocks.wall_ms() - int(keep_for * 1000)
    names = engine.query(None, _MANY_RUNS, (keep,))
    if not names and not engine.query(None, f"SELECT EXISTS ({_OLD_RUNS})", (old,))[0][0]:
        return False

    def body(connection: sqlite3.Connection) -> None:
        connection.execute(f"DELETE FROM schedule_runs WHERE id IN ({_OLD_RUNS})", (old,))
        for app, name in names:
            connection.execute(_EXCESS_RUNS, {"app": app, "name": name, "keep": keep})

    engine.submit(WriteTask(body, durable=False))
    return True
