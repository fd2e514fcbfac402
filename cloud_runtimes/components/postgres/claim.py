"""The function of the database that claims events for a member of a group. ``docs/explanation/postgres.md``, "The log", explains it."""

from __future__ import annotations

from typing import Final

UNSEEN: Final = (
    "f.xid >= pg_snapshot_xmin(g.past) AND NOT pg_visible_in_snapshot(f.xid, g.past) "
    "AND (g.present IS NULL OR (f.xid, f.id) > (g.xid, g.frame) OR NOT pg_visible_in_snapshot(f.xid, g.present))"
)
"""Whether a group ``g`` has claimed nothing of a frame ``f`` of its topic yet."""
BEGINNING: Final = (
    "SELECT CASE WHEN {begins} IS NULL OR f.id IS NOT NULL THEN '1:1:' ELSE pg_current_snapshot() END, "
    "CASE WHEN f.id IS NOT NULL THEN pg_current_snapshot() END, coalesce(f.xid, '0'), coalesce(f.id - 1, 0) "
    "FROM (SELECT) one LEFT JOIN LATERAL (SELECT f.xid, f.id FROM {{schema}}.frames f "
    "WHERE f.topic = {topic} AND f.created >= {begins} ORDER BY f.xid, f.id LIMIT 1) f ON true"
)
"""Columns of a group that begins so: as if all had been claimed that lies before the first frame it is to get, or all that there is."""
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
        SELECT * FROM {schema}.claims c WHERE c.grp = the_group AND c.deadline <= moment AND c.part IS NULL
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
