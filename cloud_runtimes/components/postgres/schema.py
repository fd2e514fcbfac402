"""The tables, their version, and the migration of older ones.

``meta.version`` counts the steps applied; a step is never edited once released. A schema with more steps than are known here was written by a newer release and is refused untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from ...errors import UnsupportedError
from ...spi.operation import Operation
from .adopt import adopt
from .connection import Connection, Flow
from .failures import SqlFailure
from .statement import Statement

if TYPE_CHECKING:
    from .settings import PostgresSettings

__all__ = ["NO_PARTITION", "STEPS", "ensure", "make_partitions", "partition_ms"]

NO_PARTITION: Final = "23514"
"""The state of a statement for whose rows there is no partition."""
_PARTITION: Final = Statement("SELECT {schema}.make_partition($1, $2)", "int8 int8")
_NOW: Final = Statement("SELECT {schema}.now_ms()")
_LOCK: Final = 0x43525059  # "CRPY"; an advisory lock of the database while its schema is migrated

CLAIM: Final = """
CREATE FUNCTION {schema}.claim(the_group int8, the_member text, lease int8, want int4, known int8[])
RETURNS TABLE (id int8, frame int8, start int4, count int4, deliveries int4, settled bytea, now int8, body bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    taken int8[] := '{}';
    claim int8;
    moment int8 := {schema}.now_ms();
    few int4 := want;
    behind record;
    slice record;
    open int4;
    low xid8;
    last record;
    moved bool := false;
BEGIN
    -- what dead members held, what was given back, and what is to be tried again
    FOR slice IN
        SELECT * FROM {schema}.claims c WHERE c.grp = the_group AND c.deadline <= moment
        ORDER BY c.deadline, c.xid, c.frame, c.start LIMIT want FOR UPDATE SKIP LOCKED
    LOOP
        EXIT WHEN few <= 0;
        open := slice.count - coalesce(bit_count(slice.settled), 0);
        IF open > few AND slice.settled IS NULL THEN
            INSERT INTO {schema}.claims (grp, xid, frame, created, start, count, member, deadline, deliveries)
            VALUES (the_group, slice.xid, slice.frame, slice.created, slice.start + few, slice.count - few, '', 0, slice.deliveries);
            slice.count := few;
            open := few;
        END IF;
        UPDATE {schema}.claims c SET member = the_member, deadline = moment + lease, deliveries = c.deliveries + 1, count = slice.count
        WHERE c.id = slice.id;
        few := few - open;
        taken := taken || slice.id;
    END LOOP;
    IF few > 0 THEN
    -- new frames; what commits later has this or a higher transaction id
    SELECT g.topic, g.xid, g.frame INTO behind FROM {schema}.groups g WHERE g.id = the_group FOR UPDATE;
    low := pg_snapshot_xmin(pg_current_snapshot());
    FOR slice IN
        SELECT f.id, f.xid, f.created, f.count FROM {schema}.frames f
        WHERE f.topic = behind.topic AND (f.xid, f.id) > (behind.xid, behind.frame)
          AND NOT EXISTS (SELECT 1 FROM {schema}.claims c WHERE c.grp = the_group AND c.frame = f.id)
        ORDER BY f.xid, f.id LIMIT few
    LOOP
        open := least(few, slice.count);
        INSERT INTO {schema}.claims AS c (grp, xid, frame, created, start, count, member, deadline, deliveries)
        VALUES (the_group, slice.xid, slice.id, slice.created, 0, open, the_member, moment + lease, 1)
        RETURNING c.id INTO claim;
        taken := taken || claim;
        IF open < slice.count THEN
            INSERT INTO {schema}.claims (grp, xid, frame, created, start, count, member, deadline, deliveries)
            VALUES (the_group, slice.xid, slice.id, slice.created, open, slice.count - open, '', 0, 0);
        END IF;
        last := slice;
        moved := true;
        few := few - open;
        EXIT WHEN few <= 0;
    END LOOP;
    -- the cursor never passes a transaction that may still be open
    IF moved OR EXISTS (SELECT 1 FROM {schema}.claims c WHERE c.grp = the_group AND c.deadline IS NULL) THEN
    IF few > 0 OR last.xid >= low THEN
        behind.xid := low;
        behind.frame := 0;
    ELSE
        behind.xid := last.xid;
        behind.frame := last.id;
    END IF;
    UPDATE {schema}.groups g SET xid = behind.xid, frame = behind.frame
    WHERE g.id = the_group AND (g.xid, g.frame) < (behind.xid, behind.frame);
    DELETE FROM {schema}.claims c
    WHERE c.grp = the_group AND c.deadline IS NULL AND (c.xid, c.frame) <= (behind.xid, behind.frame);
    END IF;
    END IF;
    RETURN QUERY
        SELECT c.id, c.frame, c.start, c.count, c.deliveries, c.settled, moment,
            CASE WHEN c.frame <> ALL (known) THEN (SELECT f.body FROM {schema}.frames f WHERE f.id = c.frame AND f.created = c.created) END
        FROM unnest(taken) WITH ORDINALITY AS t(id, place) JOIN {schema}.claims c ON c.id = t.id ORDER BY t.place;
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
        # only an owner may do these, and an application's account need not be one
        """CREATE FUNCTION {schema}.make_partition(low int8, high int8) RETURNS void
           LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
           EXECUTE format('CREATE TABLE IF NOT EXISTS {schema}.frames_%s PARTITION OF {schema}.frames FOR VALUES FROM (%s) TO (%s)',
               low, low, high);
           END $$""",
        """CREATE FUNCTION {schema}.drop_partition(low int8) RETURNS void
           LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
           EXECUTE format('DROP TABLE {schema}.frames_%s', low);
           END $$""",
        "REVOKE EXECUTE ON FUNCTION {schema}.make_partition, {schema}.drop_partition FROM PUBLIC",
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
        CLAIM,
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
)


def ensure(settings: PostgresSettings, op: Operation, where: str) -> None:
    """Bring the schema to the newest version and to this server, in one transaction; ``ensure = "check"`` only looks whether it is the newest.

    Raises:
        UnsupportedError: a newer release wrote it, or it is missing or old and must not be changed.
        psycopg.Error: the server refused it, or cannot be reached.
    """
    left = op.remaining()
    with psycopg.connect(settings.url, connect_timeout=10 if left is None else max(2, round(left))) as connection:
        if left is not None:
            connection.execute(f"SET LOCAL statement_timeout = {max(1, int(left * 1000))}")
        schema = sql.Identifier(settings.schema)
        version = _version(connection, settings.schema)
        if version == len(STEPS):
            adopt(connection, settings.schema, where)
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
            found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (settings.schema,)).fetchone()
            if found is None:  # with IF NOT EXISTS too it needs a right that the schema's owner may lack
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            connection.execute(sql.SQL("CREATE TABLE {}.meta (version int4 NOT NULL)").format(schema))
            connection.execute(sql.SQL("INSERT INTO {}.meta VALUES (0)").format(schema))
            version = 0
        for step in STEPS[version:]:
            for statement in step:
                connection.execute(statement.replace("{schema}", settings.schema).encode())
        connection.execute(sql.SQL("UPDATE {}.meta SET version = %s").format(schema), (len(STEPS),))
        adopt(connection, settings.schema, where)


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
        try:
            yield from connection.run(_PARTITION, start, start + width)
        except SqlFailure as error:
            if error.state not in ("42P17", "42P07"):  # it overlaps one of another width, or was just made
                raise


def partition_ms(retention: float) -> int:
    """Return how many milliseconds a partition of frames covers."""
    minute = 60_000
    return max(10 * minute, min(1440 * minute, int(retention * 1000 / 4) // minute * minute))
