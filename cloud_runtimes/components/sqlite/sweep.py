"""Sweeping of one component's tables, a little at a time, on the engine's writer thread.

No sweep is synced. What a power cut brings back is swept again.
"""

from __future__ import annotations

import sqlite3
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from ..._core.arguments import HIDDEN
from . import SqliteComponent, SqliteSettings
from .state import DELETE_EXPIRED
from .writes import WriteTask

if TYPE_CHECKING:
    from .engine import Engine

TOMBSTONE_MS: Final = 3_600_000
"""How long the row of deleted configuration stays at least. For that long, subscribers read only changes."""
LOCK_MS: Final = 60_000
"""How long an expired lock leaves a trace at least."""


class Sweep(NamedTuple):
    """Rows that go: a query whether there are any, and the statements that delete some of them."""

    look: str
    statements: tuple[str, ...]


_ENDED: Final = "FROM locks WHERE boot <> :boot OR deadline <= :lock"
# the places of waiters who did not come for the lock
_ORPHANS: Final = (
    "FROM lock_line WHERE boot <> :boot OR NOT EXISTS "
    "(SELECT 1 FROM locks l WHERE l.store = lock_line.store AND l.resource = lock_line.resource)"
)
LOCKS: Final = Sweep(
    f"SELECT EXISTS (SELECT 1 {_ENDED}) OR EXISTS (SELECT 1 {_ORPHANS})", (f"DELETE {_ENDED}", f"DELETE {_ORPHANS}")
)
EXPIRED: Final = Sweep("SELECT EXISTS (SELECT 1 FROM state WHERE expires <= :now)", (DELETE_EXPIRED,))
_TOMBSTONES: Final = (
    "SELECT id, store, version FROM configuration WHERE deleted <= :tombstone ORDER BY deleted, id LIMIT 200"
)
_SWEPT: Final = f"""
UPDATE configuration_versions AS v SET swept = max(swept, found.version)
FROM (SELECT store, max(version) AS version FROM ({_TOMBSTONES}) GROUP BY store) AS found WHERE v.store = found.store
"""
TOMBSTONES: Final = Sweep(
    "SELECT EXISTS (SELECT 1 FROM configuration WHERE deleted <= :tombstone)",
    (_SWEPT, f"DELETE FROM configuration WHERE id IN (SELECT id FROM ({_TOMBSTONES}))"),
)
_EXCESS: Final = """
DELETE FROM schedule_runs WHERE ended IS NOT NULL AND id IN (
  SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY app, name ORDER BY id DESC) AS place FROM schedule_runs)
  WHERE place > :history_runs LIMIT 10000)
"""
RUNS: Final = Sweep(
    "SELECT EXISTS (SELECT 1 FROM schedule_runs WHERE ended <= :history) OR "
    "EXISTS (SELECT 1 FROM schedule_runs GROUP BY app, name HAVING count(*) > :history_runs)",
    (
        "DELETE FROM schedule_runs WHERE id IN (SELECT id FROM schedule_runs WHERE ended <= :history LIMIT 1000)",
        _EXCESS,
    ),
)
# old enough; behind the cursor of every living group of its topic; in no claim of theirs. Those under a hidden name wait
# for a broker, however long that takes
_FRAMES: Final = f"""
SELECT f.id FROM topics t JOIN frames f ON f.topic = t.id
WHERE f.id <= coalesce((SELECT min(g.frame) FROM groups g WHERE g.topic = t.id AND g.seen > :unseen), f.id)
  AND f.created <= :retention AND substr(t.pubsub, 1, 2) <> '{HIDDEN}'
  AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.topic = t.id AND g.seen > :unseen AND g.frame = f.id AND g.position < f.count)
  AND NOT EXISTS (SELECT 1 FROM claims c JOIN groups g ON g.id = c.grp WHERE c.frame = f.id AND g.seen > :unseen)
LIMIT 32
"""
FRAMES: Final = Sweep(
    f"SELECT EXISTS ({_FRAMES})",
    (f"DELETE FROM claims WHERE frame IN ({_FRAMES})", f"DELETE FROM frames WHERE id IN ({_FRAMES})"),
)


def start(component: SqliteComponent) -> None:
    """Have the engine sweep for a component, as long as the component lives."""
    engine, settings = component.engine, component.settings
    alive = weakref.ref(component)

    def sweeper() -> bool:
        if alive() is None:
            return False
        return sum(sweep(engine, each, settings) for each in (LOCKS, EXPIRED, TOMBSTONES, RUNS, FRAMES)) > 0

    engine.sweepers.append(sweeper)
    weakref.finalize(component, engine.sweepers.remove, sweeper)


def sweep(engine: Engine, what: Sweep, settings: SqliteSettings) -> bool:
    """Delete a few rows; returns whether there may be more."""
    wall, boot = engine.clocks.wall_ms(), engine.clocks.boot_ms()
    names = {
        "now": wall,
        "most": 1000,
        "boot": engine.clocks.boot_id(),
        "lock": boot - LOCK_MS,
        "tombstone": wall - TOMBSTONE_MS,
        "history": wall - int(settings.history * 1000),
        "history_runs": settings.history_runs,
        "retention": wall - int(settings.retention * 1000),
        "unseen": wall - int(settings.group_expiry * 1000),
    }
    if not engine.query(None, what.look, names)[0][0]:
        return False

    def body(connection: sqlite3.Connection) -> None:
        for statement in what.statements:
            connection.execute(statement, names)

    engine.submit(WriteTask(body, durable=False))
    return True
