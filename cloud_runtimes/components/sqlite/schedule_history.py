"""The history of jobs: reading it, and keeping it short."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from ...schedule.times import from_ms
from ...spi.schedule import RunRecord
from .engine import Engine
from .job import Job

__all__ = ["LIST", "record", "sweep_runs"]

LIST: Final = (
    "SELECT name, run, fire, status, attempt, started, ended, error, count, last FROM schedule_runs "
    "WHERE app = ? AND name = ? ORDER BY id"
)
_BATCH: Final = 1000
_OLD: Final = f"SELECT id FROM schedule_runs WHERE ended <= ? LIMIT {_BATCH}"
_LONG: Final = "SELECT app, name FROM schedule_runs GROUP BY app, name HAVING count(*) > ? LIMIT 32"
_MORE: Final = (
    "DELETE FROM schedule_runs WHERE app = :app AND name = :name AND ended IS NOT NULL AND id <= "
    "(SELECT id FROM schedule_runs WHERE app = :app AND name = :name ORDER BY id DESC LIMIT 1 OFFSET :keep)"
)


def record(row: Any) -> RunRecord:
    """Return a row of `LIST` as what the caller gets."""
    name, run, fire, status, attempt, started, ended, error, count, last = row
    return RunRecord(
        name=name,
        run_id=run,
        fire_time=from_ms(fire),
        status=status,
        attempt=attempt,
        started_at=None if started is None else from_ms(started),
        ended_at=None if ended is None else from_ms(ended),
        error=error,
        count=count,
        last_fire_time=from_ms(last),
    )


def sweep_runs(engine: Engine, keep_for: float, keep: int) -> bool:
    """Drop a few old records, and those of a job beyond its number; tells whether there may be more."""
    old = engine.clocks.wall_ms() - int(keep_for * 1000)
    names = engine.query(None, _LONG, (keep,))
    if not names and not engine.query(None, f"SELECT EXISTS ({_OLD})", (old,))[0][0]:
        return False

    def body(connection: sqlite3.Connection) -> None:
        connection.execute(f"DELETE FROM schedule_runs WHERE id IN ({_OLD})", (old,))
        for app, name in names:
            connection.execute(_MORE, {"app": app, "name": name, "keep": keep})

    engine.submit(Job(body, durable=False))
    return True
