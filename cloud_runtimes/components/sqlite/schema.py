"""The tables, their version, and the migration of older ones.

``user_version`` counts the steps applied; a step is never edited once released. A file with more steps than are known here was written by a newer release and is refused untouched.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from ...errors import InvalidArgumentError, UnsupportedError

APPLICATION_ID: Final = 0x43525059  # "CRPY"

STEPS: Final = (
    (
        "CREATE TABLE stores (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        """CREATE TABLE state (
            id INTEGER PRIMARY KEY,
            store INTEGER NOT NULL REFERENCES stores,
            key TEXT NOT NULL,
            etag INTEGER NOT NULL,
            expires INTEGER,
            content_type TEXT,
            value BLOB NOT NULL,
            UNIQUE (store, key))""",
        "CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL",
        "CREATE TABLE fences (store INTEGER NOT NULL, key TEXT NOT NULL, token INTEGER NOT NULL, PRIMARY KEY (store, key)) WITHOUT ROWID",
        "CREATE TABLE topics (id INTEGER PRIMARY KEY, pubsub TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (pubsub, name))",
        """CREATE TABLE frames (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            topic INTEGER NOT NULL REFERENCES topics,
            count INTEGER NOT NULL,
            size INTEGER NOT NULL,
            created INTEGER NOT NULL,
            body BLOB NOT NULL)""",
        "CREATE INDEX frames_topic ON frames (topic, id, count, size, created)",
        """CREATE TABLE delayed (
            id INTEGER PRIMARY KEY,
            topic INTEGER NOT NULL REFERENCES topics,
            due INTEGER NOT NULL,
            count INTEGER NOT NULL,
            body BLOB NOT NULL)""",
        "CREATE INDEX delayed_due ON delayed (topic, due)",
        """CREATE TABLE groups (
            id INTEGER PRIMARY KEY,
            topic INTEGER NOT NULL REFERENCES topics,
            name TEXT NOT NULL,
            frame INTEGER NOT NULL,
            position INTEGER NOT NULL,
            seen INTEGER NOT NULL,
            UNIQUE (topic, name))""",
        """CREATE TABLE claims (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            grp INTEGER NOT NULL REFERENCES groups,
            frame INTEGER NOT NULL,
            start INTEGER NOT NULL,
            count INTEGER NOT NULL,
            member TEXT NOT NULL,
            boot TEXT NOT NULL,
            deadline INTEGER NOT NULL,
            deliveries INTEGER NOT NULL,
            settled BLOB)""",
        "CREATE INDEX claims_due ON claims (grp, deadline)",
        "CREATE INDEX claims_frame ON claims (frame)",
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    ),
    (
        # deleted: when, by the wall clock, in milliseconds; NULL: it is there
        """CREATE TABLE configuration (
            id INTEGER PRIMARY KEY,
            store INTEGER NOT NULL REFERENCES stores,
            grp TEXT NOT NULL,
            label TEXT NOT NULL,
            key TEXT NOT NULL,
            version INTEGER NOT NULL,
            deleted INTEGER,
            tags TEXT,
            metadata TEXT,
            value TEXT NOT NULL,
            UNIQUE (store, grp, label, key))""",
        "CREATE INDEX configuration_version ON configuration (store, grp, label, version)",
        "CREATE INDEX configuration_deleted ON configuration (deleted) WHERE deleted IS NOT NULL",
        # of each store: the version of its last change, and that of the last delete whose row is gone
        "CREATE TABLE configuration_versions (store INTEGER PRIMARY KEY REFERENCES stores, version INTEGER NOT NULL, swept INTEGER NOT NULL)",
    ),
    # where services listen: leases of living processes
    (
        """CREATE TABLE services (
            instance TEXT PRIMARY KEY,
            app_id TEXT NOT NULL,
            address TEXT NOT NULL,
            process TEXT NOT NULL,
            boot TEXT NOT NULL,
            deadline INTEGER NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX services_app ON services (app_id)",
    ),
    (  # locks, and who waits for them
        """CREATE TABLE locks (
            store TEXT NOT NULL,
            resource TEXT NOT NULL,
            owner TEXT NOT NULL,
            claim TEXT NOT NULL,
            token INTEGER NOT NULL,
            boot TEXT NOT NULL,
            deadline INTEGER NOT NULL,
            PRIMARY KEY (store, resource)) WITHOUT ROWID""",
        """CREATE TABLE lock_line (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            store TEXT NOT NULL,
            resource TEXT NOT NULL,
            boot TEXT NOT NULL,
            claim TEXT NOT NULL)""",
        "CREATE INDEX lock_line_place ON lock_line (store, resource, boot, id)",
    ),
    (  # jobs, and their runs; a run is open, to be made or under way, as long as it has a deadline
        """CREATE TABLE schedule_jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            app TEXT NOT NULL,
            name TEXT NOT NULL,
            handler TEXT,
            spec TEXT NOT NULL,
            data BLOB,
            next INTEGER,
            occurrences INTEGER NOT NULL,
            skipped INTEGER NOT NULL,
            created INTEGER NOT NULL,
            UNIQUE (app, name))""",
        "CREATE INDEX schedule_jobs_next ON schedule_jobs (app, next) WHERE next IS NOT NULL",
        """CREATE TABLE schedule_runs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            app TEXT NOT NULL,
            name TEXT NOT NULL,
            job INTEGER NOT NULL,
            run TEXT NOT NULL,
            fire INTEGER NOT NULL,
            last INTEGER NOT NULL,
            count INTEGER NOT NULL,
            status TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            failures INTEGER NOT NULL,
            member TEXT,
            process TEXT,
            boot TEXT NOT NULL,
            deadline INTEGER,
            started INTEGER,
            ended INTEGER,
            error TEXT)""",
        "CREATE INDEX schedule_runs_open ON schedule_runs (app, deadline) WHERE deadline IS NOT NULL",
        "CREATE INDEX schedule_runs_job ON schedule_runs (job, id) WHERE deadline IS NOT NULL",
        "CREATE INDEX schedule_runs_name ON schedule_runs (app, name, id)",
        "CREATE INDEX schedule_runs_ended ON schedule_runs (ended) WHERE ended IS NOT NULL",
    ),
    (  # groups with an order: their parts, the members that own them, and claims of parts
        "ALTER TABLE groups ADD COLUMN parts INTEGER",
        "ALTER TABLE claims ADD COLUMN part INTEGER",
        "CREATE INDEX claims_part ON claims (grp, part, frame, start) WHERE part IS NOT NULL",
        """CREATE TABLE group_parts (
            grp INTEGER NOT NULL REFERENCES groups,
            part INTEGER NOT NULL,
            member TEXT NOT NULL,
            PRIMARY KEY (grp, part)) WITHOUT ROWID""",
        """CREATE TABLE group_members (
            grp INTEGER NOT NULL REFERENCES groups,
            member TEXT NOT NULL,
            boot TEXT NOT NULL,
            deadline INTEGER NOT NULL,
            PRIMARY KEY (grp, member)) WITHOUT ROWID""",
    ),
    (  # what client.admin tells and does
        "ALTER TABLE groups ADD COLUMN paused INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE groups ADD COLUMN dead_letters TEXT",
        "ALTER TABLE locks ADD COLUMN since INTEGER",
        "ALTER TABLE services ADD COLUMN about TEXT",
        "ALTER TABLE schedule_jobs ADD COLUMN paused INTEGER NOT NULL DEFAULT 0",
    ),
)


def check(connection: sqlite3.Connection, path: str) -> int:
    """Return the version of an open database, reading only. One of a newer release or another program is refused."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if application != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables or version:
            raise InvalidArgumentError(
                f"{path} is a database of another program: choose another path or CLOUD_RUNTIMES_HOME"
            )
        return 0
    if version > len(STEPS):
        raise UnsupportedError(
            f"{path} was written by a newer release (schema {version}, this one knows up to {len(STEPS)}): "
            "upgrade cloud-runtimes-python, or choose another CLOUD_RUNTIMES_HOME"
        )
    return version


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a database to the newest version in one transaction; the caller holds the write lock."""
    if version == len(STEPS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
