"""``client.admin`` on the log in PostgreSQL."""

from __future__ import annotations

from typing import Final

from .._copy.sql import Sql
from .._log.admin import LogShape
from .._log.mending import LogMender
from . import PostgresComponent
from .claim import BEGINNING, UNSEEN
from .portable import LOG, DatabaseTables

_SHAPE: Final = LogShape(
    frames_after=LOG.frames_after,
    rewrite=Sql("UPDATE {schema}.frames SET body = $2 WHERE id = $1", "int8 bytea"),
    seek=Sql(
        "UPDATE {schema}.groups g SET (past, present, xid, frame) = "
        f"({BEGINNING.format(topic='g.topic', begins='$2')}) WHERE g.id = $1",
        "int8 int8",
    ),
    size="octet_length(f.body)",
    unseen=UNSEEN,
    seen="0",
    held="c.member <> '' AND c.deadline > {now}",
    created="c.created",
    xid="f.xid",
    claim_xid="c.xid",
    order=("f.xid", "f.id"),
    begins="(f.xid, f.id) >= ($2::xid8, $3)",
    claim_begins="(c.xid, c.frame) >= ($2::xid8, $3)",
)


def admin(component: PostgresComponent, name: str) -> LogMender:
    """Return what shows the topics of a pub/sub name."""
    return LogMender(DatabaseTables(component), name, _SHAPE, LOG)
