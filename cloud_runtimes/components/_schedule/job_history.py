"""Runs of a job that is a document, as a history, another home and ``client.admin`` show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import takewhile

from ...spi.inventory import JobInfo
from ...spi.portable import JobRun
from ...spi.schedule import RunRecord
from .._unreadable import read_entries
from .job_documents import RECORD_COLUMNS, Document, Run, check_run
from .jobs import info, records


def portable_run(run: Run) -> JobRun:
    """Return a run as another home gets it; one that is held begins again there."""
    deadline = run["deadline"]
    return JobRun(
        run_id=run["run"],
        fire_ms=run["fire"],
        last_ms=run["last"],
        occurrences=run["count"],
        status=run["status"] if deadline is None else "waiting",
        attempt=run["attempt"],
        failures=run["failures"],
        due_ms=deadline if run["member"] is None else 0,
        started_ms=run["started"],
        ended_ms=run["ended"],
        error=run["error"],
    )


def _ended(slot: bytes) -> Run:
    run = check_run(json.loads(slot))
    run["slot"] + 0
    return run


def read_runs(name: str, slots: Iterable[bytes]) -> list[Run]:
    """Return the runs of a history, without those that cannot be read."""
    return list(read_entries(f"history of job {name!r}", slots, lambda slot: "record", _ended))


def job_info(app: str, document: Document, history: Sequence[Run]) -> JobInfo | None:
    """Return a job as ``client.admin`` shows it; ``None``: there is none now."""
    if (job := document.stored()) is None:
        return None
    runs = {run["id"]: run for run in [*document.runs, *history]}
    ended = [run for _, run in sorted(runs.items()) if run["status"] in ("succeeded", "failed")]
    failures = list(takewhile(lambda run: run["status"] == "failed", reversed(ended)))
    last = ended[-1] if ended else {"ended": None, "error": None}
    running = any(run["status"] == "running" for run in document.runs)
    return info(app, job, last["ended"], last["error"], len(failures), running=running)


def run_records(name: str, runs: Sequence[Run]) -> list[RunRecord]:
    """Return runs as what the caller gets, the oldest first; of those with one number, the last counts."""
    runs_by_id = {run["id"]: run for run in runs}
    return records(
        name, [[name, *(runs_by_id[id][column] for column in RECORD_COLUMNS[1:])] for id in sorted(runs_by_id)]
    )
