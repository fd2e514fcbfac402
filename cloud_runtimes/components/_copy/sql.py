"""State, configuration and jobs of an SQL database as records that move to another one. The tables of our SQL components are alike, so their statements are written once; `Tables` says what is other."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ...spi.configuration import ConfigurationDriver
from ...spi.operation import Operation
from ...spi.portable import (
    BATCH_BYTES,
    BATCH_RECORDS,
    JobRecord,
    JobRun,
    Portable,
    Records,
    StateRecord,
)
from ...spi.state import StoredValue
from .._schedule.jobs import COLUMNS, stored, written
from .stores import StoredConfiguration


class Sql(NamedTuple):
    """A statement.

    Attributes:
        text: with ``$1``, ``$2`` …, ``= ANY ($1)`` for one of a list, ``{schema}`` before tables, and what else `Tables` puts in.
        types: of the parameters, as PostgreSQL calls them.
    """

    text: str
    types: str = ""


Rows: TypeAlias = list[tuple[Any, ...]]
Calls: TypeAlias = Sequence[tuple[Sql, Sequence[Any]]]
Steps: TypeAlias = Generator[Calls, list[Rows], Any]
"""A transaction: it yields statements that are sent together, and gets the rows of each. It may return the numbers of topics, whose subscribers are woken."""


class Tables(ABC):
    """The tables of a database.

    ``{now}`` in a statement is the wall clock in milliseconds since 1970 UTC, ``{boot}`` the column with the boot by whose clock a deadline is, ``{and_boot}`` this column among those of an insert, ``{this_boot}`` its value, ``{current}`` whether a row is of this boot, ``{lasts}`` whether its deadline is yet to come. ``FOR UPDATE`` locks rows where others may write meanwhile.
    """

    @abstractmethod
    def query(self, op: Operation, sql: Sql, *values: Any) -> Rows:
        """Run a SELECT."""

    @abstractmethod
    def write(self, op: Operation, steps: Callable[[], Steps]) -> None:
        """Run a transaction."""

    @abstractmethod
    def due_ms(self, deadline: int, boot: str) -> int:
        """Return when a deadline is, milliseconds since 1970 UTC; 0: it is over."""

    @abstractmethod
    def deadline(self, due_ms: int) -> int:
        """Return the deadline of such a time."""


def few(table: str, order: str, size: str, where: str) -> str:
    """Return a query for the next rows of a table: their places in its order, ``before`` with the bytes that come before each."""
    return (
        f"(SELECT {order}, sum(size) OVER (ORDER BY {order}) - size AS before FROM "
        f"(SELECT {order}, coalesce(length({size}), 0) AS size FROM {{schema}}.{table} WHERE {where} ORDER BY {order} LIMIT {BATCH_RECORDS}) AS a) AS part"
    )


_BUDGET: Final = f"part.before < {BATCH_BYTES}"
_LIVING: Final = "(expires IS NULL OR expires > {now})"
_STORE: Final = "store = (SELECT id FROM {schema}.stores WHERE name = $1)"
NAMES: Final[Mapping[str, Sql]] = {
    "configuration": Sql(
        "SELECT name FROM {schema}.stores s WHERE EXISTS "
        "(SELECT 1 FROM {schema}.configuration c WHERE c.store = s.id AND c.deleted IS NULL) ORDER BY name"
    ),
    "lock": Sql("SELECT DISTINCT store FROM {schema}.locks ORDER BY store"),
    "pubsub": Sql("SELECT DISTINCT pubsub FROM {schema}.topics ORDER BY pubsub"),
    "schedule": Sql("SELECT DISTINCT app FROM {schema}.schedule_jobs ORDER BY app"),
    "state": Sql(
        "SELECT name FROM {schema}.stores s WHERE EXISTS (SELECT 1 FROM {schema}.state t WHERE t.store = s.id) "
        "OR EXISTS (SELECT 1 FROM {schema}.fences f WHERE f.store = s.id) ORDER BY name"
    ),
}
"""Service → its names that have data."""

# -- state ----------------------------------------------------------------

_VALUE: Final = "s.key, s.value, s.content_type, s.etag, s.expires"
_COUNT_STATE: Final = Sql(
    f"SELECT (SELECT count(*) FROM {{schema}}.state WHERE {_STORE}) + (SELECT count(*) FROM {{schema}}.fences f "
    f"WHERE {_STORE} AND NOT EXISTS (SELECT 1 FROM {{schema}}.state s WHERE s.store = f.store AND s.key = f.key))",
    "text",
)
_VALUES_AFTER: Final = Sql(
    f"SELECT {_VALUE} FROM {few('state', 'key', 'value', f'{_STORE} AND key > $2 AND {_LIVING}')} "
    f"JOIN {{schema}}.state s ON s.key = part.key WHERE s.{_STORE} AND {_BUDGET} ORDER BY s.key",
    "text text",
)
_VALUES: Final = Sql(f"SELECT {_VALUE} FROM {{schema}}.state s WHERE {_STORE} AND key = ANY ($2)", "text text[]")
_FENCES_AFTER: Final = Sql(
    f"SELECT key, token FROM {{schema}}.fences f WHERE {_STORE} AND key > $2 AND NOT EXISTS (SELECT 1 FROM {{schema}}.state s "
    f"WHERE s.store = f.store AND s.key = f.key AND {_LIVING}) ORDER BY key LIMIT {BATCH_RECORDS}",
    "text text",
)
_FENCES: Final = Sql(f"SELECT key, token FROM {{schema}}.fences WHERE {_STORE} AND key = ANY ($2)", "text text[]")
_MAKE_STORE: Final = Sql("INSERT INTO {schema}.stores (name) VALUES ($1) ON CONFLICT DO NOTHING", "text")
_PUT_VALUE: Final = Sql(
    "INSERT INTO {schema}.state (store, key, value, content_type, etag, expires) "
    "SELECT id, $2, $3, $4, $5, $6 FROM {schema}.stores WHERE name = $1 ON CONFLICT (store, key) DO UPDATE SET "
    "value = excluded.value, content_type = excluded.content_type, etag = excluded.etag, expires = excluded.expires",
    "text text bytea text int8 int8",
)
_PUT_FENCE: Final = Sql(
    "INSERT INTO {schema}.fences AS f (store, key, token) SELECT id, $2, $3 FROM {schema}.stores WHERE name = $1 "
    "ON CONFLICT (store, key) DO UPDATE SET token = excluded.token WHERE f.token < excluded.token",
    "text text int8",
)


class PortableState(Portable):
    """A state store: its values, and then the fences of keys that have none.

    ``raise_tokens`` makes the next tokens of locks higher than ``$1``, a fence that was copied.
    """

    def __init__(self, tables: Tables, name: str, raise_tokens: Sql) -> None:
        self._tables = tables
        self._name = name
        self._raise_tokens = raise_tokens

    def count(self, op: Operation, /) -> int:
        return int(self._tables.query(op, _COUNT_STATE, self._name)[0][0])

    def export(self, op: Operation, after: StateRecord | None, /) -> list[StateRecord]:
        if after is None or after.value is not None:
            rows = self._tables.query(op, _VALUES_AFTER, self._name, after.key if after else "")
            if rows:
                return self._records(op, rows)
            after = None
        rows = self._tables.query(op, _FENCES_AFTER, self._name, after.key if after else "")
        return [StateRecord(key, None, token) for key, token in rows]

    def find(self, op: Operation, keys: Sequence[str], /) -> dict[str, StateRecord]:
        records = self._records(op, self._tables.query(op, _VALUES, self._name, keys))
        fences = self._tables.query(op, _FENCES, self._name, keys)
        return {key: StateRecord(key, None, token) for key, token in fences} | {each.key: each for each in records}

    def _records(self, op: Operation, rows: Rows) -> list[StateRecord]:
        fences: dict[Any, Any] = dict(self._tables.query(op, _FENCES, self._name, [row[0] for row in rows]))
        return [
            StateRecord(key, StoredValue(data, content_type, f"{etag:016x}", expires), fences.get(key))
            for key, data, content_type, etag, expires in rows
        ]

    def put(self, op: Operation, records: Records, /) -> None:
        def steps() -> Steps:
            calls: list[tuple[Sql, Sequence[Any]]] = [(_MAKE_STORE, (self._name,))]
            for key, value, fence in records:
                if value is not None:
                    data, content_type, etag, expires = value
                    calls.append((_PUT_VALUE, (self._name, key, data, content_type, _etag(etag), expires)))
                if fence is not None:
                    calls.append((_PUT_FENCE, (self._name, key, fence)))
            if fences := [fence for _, _, fence in records if fence is not None]:
                calls.append((self._raise_tokens, (max(fences),)))
            yield calls

        self._tables.write(op, steps)


def _etag(text: str | None) -> int:
    """Return an etag as our tables have it, so that one that an application holds stays current; another where it is of another kind of store."""
    try:
        value = int(text or "", 16)
    except ValueError:
        value = -1
    return value if 0 <= value < 2**63 else random.getrandbits(63)


# -- configuration --------------------------------------------------------

_PLACES: Final = Sql(
    f"SELECT DISTINCT grp, label FROM {{schema}}.configuration WHERE {_STORE} AND deleted IS NULL ORDER BY grp, label",
    "text",
)


def stored_configuration(tables: Tables, name: str, driver: ConfigurationDriver) -> StoredConfiguration:
    """Return a configuration store; its driver writes, so that subscribers of the target learn of it."""
    return StoredConfiguration(driver, lambda op: tables.query(op, _PLACES, name))


# -- jobs -----------------------------------------------------------------

_COUNT_JOBS: Final = Sql("SELECT count(*) FROM {schema}.schedule_jobs WHERE app = $1", "text")
_JOBS_AFTER: Final = Sql(
    f"SELECT {COLUMNS} FROM {few('schedule_jobs', 'name', 'data', 'app = $1 AND name > $2')} "
    f"JOIN {{schema}}.schedule_jobs j ON j.app = $1 AND j.name = part.name WHERE {_BUDGET} ORDER BY j.name",
    "text text",
)
_JOBS: Final = Sql(
    f"SELECT {COLUMNS} FROM {{schema}}.schedule_jobs j WHERE app = $1 AND name = ANY ($2)", "text text[]"
)
_RUNS: Final = Sql(
    "SELECT name, run, fire, last, count, status, attempt, failures, member, deadline, {boot}, started, ended, error "
    "FROM {schema}.schedule_runs WHERE app = $1 AND name = ANY ($2) ORDER BY id",
    "text text[]",
)
_DROP_RUNS: Final = Sql("DELETE FROM {schema}.schedule_runs WHERE app = $1 AND name = ANY ($2)", "text text[]")
_DROP_JOBS: Final = Sql("DELETE FROM {schema}.schedule_jobs WHERE app = $1 AND name = ANY ($2)", "text text[]")
_PUT_JOB: Final = Sql(
    "INSERT INTO {schema}.schedule_jobs (app, name, handler, spec, data, next, occurrences, skipped, created, paused) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
    "text text text text bytea int8 int8 int8 int8 bool",
)
_PUT_RUN: Final = Sql(
    "INSERT INTO {schema}.schedule_runs (app, name, job, run, fire, last, count, status, attempt, failures, deadline, started, ended, "
    "error{and_boot}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14{this_boot})",
    "text text int8 text int8 int8 int8 text int8 int8 int8 int8 int8 text",
)


class PortableJobs(Portable):
    """The jobs of an application, with their runs."""

    def __init__(self, tables: Tables, app: str) -> None:
        self._tables = tables
        self._app = app

    def count(self, op: Operation, /) -> int:
        return int(self._tables.query(op, _COUNT_JOBS, self._app)[0][0])

    def export(self, op: Operation, after: JobRecord | None, /) -> list[JobRecord]:
        last = after.key if after else ""
        while rows := self._tables.query(op, _JOBS_AFTER, self._app, last):
            if records := self._records(op, rows):
                return records
            last = rows[-1][0]  # none of them could be read
        return []

    def find(self, op: Operation, keys: Sequence[str], /) -> dict[str, JobRecord]:
        return {each.key: each for each in self._records(op, self._tables.query(op, _JOBS, self._app, keys))}

    def _records(self, op: Operation, rows: Rows) -> list[JobRecord]:
        runs: dict[str, list[JobRun]] = {row[0]: [] for row in rows}
        for name, *run in self._tables.query(op, _RUNS, self._app, list(runs)):
            runs[name].append(self._run(*run))
        jobs = map(stored, rows)
        return [JobRecord(job.spec.name, job, tuple(runs[job.spec.name])) for job in jobs if job.error is None]

    def _run(self, *row: Any) -> JobRun:
        run, fire, last, count, status, attempt, failures, member, deadline, boot, started, ended, error = row
        due = None
        if deadline is not None:  # who held it is gone
            due, status = 0 if member is not None else self._tables.due_ms(deadline, boot), "waiting"
        return JobRun(run, fire, last, count, status, attempt, failures, due, started, ended, error)

    def put(self, op: Operation, records: Records, /) -> None:
        def steps() -> Steps:
            names = [record.key for record in records]
            yield [(_DROP_RUNS, (self._app, names)), (_DROP_JOBS, (self._app, names))]
            inserted = yield [(_PUT_JOB, self._job(record)) for record in records]
            runs = [
                (_PUT_RUN, self._row(record.key, rows[0][0], run))
                for record, rows in zip(records, inserted, strict=True)
                for run in record.runs
            ]
            if runs:
                yield runs

        self._tables.write(op, steps)

    def _job(self, record: JobRecord) -> tuple[Any, ...]:
        spec, *state, _ = record.job
        handler = spec.target if isinstance(spec.target, str) else None
        return self._app, record.key, handler, written(spec), spec.data, *state

    def _row(self, name: str, job: int, run: JobRun) -> tuple[Any, ...]:
        deadline = None if run.due_ms is None else self._tables.deadline(run.due_ms)
        return (self._app, name, job, *run[:7], deadline, *run[8:])
