"""The SQL of the log: topics, frames, cursors, claims. ``docs/explanation/embedded-store.md``, "The log", explains it.

Functions that take a connection run inside a commit batch; they change nothing outside the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any, Final

from ...spi.broker.policy import LATEST
from .._log.claims import Claimed, cut

_BATCH: Final = 64

OVERDUE: Final = (
    "SELECT id, frame, start, count, deliveries, settled FROM claims WHERE grp = ? AND deadline <= ? ORDER BY deadline, frame, start LIMIT ?"
)
_DUE: Final = (
    "SELECT EXISTS (SELECT 1 FROM delayed WHERE topic = ? AND due <= ?), "
    "EXISTS (SELECT 1 FROM claims WHERE grp = ? AND deadline <= ?)"
)
_TAKE: Final = "UPDATE claims SET member = ?, boot = ?, deadline = ?, deliveries = deliveries + 1 WHERE id = ?"
CLAIM: Final = (
    "INSERT INTO claims (grp, frame, start, count, member, boot, deadline, deliveries, settled, part) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_COLUMNS: Final = 5
_BOUND: Final = 64 * 1024
"""Bytes that a statement may keep bound until its next use."""
_UNBOUND: Final = object()
_FIRST: Final = "SELECT id, 0 FROM frames WHERE topic = ? AND created >= ? ORDER BY id LIMIT 1"
_LAST: Final = "SELECT id, count FROM frames WHERE topic = ? ORDER BY id DESC LIMIT 1"
NEXT: Final = "SELECT id, count FROM frames WHERE topic = ? AND id >= ? ORDER BY id LIMIT ?"


def topic_channel(topic: int) -> str:
    """Return the notifier's channel of a topic."""
    return f"topic-{topic}"


def find_topic(connection: sqlite3.Connection, pubsub: str, topic: str) -> int:
    """Return a topic's number; makes it if need be."""
    row = connection.execute("SELECT id FROM topics WHERE pubsub = ? AND name = ?", (pubsub, topic)).fetchone()
    if row is None:
        row = connection.execute(
            "INSERT INTO topics (pubsub, name) VALUES (?, ?) RETURNING id", (pubsub, topic)
        ).fetchone()
    return int(row[0])


def join_group(
    connection: sqlite3.Connection,
    topic: int,
    name: str,
    begins: int | None,
    boot: str,
    wall_ms: int,
    parts: int | None,
    dead_letters: str | None,
) -> tuple[int, int | None]:
    """Return a group's number and that of its parts; makes it, with its cursor, if need be. ``begins``: see `begins_at`; ``parts``: of a new group with an order; ``dead_letters``: the topic that it says its own go to."""
    row = connection.execute("SELECT id, parts FROM groups WHERE topic = ? AND name = ?", (topic, name)).fetchone()
    if row is None:
        first = None
        if begins is not None and begins < LATEST:
            first = connection.execute(_FIRST, (topic, begins)).fetchone()
        if begins is not None and first is None:
            first = connection.execute(_LAST, (topic,)).fetchone()
        frame, position = first or (0, 0)
        row = connection.execute(
            "INSERT INTO groups (topic, name, frame, position, seen, parts) VALUES (?, ?, ?, ?, ?, ?) RETURNING id, parts",
            (topic, name, frame, position, wall_ms, parts),
        ).fetchone()
    group = int(row[0])
    connection.executemany(  # a group that was copied has none yet
        "INSERT OR IGNORE INTO group_parts (grp, part, member) VALUES (?, ?, '')",
        [(group, part) for part in range(row[1] or 0)],
    )
    noted = (wall_ms, dead_letters, group)
    connection.execute("UPDATE groups SET seen = ?, dead_letters = coalesce(?, dead_letters) WHERE id = ?", noted)
    # leases of an earlier boot have ended, whatever their clock says
    connection.execute("UPDATE claims SET deadline = 0, boot = ? WHERE grp = ? AND boot <> ?", (boot, group, boot))
    return group, row[1]


def due(connection: sqlite3.Connection, topic: int, wall_ms: int, group: int, now: int) -> tuple[int, int]:
    """Return whether there are delayed frames for `move_delayed` and claims for `take_over`, by one query."""
    row: tuple[int, int] = connection.execute(_DUE, (topic, wall_ms, group, now)).fetchone()
    return row


def stay(connection: sqlite3.Connection, group: int, member: str, boot: str, now: int, lease_ms: int) -> None:
    """Renew a member of a group, and forget those whose leases are over."""
    row = (member, boot, now + lease_ms, group)
    connection.execute("INSERT OR REPLACE INTO group_members SELECT id, ?, ?, ? FROM groups WHERE id = ?", row)
    over = (group, boot, now - lease_ms)
    connection.execute("DELETE FROM group_members WHERE grp = ? AND (boot <> ? OR deadline <= ?)", over)


def leave(connection: sqlite3.Connection, group: int, member: str) -> None:
    """Take a member out of a group."""
    connection.execute("DELETE FROM group_members WHERE grp = ? AND member = ?", (group, member))


def take_over(
    connection: sqlite3.Connection, group: int, member: str, boot: str, now: int, deadline: int, want: int
) -> list[Claimed]:
    """Take claims whose deadline has passed: those of dead members, and due retries. At most ``want`` unsettled events."""
    taken: list[Claimed] = []
    while want > 0:
        rows = connection.execute(OVERDUE, (group, now, _BATCH)).fetchall()
        for row in rows:
            if want <= 0:
                break
            claim = Claimed(*row)
            positions = claim.open()
            if len(positions) > want:
                claim = _split(connection, claim, positions[want], group, boot)
                positions = positions[:want]
            connection.execute(_TAKE, (member, boot, deadline, claim.id))
            taken.append(claim._replace(deliveries=claim.deliveries + 1))
            want -= len(positions)
        if len(rows) < _BATCH:
            break
    return taken


def _split(connection: sqlite3.Connection, claim: Claimed, at: int, group: int, boot: str) -> Claimed:
    """Cut a claim before position ``at``: the rest stays overdue as a claim of its own."""
    head, tail = cut(claim.settled, at, claim.length)
    connection.execute("UPDATE claims SET count = ?, settled = ? WHERE id = ?", (at, head, claim.id))
    rest = (group, claim.frame, claim.start + at, claim.length - at, "", boot, 0, claim.deliveries, tail, None)
    connection.execute(CLAIM, rest)
    return claim._replace(length=at, settled=head)


def claim_new(
    connection: sqlite3.Connection,
    topic: int,
    group: int,
    member: str,
    boot: str,
    deadline: int,
    want: int,
    wall_ms: int,
) -> list[Claimed]:
    """Claim up to ``want`` events behind the group's cursor and move it."""
    frame, position = connection.execute("SELECT frame, position FROM groups WHERE id = ?", (group,)).fetchone()
    claimed: list[Claimed] = []
    start = (frame, position)
    while want > 0:
        rows = connection.execute(NEXT, (topic, frame, _BATCH)).fetchall()
        for id, count in rows:
            first = position if id == frame else 0
            frame, position = id, first
            take = min(count - first, want)
            if take <= 0:
                continue
            cursor = connection.execute(CLAIM, (group, id, first, take, member, boot, deadline, 1, None, None))
            claimed.append(Claimed(int(cursor.lastrowid or 0), id, first, take, 1, None))
            position = first + take
            want -= take
            if want <= 0:
                break
        if len(rows) < _BATCH:
            break
    if (frame, position) != start:
        connection.execute(
            "UPDATE groups SET frame = ?, position = ?, seen = ? WHERE id = ?", (frame, position, wall_ms, group)
        )
    return claimed


def settle_claim(connection: sqlite3.Connection, claim: int, member: str, settled: bytes | None) -> bool:
    """Store a claim's bitmap, ``None``: all of it is settled. ``False``: the claim went to another member."""
    if settled is None:
        cursor = connection.execute("DELETE FROM claims WHERE id = ? AND member = ?", (claim, member))
    else:
        cursor = connection.execute(
            "UPDATE claims SET settled = ? WHERE id = ? AND member = ?", (settled, claim, member)
        )
    return cursor.rowcount > 0


def park(
    connection: sqlite3.Connection, group: int, boot: str, events: Iterable[tuple[int, int, int, int, int | None]]
) -> None:
    """Store events to be delivered again: (frame, position, deadline, deliveries so far, part)."""
    connection.executemany(
        CLAIM,
        [(group, frame, position, 1, "", boot, due, count, None, part) for frame, position, due, count, part in events],
    )


def hand_back(connection: sqlite3.Connection, claim: Claimed, member: str) -> None:
    """Give up a claim, of which this much is left: any member may take it at once, and it does not count as a delivery."""
    connection.execute(
        "UPDATE claims SET member = '', deadline = 0, deliveries = deliveries - 1, start = ?, count = ?, settled = ? "
        "WHERE id = ? AND member = ?",
        (claim.start, claim.length, claim.settled, claim.id, member),
    )


def release(connection: sqlite3.Connection, claims: Iterable[int], member: str) -> None:
    """Give up claims as they stand in the database: any member may take them at once."""
    connection.executemany(
        "UPDATE claims SET member = '', deadline = 0 WHERE id = ? AND member = ?", [(id, member) for id in claims]
    )


def append(connection: sqlite3.Connection, topic: int, count: int, body: bytes, wall_ms: int) -> None:
    """Append one frame to a topic."""
    connection.execute(
        "INSERT INTO frames (topic, count, size, created, body) VALUES (?, ?, ?, ?, ?)",
        (topic, count, len(body), wall_ms, body),
    )


def insert_frames(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    """Append frames by one statement, so that the GIL is handed over once.

    It is one of a few, of 1, 2, 4, 8 … rows, filled up with empty ones: `sqlite3` keeps statements, and each keeps what was bound last.
    """
    size = 1 << (len(rows) - 1).bit_length()
    parameters = [field for row in rows for field in row]
    parameters += [None] * (_COLUMNS * (size - len(rows)) + 1)
    connection.execute(_insertion(size), parameters)
    if sum(len(row[-1]) for row in rows) > _BOUND:
        parameters = [None] * (_COLUMNS * size)
        with suppress(sqlite3.Error):
            # what cannot be bound comes last: all else is bound anew, and nothing is run
            connection.execute(_insertion(size), [*parameters, _UNBOUND])


@cache
def _insertion(rows: int) -> str:
    values = ",".join(["(?,?,?,?,?)"] * rows)
    return (
        "INSERT INTO frames (topic, count, size, created, body)"
        f" SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL AND ? IS NULL"
    )


def move_delayed(connection: sqlite3.Connection, topic: int, wall_ms: int) -> bool:
    """Move delayed frames that are due into the log; returns whether there were any."""
    rows = connection.execute(
        "SELECT id, count, body FROM delayed WHERE topic = ? AND due <= ? ORDER BY due, id LIMIT ?",
        (topic, wall_ms, _BATCH),
    ).fetchall()
    for id, count, body in rows:
        append(connection, topic, count, body, wall_ms)
        connection.execute("DELETE FROM delayed WHERE id = ?", (id,))
    return bool(rows)


def count(connection: sqlite3.Connection, name: str, by: int) -> None:
    """Add to a named counter."""
    connection.execute(
        "INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (name, by),
    )
