"""Jobs of which each is a document, changed by who knows its latest version: for stores of keys. What a store does for it, a subclass writes.

A member knows the documents and asks for those that changed since, so a look costs what happened. See `_schedule.job_documents`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from heapq import nsmallest
from typing import Any, Self, TypeAlias, TypeVar
from uuid import uuid4

from ...spi.flow import both_apis
from ...spi.inventory import JobInfo
from ...spi.operation import Operation
from ...spi.schedule import DueRun, JobSpec, Outcome, RunRecord, RunStatus, ScheduleDriver, StoredJob
from .._net.engines import EngineComponent, EngineDriver
from .job_documents import Document, Run
from .job_history import job_info, run_records
from .jobs import FEATURES
from .runs import LeasedRuns, RunToken

C = TypeVar("C", bound="EngineComponent[Any]")
T = TypeVar("T")
Steps: TypeAlias = Generator[Any, Any, T]
"""A flow of the component's engine."""


class DocumentSchedule(EngineDriver[C], ScheduleDriver):
    """The jobs of one application. Its flows are what the component's engine runs."""

    features = FEATURES

    def __init__(self, component: C, name: str, app: str | None = None) -> None:
        """``app``: the application, by default the component's own."""
        super().__init__(component, name)
        self.app: str = component.context.app_id if app is None else app

    # -- what a store does ------------------------------------------------

    @abstractmethod
    def read(self, names: Sequence[str]) -> Steps[list[Document]]:
        """Return a flow that reads the documents of some names."""

    @abstractmethod
    def write(self, documents: Sequence[Document], adds: bool = False) -> Steps[list[Document]]:
        """Return a flow that writes documents and the history of their runs; its result are those that another wrote first.

        ``adds``: wake the members, who do not expect what there is to do.
        """

    @abstractmethod
    def notify(self) -> Steps[None]:
        """Return a flow that wakes the members of all processes."""

    @abstractmethod
    def _current(self, name: str) -> Steps[tuple[Document, int]]:
        """Return a flow that reads the document of a name, with the time by which jobs go, milliseconds since 1970 UTC."""

    @abstractmethod
    def _names(self) -> Steps[list[str]]:
        """Return a flow that lists the names that have documents, in order."""

    @abstractmethod
    def _apps(self) -> Steps[list[str]]:
        """Return a flow that lists the applications with jobs, in order."""

    @abstractmethod
    def _of_app(self, app: str) -> Self:
        """Return the jobs of another application."""

    @abstractmethod
    def _history(self, name: str) -> Steps[list[Run]]:
        """Return a flow that reads the history of a name."""

    def _histories(self, names: Sequence[str]) -> Steps[list[list[Run]]]:
        """Return a flow that reads the latest runs in the histories of some names."""
        histories = []
        for name in names:
            histories.append((yield from self._history(name)))
        return histories

    def _change(self, name: str, change: Callable[[Document, int], bool], adds: bool) -> Steps[bool]:
        """Change a document; again where another was faster. ``False``: there was nothing to change."""
        while True:
            document, now = yield from self._current(name)
            if not change(document, now):
                return False
            if not (yield from self.write([document], adds)):
                return True

    # -- jobs -------------------------------------------------------------

    def _save(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> Steps[None]:
        def change(document: Document, now: int) -> bool:
            document.save(spec, overwrite, now, self.component.settings.max_value_bytes)
            return True

        yield from self._change(spec.name, change, True)

    save, save_async = both_apis(_save)

    def _get(self, op: Operation, name: str, /) -> Steps[StoredJob | None]:
        (document,) = yield from self.read([name])
        return document.stored()

    get, get_async = both_apis(_get)

    def _list_jobs(self, op: Operation, /) -> Steps[list[StoredJob]]:
        jobs = [document.stored() for document in (yield from self.read((yield from self._names())))]
        return [job for job in jobs if job is not None]

    list_jobs, list_jobs_async = both_apis(_list_jobs)

    def _delete(self, op: Operation, name: str, /) -> Steps[None]:
        yield from self._change(name, Document.delete, False)

    delete, delete_async = both_apis(_delete)

    # -- runs -------------------------------------------------------------

    def _run_now(self, op: Operation, name: str, /) -> Steps[str | None]:
        run = str(uuid4())
        done = yield from self._change(name, lambda document, now: document.run_now(run, now), True)
        return run if done else None

    run_now, run_now_async = both_apis(_run_now)

    def _list_runs(self, op: Operation, name: str, /) -> Steps[list[RunRecord]]:
        (document,) = yield from self.read([name])  # before: what leaves it is in the history by then
        return run_records(name, [*document.runs, *(yield from self._history(name))])

    list_runs, list_runs_async = both_apis(_list_runs)

    # -- all applications -------------------------------------------------

    def _all_jobs(self, op: Operation, prefix: str, limit: int, /) -> Steps[list[JobInfo]]:
        found: list[JobInfo] = []
        for app in (yield from self._apps()):
            jobs = self._of_app(app)
            names = [name for name in (yield from jobs._names()) if name.startswith(prefix)][: limit - len(found)]
            histories = yield from jobs._histories(names)
            for document, history in zip((yield from jobs.read(names)), histories, strict=True):
                info = job_info(app, document, history)
                found += [] if info is None else [info]
        return found

    jobs, jobs_async = both_apis(_all_jobs)

    def _pause(self, op: Operation, app: str, name: str, paused: bool, /) -> Steps[bool]:
        if app != self.app and app not in (yield from self._apps()):
            return False
        change = partial(Document.pause, paused=paused)
        return (yield from self._of_app(app)._change(name, change, not paused))

    pause, pause_async = both_apis(_pause)

    def _retry_run(self, op: Operation, app: str, name: str, run_id: str, /) -> Steps[RunStatus | None]:
        if app != self.app and app not in (yield from self._apps()):
            return None
        jobs = self._of_app(app)
        (document,) = yield from jobs.read([name])
        history = yield from jobs._history(name)
        runs = {run["id"]: run for run in [*document.runs, *history] if run["run"] == run_id}
        if not runs or document.job is None:
            return None
        last = runs[max(runs)]
        if last["status"] == "failed":
            yield from jobs._change(name, partial(Document.retry, run=last), True)
        status: RunStatus = last["status"]
        return status

    retry_run, retry_run_async = both_apis(_retry_run)


class DocumentRuns(LeasedRuns):
    """Member of an application's runners."""

    def __init__(self, driver: DocumentSchedule[Any], handlers: Callable[[], frozenset[str]]) -> None:
        super().__init__(driver.app, handlers)
        self._driver = driver
        self._documents: dict[str, Document] = {}
        self._looked_for: frozenset[str] | None = None
        self._dues: dict[str, int] = {}
        self._seen = 0
        # token of a run → its job
        self._names: dict[object, str] = {}

    @abstractmethod
    def _look(self, want: int) -> Steps[tuple[int, list[Document]]]:
        """Return a flow that tells the time by which jobs go, and the documents that were written since the last look.

        ``want``: the runs to claim, for a store that knows which documents are due.
        """

    def _read(self, names: Sequence[str]) -> Steps[list[Document]]:
        return self._driver.read(names)

    def _pauses(self, now: int) -> Iterable[int | None]:
        """Return the milliseconds until there is something to do, as far as that is known."""
        return [min(self._dues.values()) - now] if self._dues else ()

    def _until(self, now: int) -> int:
        """Return when a lease that begins now ends without a renewal."""
        return now + self.lease_ms

    def exchange(self, outcomes: Sequence[Outcome], want: int, /) -> Sequence[DueRun]:
        self._driver.component.check_open()
        renew = self._to_renew()
        if not (outcomes or renew or want):
            return ()
        begun = self._clock()
        try:
            steps = self._exchange(outcomes, renew, want)
            runs, renewed = self._driver.flows.run(self._operation(), steps)
        except BaseException:  # what was written is not known: look at all of it
            self._documents.clear()
            self._dues.clear()
            self._seen = 0
            raise
        if not (outcomes or renew or runs):
            return ()
        return self._take(outcomes, renew, renewed, runs, want, begun + self.lease_ms / 1000)

    def _exchange(
        self, outcomes: Sequence[Outcome], renew: Sequence[RunToken], want: int
    ) -> Steps[tuple[list[DueRun], list[RunToken]]]:
        driver = self._driver
        if self._look_again():
            self._looked_for = None
        now, fresh = yield from self._look(want)
        for document in fresh:
            known = self._documents.get(document.name)
            if known is None or known.version < document.version:
                self._documents[document.name] = document
        handlers = self._handlers()
        self._look_at(fresh, handlers)
        runs: dict[str, DueRun] = {}
        kept: set[RunToken] = set()
        names: set[str] | None = None
        given_back = any(not outcome.begun for outcome in outcomes)
        while True:
            changed = self._settle(outcomes, names, now) + self._renew(bool(renew), names, now, kept)
            if names is None:
                changed += self._claim(want, now, runs)
            changed = list(dict.fromkeys(changed))
            refused = yield from driver.write(changed)
            names = {document.name for document in refused}
            runs = {name: run for name, run in runs.items() if name not in names}
            self._documents |= {document.name: document for document in (yield from self._read(list(names)))}
            self._look_at(changed, handlers)
            if not refused:
                break
        if given_back:
            yield from driver.notify()
        self._names = {token: name for token, name in self._names.items() if token in kept}
        self._names |= {run.token: name for name, run in runs.items()}
        if want:
            self._is_due(self._pauses(now))
        return list(runs.values()), [token for token in renew if token in kept]

    def _look_at(self, changed: Iterable[Document], handlers: frozenset[str]) -> None:
        """Note when there is something to do, of documents that have changed; of all where the process has other handlers."""
        if handlers != self._looked_for:
            self._looked_for, self._dues = handlers, {}
            changed = list(self._documents.values())
        for name in {document.name for document in changed}:
            document = self._documents[name]
            due = None if version_of(document) in self._aside else document.due(handlers)
            if due is None:
                self._dues.pop(name, None)
            else:
                self._dues[name] = due
            if not document.exists:
                del self._documents[name]

    def _of(self, token: object, names: set[str] | None) -> Document | None:
        """Return the document that has a run, where it is one of ``names``."""
        name = self._names.get(token)
        return None if name is None or (names is not None and name not in names) else self._documents.get(name)

    def _settle(self, outcomes: Sequence[Outcome], names: set[str] | None, now: int) -> list[Document]:
        changed = []
        for outcome in outcomes:
            document = self._of(outcome.token, names)
            if document is not None and document.settle(outcome, self._member, now):
                changed.append(document)
        return changed

    def _renew(self, always: bool, names: set[str] | None, now: int, kept: set[RunToken]) -> list[Document]:
        """Renew leases, those that have ended too: where the clock was set forward, their holder lives."""
        changed = []
        for token in self._held:
            document = self._of(token, names)
            if document is None:
                continue
            kept.discard(token)
            held, renewed = document.renew(token, self._member, now, self._until(now), always)
            if held:
                kept.add(token)
            if renewed:
                changed.append(document)
        return changed

    def _claim(self, want: int, now: int, runs: dict[str, DueRun]) -> list[Document]:
        changed = []
        for _, name in nsmallest(want, ((due, name) for name, due in self._dues.items() if due <= now)):
            document = self._documents[name]
            version = version_of(document)
            advance = partial(self._advance, version=version, now=now)
            run = document.claim(self._app, self._member, now, self._until(now), advance)
            if version in self._aside:
                del self._dues[name]
                continue
            if run is not None:
                runs[name] = run
            changed.append(document)
        return changed


def version_of(document: Document) -> str:
    """Return which job and definition a document is, for jobs that are set aside."""
    return f"{document.name}:{document.version}"
