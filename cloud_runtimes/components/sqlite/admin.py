"""``client.admin`` on the log of the embedded store."""

from __future__ import annotations

from typing import Final

from .._copy.sql import Sql
from .._log.admin import LogShape
from .._log.mending import LogMender
from . import SqliteComponent
from .portable import LOG, DatabaseTables

_ITS_FRAMES: Final = "FROM frames f WHERE f.topic = groups.topic"
_SINCE: Final = f"{_ITS_FRAMES} AND f.created >= $2"
_SHAPE: Final = LogShape(
    frames_after=LOG.frames_after,
    rewrite=Sql("UPDATE frames SET body = $2, size = length($2) WHERE id = $1"),
    seek=Sql(
        "UPDATE groups SET frame = CASE WHEN $2 IS NULL THEN 0 ELSE coalesce("
        f"(SELECT f.id {_SINCE} ORDER BY f.id LIMIT 1), (SELECT max(f.id) {_ITS_FRAMES}), 0) END, "
        f"position = CASE WHEN $2 IS NULL OR EXISTS (SELECT 1 {_SINCE}) THEN 0 ELSE coalesce("
        f"(SELECT f.count {_ITS_FRAMES} ORDER BY f.id DESC LIMIT 1), 0) END WHERE id = $1"
    ),
    size="f.size",
    unseen="f.id >= g.frame AND (f.id > g.frame OR f.count > g.position)",
    seen="CASE f.id WHEN g.frame THEN g.position ELSE 0 END",
    held="c.member <> '' AND c.deadline > $moment AND c.boot = $boot",
    created="(SELECT f.created FROM frames f WHERE f.id = c.frame)",
    xid="0",
    claim_xid="0",
    order=("f.id",),
    begins="f.id >= $3",
    claim_begins="c.frame >= $3",
)


def admin(component: SqliteComponent, name: str) -> LogMender:
    """Return what shows the topics of a pub/sub name."""
    return LogMender(DatabaseTables(component), name, _SHAPE, LOG)
