"""Tidying of one component's tables, a little at a time, on the engine's writer thread.

Expired state rows and locks go, and frames that no group needs any more and that are older than ``retention``.
"""

from __future__ import annotations

import sqlite3
import weakref
from typing import TYPE_CHECKING, Final

from .job import Job
from .lock import sweep_locks
from .state import sweep_expired

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine

__all__ = ["start", "sweep_frames"]

_BATCH: Final = 32

# Old enough; behind the cursor of every living group of its topic; in no claim of theirs.
_OLD: Final = f"""
SELECT f.id FROM topics t JOIN frames f ON f.topic = t.id
WHERE f.id <= coalesce((SELECT min(g.frame) FROM groups g WHERE g.topic = t.id AND g.seen > :unseen), f.id)
  AND f.created <= :old
  AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.topic = t.id AND g.seen > :unseen AND g.frame = f.id AND g.position < f.count)
  AND NOT EXISTS (SELECT 1 FROM claims c JOIN groups g ON g.id = c.grp WHERE c.frame = f.id AND g.seen > :unseen)
LIMIT {_BATCH}
"""


def start(component: SqliteComponent) -> None:
    """Have the engine sweep for a component from now on, as long as the component lives."""
    engine = component.engine
    alive = weakref.ref(component)

    def sweeper() -> bool:
        living = alive()
        if living is None:
            return False
        sweep_locks(engine)
        more = sweep_expired(engine, living.durable)
        return sweep_frames(engine, living.settings.retention, living.settings.group_expiry, living.durable) or more

    engine.sweepers.append(sweeper)
    weakref.finalize(component, engine.sweepers.remove, sweeper)


def sweep_frames(engine: Engine, retention: float, group_expiry: float, durable: bool) -> bool:
    """Drop a few frames that nobody needs; tells whether there may be more."""
    now = engine.clocks.wall_ms()
    limits = {"old": now - int(retention * 1000), "unseen": now - int(group_expiry * 1000)}
    if not engine.query(None, _OLD, limits):
        return False

    def body(connection: sqlite3.Connection) -> None:
        ids = connection.execute(_OLD, limits).fetchall()
        connection.executemany("DELETE FROM claims WHERE frame = ?", ids)
        connection.executemany("DELETE FROM frames WHERE id = ?", ids)

    engine.submit(Job(body, durable=durable))
    return True
