"""Adopting a schema from another server, where ``pg_restore`` or a copy brought it.

The log goes by ids of transactions, and each server counts its own. What the other server wrote may so lie in the future here. A group would wait for that future, and pass over all that is published before it.
"""

from __future__ import annotations

from typing import Final

import psycopg

from ..._core.logs import logger
from .claim import UNSEEN

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('{schema}'), 2)"
_FOREIGN: Final = """
SELECT EXISTS (SELECT FROM {schema}.groups WHERE pg_snapshot_xmax(coalesce(present, past)) > pg_snapshot_xmax(pg_current_snapshot()))
    OR EXISTS (SELECT FROM {schema}.topics t CROSS JOIN LATERAL (
        SELECT FROM {schema}.frames f WHERE f.topic = t.id AND f.xid >= pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY f.xid, f.id LIMIT 1) f)
"""
_STEPS: Final = (
    # as long as the size of the log wants: cut short, the next call would begin again
    "SET LOCAL statement_timeout = 0",
    # no table has statistics yet
    "SET LOCAL enable_nestloop = off",
    # nobody publishes or claims meanwhile
    "LOCK TABLE {schema}.groups, {schema}.claims, {schema}.frames IN SHARE ROW EXCLUSIVE MODE",
    # 3 is older than every transaction of a server's users
    "UPDATE {schema}.claims SET xid = '3'",
    # what a group has yet to see is given to it as claims, so that all that is there is its past
    f"""INSERT INTO {{schema}}.claims (grp, xid, frame, created, start, count, member, deadline, deliveries)
       SELECT g.id, '3', f.id, f.created, 0, f.count, '', 0, 0 FROM {{schema}}.groups g JOIN {{schema}}.frames f
       ON f.topic = g.topic AND {UNSEEN}""",
    "UPDATE {schema}.frames SET xid = '3'",
    "UPDATE {schema}.groups SET past = pg_current_snapshot(), present = NULL, xid = '0', frame = 0",
    # tokens of locks that the other server gave after the dump are not given once more
    "SELECT setval('{schema}.lock_token', greatest(nextval('{schema}.lock_token'), {schema}.now_ms()))",
)


def adopt(connection: psycopg.Connection, schema: str, where: str) -> None:
    """Bring the log of a schema to this server's ids of transactions, where they are another's.

    Each group keeps exactly what it has not settled. Does nothing, but for one look, where there is nothing to do.

    Raises:
        psycopg.Error: the server refused it.
    """
    foreign, lock = (text.replace("{schema}", schema).encode() for text in (_FOREIGN, _LOCK))
    if connection.execute(foreign).fetchone() == (False,):
        return
    connection.execute(lock)
    if connection.execute(foreign).fetchone() == (False,):
        return  # another process was faster
    for step in _STEPS:
        connection.execute(step.replace("{schema}", schema).encode())
    logger().warning("%s: the schema %r came from another server; its log was brought to this one", where, schema)
