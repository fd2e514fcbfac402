"""The tables, their version, and the migration of older ones.

``meta.version`` counts the steps applied; a step is never edited once released. A schema with more steps than are known here was written by a newer release and is refused untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from ...errors import UnsupportedError
from ...spi.operation import Operation
from .connection import Connection, Flow
from .failures import SqlFailure
from .statement import Statement

if TYPE_CHECKING:
    from .settings import PostgresSettings

__all__ = ["NO_PARTITION", "STEPS", "ensure", "make_partitions", "partition_ms"]

NO_PARTITION: Final = "23514"
"""The state of a statement for whose rows there is no partition."""
_PARTITION: Final = (
    "CREATE TABLE IF NOT EXISTS {schema}.frames_$start PARTITION OF {schema}.frames FOR VALUES FROM ($start) TO ($end)"
)
_NOW: Final = Statement("SELECT {schema}.now_ms()")
_LOCK: Final = 0x43525059  # "CRPY"; an advisory lock of the database while its schema is migrated

CLAIM: Final = """
CREATE FUNCTION {schema}.claim(the_group int8, the_member text, lease int8, want int4, known int8[])
RETURNS TABLE (id int8, frame int8, start int4, count int4, deliveries int4, settled bytea, now int8, body bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moment int8 := {schema}.now_ms();
    few int4 := want;
    behind record;
    slice record;
    open int4;
    last bool;
    moved bool;
BEGIN
    now := moment;
    -- what dead members held, what was given back, and what is to be tried again
    FOR slice IN
        SELECT * FROM {schema}.claims c WHERE c.grp = the_group AND c.deadline <= moment
        ORDER BY c.deadline, c.xid, c.frame, c.start LIMIT want FOR UPDATE SKIP LOCKED
    LOOP
        open := slice.count - coalesce(bit_count(slice.settled), 0);
        IF open > few AND slice.settled IS NULL THEN
            UPDATE {schema}.claims c SET start = c.start + few, count = c.count - few WHERE c.id = slice.id;
            slice.count := few;
            open := few;
            INSERT INTO {schema}.claims AS c (grp, xid, frame, created, start, count, member, deadline, deliveries)
            VALUES (the_group, slice.xid, slice.frame, slice.created, slice.start, few, the_member, moment + lease, slice.deliveries + 1)
            RETURNING c.id INTO slice.id;
        ELSE
            UPDATE {schema}.claims c SET member = the_member, deadline = moment + lease, deliveries = c.deliveries + 1
            WHERE c.id = slice.id;
        END IF;
        id := slice.id;
        frame := slice.frame;
        start := slice.start;
        count := slice.count;
        deliveries := slice.deliveries + 1;
        settled := slice.settled;
        body := NULL;
        IF slice.frame <> ALL (known) THEN
            SELECT f.body INTO body FROM {schema}.frames f WHERE f.id = slice.frame AND f.created = slice.created;
            known := known || slice.frame;
        END IF;
        RETURN NEXT;
        few := few - open;
        EXIT WHEN few <= 0;
    END LOOP;
    IF few <= 0 THEN
        RETURN;
    END IF;
    -- new frames
    SELECT g.topic, g.past, g.present, g.xid, g.frame INTO behind FROM {schema}.groups g WHERE g.id = the_group FOR UPDATE;
    moved := behind.present IS NOT NULL;
    LOOP
        last := behind.present IS NULL;
        IF last THEN
            behind.present := pg_current_snapshot();
            behind.xid := '0';
            behind.frame := 0;
        END IF;
        -- of transactions that were open last time, and of those that began since
        FOR slice IN
            SELECT f.* FROM (
                SELECT x AS low, x AS high FROM pg_snapshot_xip(behind.past) x
                UNION ALL SELECT pg_snapshot_xmax(behind.past), pg_snapshot_xmax(behind.present)
            ) r CROSS JOIN LATERAL (
                SELECT f.id, f.xid, f.created, f.count, CASE WHEN f.id <> ALL (known) THEN f.body END AS body FROM {schema}.frames f
                WHERE f.topic = behind.topic AND f.xid >= r.low AND f.xid <= r.high AND (f.xid, f.id) > (behind.xid, behind.frame)
                  AND pg_visible_in_snapshot(f.xid, behind.present)
                ORDER BY f.xid, f.id LIMIT few
            ) f
        LOOP
            start := 0;
            count := least(few, slice.count);
            deliveries := 1;
            settled := NULL;
            frame := slice.id;
            body := slice.body;
            behind.xid := slice.xid;
            behind.frame := slice.id;
            moved := true;
            INSERT INTO {schema}.claims AS c (grp, xid, frame, created, start, count, member, deadline, deliveries)
            VALUES (the_group, slice.xid, slice.id, slice.created, 0, least(few, slice.count), the_member, moment + lease, 1)
            RETURNING c.id INTO id;
            IF few < slice.count THEN
                INSERT INTO {schema}.claims (grp, xid, frame, created, start, count, member, deadline, deliveries)
                VALUES (the_group, slice.xid, slice.id, slice.created, few, slice.count - few, '', 0, 0);
            END IF;
            RETURN NEXT;
            few := few - slice.count;
            EXIT WHEN few <= 0;
        END LOOP;
        EXIT WHEN few <= 0;
        behind.past := behind.present;
        behind.present := NULL;
        EXIT WHEN last;
    END LOOP;
    IF moved THEN
        UPDATE {schema}.groups g SET past = behind.past, present = behind.present, xid = behind.xid, frame = behind.frame
        WHERE g.id = the_group;
    END IF;
END $$"""
"""Claims up to so many events for a member of a group."""

STEPS: Final = (
    (
        # milliseconds since 1970 UTC by the clock of the server, which every rule about time here goes by
        """CREATE FUNCTION {schema}.now_ms() RETURNS int8 LANGUAGE sql AS
           'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8'""",
        """CREATE TABLE {schema}.stores (
            id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text COLLATE "C" NOT NULL UNIQUE)""",
        """CREATE TABLE {schema}.state (
            store int8 NOT NULL REFERENCES {schema}.stores,
            key text COLLATE "C" NOT NULL,
            etag int8 NOT NULL,
            expires int8,
            content_type text,
            value bytea NOT NULL,
            PRIMARY KEY (store, key)) WITH (fillfactor = 80)""",
        "CREATE INDEX state_expires ON {schema}.state (expires) WHERE expires IS NOT NULL",
        """CREATE TABLE {schema}.fences (
            store int8 NOT NULL REFERENCES {schema}.stores,
            key text COLLATE "C" NOT NULL,
            token int8 NOT NULL,
            PRIMARY KEY (store, key))""",
        """CREATE TABLE {schema}.counters (name text COLLATE "C" PRIMARY KEY, value int8 NOT NULL)""",
        # deleted: when; NULL: it is there
        """CREATE TABLE {schema}.configuration (
            store int8 NOT NULL REFERENCES {schema}.stores,
            grp text COLLATE "C" NOT NULL,
            label text COLLATE "C" NOT NULL,
            key text COLLATE "C" NOT NULL,
            version int8 NOT NULL,
            deleted int8,
            tags text,
            metadata text,
            value text NOT NULL,
            PRIMARY KEY (store, grp, label, key))""",
        "CREATE INDEX configuration_version ON {schema}.configuration (store, grp, label, version)",
        "CREATE INDEX configuration_deleted ON {schema}.configuration (deleted) WHERE deleted IS NOT NULL",
        # of each store: the version of its last change, and that of the last delete whose row is gone
        """CREATE TABLE {schema}.configuration_versions (
            store int8 PRIMARY KEY REFERENCES {schema}.stores,
            version int8 NOT NULL,
            swept int8 NOT NULL)""",
        # where services listen: leases of living processes
        """CREATE TABLE {schema}.services (
            instance text COLLATE "C" PRIMARY KEY,
            app_id text COLLATE "C" NOT NULL,
            address text NOT NULL,
            deadline int8 NOT NULL)""",
        "CREATE INDEX services_app ON {schema}.services (app_id)",
        # the secrets by which those who share a home know each other
        """CREATE TABLE {schema}.secrets (name text COLLATE "C" PRIMARY KEY, value bytea NOT NULL)""",
        # tokens of all locks: they outlive rows, and only grow
        "CREATE SEQUENCE {schema}.lock_token",
        "SELECT setval('{schema}.lock_token', {schema}.now_ms())",
        """CREATE TABLE {schema}.locks (
            store text COLLATE "C" NOT NULL,
            resource text COLLATE "C" NOT NULL,
            owner text NOT NULL,
            claim text COLLATE "C" NOT NULL,
            token int8 NOT NULL,
            deadline int8 NOT NULL,
            PRIMARY KEY (store, resource)) WITH (fillfactor = 50)""",
        """CREATE TABLE {schema}.lock_line (
            id int8 GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            store text COLLATE "C" NOT NULL,
            resource text COLLATE "C" NOT NULL,
            claim text COLLATE "C" NOT NULL)""",
        "CREATE INDEX lock_line_place ON {schema}.lock_line (store, resource, id)",
        """CREATE TABLE {schema}.topics (
            id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            pubsub text COLLATE "C" NOT NULL,
            name text COLLATE "C" NOT NULL,
            UNIQUE (pubsub, name))""",
        "CREATE SEQUENCE {schema}.frame",
        # frames of all topics, in the order of (xid, id); partitions are made and dropped by time
        """CREATE TABLE {schema}.frames (
            id int8 NOT NULL DEFAULT nextval('{schema}.frame'),
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            created int8 NOT NULL DEFAULT {schema}.now_ms(),
            topic int8 NOT NULL,
            count int4 NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (id, created)) PARTITION BY RANGE (created)""",
        "CREATE INDEX frames_topic ON {schema}.frames (topic, xid, id)",
        "ALTER TABLE {schema}.frames ALTER COLUMN body SET STORAGE EXTERNAL",
        """CREATE TABLE {schema}.delayed (
            id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            topic int8 NOT NULL REFERENCES {schema}.topics,
            due int8 NOT NULL,
            count int4 NOT NULL,
            body bytea NOT NULL)""",
        "CREATE INDEX delayed_due ON {schema}.delayed (topic, due)",
        # a group has seen all frames up to (xid, frame); of later ones those that have claims
        """CREATE TABLE {schema}.groups (
            id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            topic int8 NOT NULL REFERENCES {schema}.topics,
            name text COLLATE "C" NOT NULL,
            xid xid8 NOT NULL,
            frame int8 NOT NULL,
            seen int8 NOT NULL,
            UNIQUE (topic, name)) WITH (fillfactor = 50)""",
        # without a deadline: settled, and kept until the group's cursor has passed it
        """CREATE TABLE {schema}.claims (
            id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            grp int8 NOT NULL REFERENCES {schema}.groups ON DELETE CASCADE,
            xid xid8 NOT NULL,
            frame int8 NOT NULL,
            created int8 NOT NULL,
            start int4 NOT NULL,
            count int4 NOT NULL,
            member text COLLATE "C" NOT NULL,
            deadline int8,
            deliveries int4 NOT NULL,
            settled bytea) WITH (fillfactor = 70)""",
        "CREATE INDEX claims_due ON {schema}.claims (grp, deadline)",
        "CREATE INDEX claims_frame ON {schema}.claims (grp, frame)",
        """CREATE TABLE {schema}.schedule_jobs (
            id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            app text COLLATE "C" NOT NULL,
            name text COLLATE "C" NOT NULL,
            handler text COLLATE "C",
            spec text NOT NULL,
            data bytea,
            next int8,
            occurrences int8 NOT NULL,
            skipped int8 NOT NULL,
            created int8 NOT NULL,
            UNIQUE (app, name))""",
        "CREATE INDEX schedule_jobs_next ON {schema}.schedule_jobs (app, next) WHERE next IS NOT NULL",
        # a run is open, to be made or under way, as long as it has a deadline
        """CREATE TABLE {schema}.schedule_runs (
            id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            app text COLLATE "C" NOT NULL,
            name text COLLATE "C" NOT NULL,
            job int8 NOT NULL,
            run text NOT NULL,
            fire int8 NOT NULL,
            last int8 NOT NULL,
            count int8 NOT NULL,
            status text NOT NULL,
            attempt int8 NOT NULL,
            failures int8 NOT NULL,
            member text,
            deadline int8,
            started int8,
            ended int8,
            error text)""",
        "CREATE INDEX schedule_runs_open ON {schema}.schedule_runs (app, deadline) WHERE deadline IS NOT NULL",
        "CREATE INDEX schedule_runs_job ON {schema}.schedule_runs (job, id) WHERE deadline IS NOT NULL",
        "CREATE INDEX schedule_runs_name ON {schema}.schedule_runs (app, name, id)",
        "CREATE INDEX schedule_runs_ended ON {schema}.schedule_runs (ended) WHERE ended IS NOT NULL",
        # one version of a file; without an end it is there, else its chunks may go then
        "CREATE TABLE {schema}.contents (id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ends int8)",
        "CREATE INDEX contents_ends ON {schema}.contents (ends) WHERE ends IS NOT NULL",
        """CREATE TABLE {schema}.chunks (
            content int8 NOT NULL REFERENCES {schema}.contents ON DELETE CASCADE,
            number int4 NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (content, number))""",
        "ALTER TABLE {schema}.chunks ALTER COLUMN body SET STORAGE EXTERNAL",
        """CREATE TABLE {schema}.files (
            store text COLLATE "C" NOT NULL,
            name text COLLATE "C" NOT NULL,
            content int8 NOT NULL REFERENCES {schema}.contents,
            size int8 NOT NULL,
            modified int8 NOT NULL,
            content_type text,
            metadata text,
            PRIMARY KEY (store, name))""",
        "CREATE INDEX files_content ON {schema}.files (content)",
    ),
    (
        # what is visible in the past was claimed; what is in the present is being claimed, and was up to (xid, frame)
        "ALTER TABLE {schema}.groups ADD COLUMN past pg_snapshot, ADD COLUMN present pg_snapshot",
        "DELETE FROM {schema}.claims c USING {schema}.groups g WHERE g.id = c.grp AND (c.xid, c.frame) > (g.xid, g.frame)",
        "DELETE FROM {schema}.claims WHERE deadline IS NULL",
        """UPDATE {schema}.groups SET present = pg_current_snapshot(),
           past = format('%s:%s:', greatest(xid, '1'), greatest(xid, '1'))::pg_snapshot""",
        "ALTER TABLE {schema}.groups ALTER COLUMN past SET NOT NULL",
        "ALTER TABLE {schema}.claims ALTER COLUMN deadline SET NOT NULL",
        "DROP INDEX {schema}.claims_frame",
        "DROP FUNCTION IF EXISTS {schema}.claim(int8, text, int8, int4, int8[])",
        CLAIM,
        # a third of the disk; not everywhere is it built in
        """DO $$ BEGIN
            ALTER TABLE ONLY {schema}.frames ALTER COLUMN body SET STORAGE EXTENDED, ALTER COLUMN body SET COMPRESSION lz4;
            ALTER TABLE {schema}.delayed ALTER COLUMN body SET COMPRESSION lz4;
            ALTER TABLE {schema}.state ALTER COLUMN value SET COMPRESSION lz4;
        EXCEPTION WHEN feature_not_supported THEN END $$""",
    ),
)


def ensure(settings: PostgresSettings, op: Operation, where: str) -> None:
    """Bring the schema to the newest version, in one transaction, or with ``ensure = "check"`` look whether it is.

    Raises:
        UnsupportedError: a newer release wrote it, or it is missing or old and must not be changed.
        psycopg.Error: the server refused it, or cannot be reached.
    """
    left = op.remaining()
    hosts = settings.url.count(",") + 1  # at most; each of them has its share
    with psycopg.connect(
        settings.url, connect_timeout=5 if left is None else max(2, round(left / hosts))
    ) as connection:
        if left is not None:
            connection.execute(f"SET LOCAL statement_timeout = {max(1, int(left * 1000))}")
        schema = sql.Identifier(settings.schema)
        version = _version(connection, settings.schema)
        if version == len(STEPS):
            return
        if version < len(STEPS) and settings.ensure == "create":
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            version = _version(connection, settings.schema)  # another process may have been faster
        if version > len(STEPS):
            raise UnsupportedError(
                f"{where}: the schema {settings.schema!r} was written by a newer release (version {version}, this one knows up to "
                f"{len(STEPS)}): upgrade cloud-runtimes-python, or choose another schema"
            )
        if version == len(STEPS):
            return
        if settings.ensure == "check":
            raise UnsupportedError(
                f"{where}: the schema {settings.schema!r} {'is missing' if version < 0 else f'has version {version} of {len(STEPS)}'}: "
                'let an account that may create tables start once with ensure = "create"'
            )
        if version < 0:
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
            connection.execute(sql.SQL("CREATE TABLE {}.meta (version int4 NOT NULL)").format(schema))
            connection.execute(sql.SQL("INSERT INTO {}.meta VALUES (0)").format(schema))
            version = 0
        for step in STEPS[version:]:
            for statement in step:
                connection.execute(statement.replace("{schema}", settings.schema).encode())
        connection.execute(sql.SQL("UPDATE {}.meta SET version = %s").format(schema), (len(STEPS),))


def _version(connection: psycopg.Connection, schema: str) -> int:
    """Return the version of the schema; -1: there is none."""
    found = connection.execute(
        "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'meta'", (schema,)
    ).fetchone()
    if found is None:
        return -1
    row = connection.execute(sql.SQL("SELECT version FROM {}.meta").format(sql.Identifier(schema))).fetchone()
    return -1 if row is None else int(row[0])


def make_partitions(connection: Connection, retention: float) -> Flow[None]:
    """Make the partition of frames for now and the one after it."""
    now = (yield from connection.run(_NOW)).rows[0][0]
    width = partition_ms(retention)
    for start in (now // width * width, (now // width + 1) * width):
        sql = _PARTITION.replace("$start", str(start)).replace("$end", str(start + width))
        try:
            yield from connection.run(Statement(sql))
        except SqlFailure as error:
            if error.state not in ("42P17", "42P07"):  # it overlaps one of another width, or was just made
                raise


def partition_ms(retention: float) -> int:
    """Return how many milliseconds a partition of frames covers: a few are enough, since each claim looks into all."""
    minute = 60_000
    return max(10 * minute, int(retention * 1000 / 4) // minute * minute)
