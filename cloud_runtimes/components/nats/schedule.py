"""Jobs on NATS, and their runs: a bucket for each application, with a document for each job. See `.jobs`.

A member knows the documents and asks for those that changed since, so a look costs what happened. Its holder renews a run's lease; when the holder dies it ends by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from ...spi import schedule as spi
from ...spi.operation import Operation
from ...spi.schedule import DueRun, JobSpec, Outcome, RunRecord, RunSource, ScheduleDriver, StoredJob
from .._notify import Waiter
from .._runs import CHANNEL, LeasedRuns, RunToken
from .buckets import Bucket
from .entries import Entry, Put, decode, encode
from .failures import Refused
from .jobs import Document, Run, records
from .requests import Batch, Flow, Request

if TYPE_CHECKING:
    from . import NatsComponent

__all__ = ["NatsSchedule"]

_WINDOW: Final = 500


class NatsSchedule(ScheduleDriver):
    """The jobs of one application."""

    features = frozenset({spi.CLAIMS, spi.LIST_JOBS, spi.LIST_RUNS, spi.MISFIRE, spi.PROGRESS, spi.RUN_NOW})

    def __init__(self, component: NatsComponent, name: str) -> None:
        self.component = component
        self.app = component.context.app_id
        self.bucket = Bucket(component.engine, "schedule", self.app)
        self.channel = f"{CHANNEL}:{self.app}"
        self._history_ms = int(component.settings.history * 1000)

    # -- documents --------------------------------------------------------

    def _subject(self, name: str) -> str:
        return self.bucket.subject("j", name)

    def document(self, name: str, entry: Entry) -> Document:
        """Return what a message of a name has."""
        return Document(name, entry, self.component.settings.history_runs)

    def read(self, names: Sequence[str]) -> Flow[list[Document]]:
        """Return what there is of some names."""
        found = []
        for first in range(0, len(names), _WINDOW):
            some = names[first : first + _WINDOW]
            entries = yield from self.bucket.read([self._subject(name) for name in some])
            found += [self.document(name, entry) for name, entry in zip(some, entries, strict=True)]
        return found

    def since(self, sequence: int) -> Flow[tuple[int, int, list[Document]]]:
        """Return the server's time, and what was written behind a sequence, with its last one."""
        where = f"{self.bucket.root}j."
        now, entries = yield from self.bucket.since(f"{where}*", sequence)
        if entries:
            sequence = entries[-1][1].sequence
        return now, sequence, [self.document(decode(subject[len(where) :]), entry) for subject, entry in entries]

    def write(self, documents: Sequence[Document]) -> Flow[list[Document]]:
        """Write documents and the history of their runs; returns those that another wrote first."""
        done = yield from self.bucket.put([self._put(document) for document in documents])
        refused, ended = [], []
        for document, sequence in zip(documents, done, strict=True):
            if isinstance(sequence, Refused):
                refused.append(document)
            else:
                document.sequence = sequence
                ended.append(document)
        yield from self.note(ended)
        over = [document for document in ended if document.is_over]
        if over:
            yield from self.bucket.put([Put(self._subject(each.name), None, each.sequence) for each in over])
            for document in over:
                document.exists = False
        return refused

    def _put(self, document: Document) -> Put:
        return Put(self._subject(document.name), document.message(), document.sequence)

    def _history(self, name: str, slot: int | str) -> str:
        return f"{self.bucket.root}r.{encode(name)}.{slot}"

    def note(self, documents: Iterable[Document]) -> Flow[None]:
        """Write to the history which runs have ended, and leave them out of what is written next."""
        puts = []
        for document in documents:
            ended = document.ended()
            for run in ended:
                subject = self._history(document.name, run["slot"])
                puts.append(Put(subject, json.dumps(run).encode(), ttl_ms=self._history_ms))
            document.forget(ended)
        for first in range(0, len(puts), _WINDOW):
            yield from self.bucket.put(puts[first : first + _WINDOW])

    def _change(self, name: str, change: Callable[[Document, int], bool], notify: bool) -> Flow[bool]:
        """Change a document; again where another was faster. ``False``: there was nothing to change."""
        while True:
            entry, now = yield from self.bucket.read_now(self._subject(name))
            document = self.document(name, entry)
            if document.exists:
                yield from self.note([document])
            else:
                document.follow((yield from self.bucket.read_now(self._history(name, "*")))[0])
            if not change(document, now):
                return False
            if not (yield from self.write([document])):
                if notify:
                    yield from self.notify()
                return True

    def notify(self) -> Flow[None]:
        """Wake the members of all processes."""
        yield Batch(Request(self.component.engine.notifier.subject(self.channel), answers=0))

    # -- jobs -------------------------------------------------------------

    def save(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> None:
        self.component.engine.run(op, self._save(spec, overwrite))

    async def save_async(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> None:
        await self.component.engine.run_async(op, self._save(spec, overwrite))

    def _save(self, spec: JobSpec, overwrite: bool) -> Flow[bool]:
        def change(document: Document, now: int) -> bool:
            document.save(spec, overwrite, now, self.component.settings.max_value_bytes)
            return True

        return (yield from self._change(spec.name, change, True))

    def get(self, op: Operation, name: str, /) -> StoredJob | None:
        return self.component.engine.run(op, self._get(name))

    async def get_async(self, op: Operation, name: str, /) -> StoredJob | None:
        return await self.component.engine.run_async(op, self._get(name))

    def _get(self, name: str) -> Flow[StoredJob | None]:
        (document,) = yield from self.read([name])
        return document.stored()

    def list_jobs(self, op: Operation, /) -> list[StoredJob]:
        return self.component.engine.run(op, self._list_jobs())

    async def list_jobs_async(self, op: Operation, /) -> list[StoredJob]:
        return await self.component.engine.run_async(op, self._list_jobs())

    def _list_jobs(self) -> Flow[list[StoredJob]]:
        where = f"{self.bucket.root}j."
        names = sorted([decode(subject[len(where) :]) for subject in (yield from self.bucket.subjects(f"{where}*"))])
        jobs = [document.stored() for document in (yield from self.read(names))]
        return [job for job in jobs if job is not None]

    def delete(self, op: Operation, name: str, /) -> None:
        self.component.engine.run(op, self._change(name, Document.delete, False))

    async def delete_async(self, op: Operation, name: str, /) -> None:
        await self.component.engine.run_async(op, self._change(name, Document.delete, False))

    # -- runs -------------------------------------------------------------

    def run_now(self, op: Operation, name: str, /) -> str | None:
        return self.component.engine.run(op, self._run_now(name))

    async def run_now_async(self, op: Operation, name: str, /) -> str | None:
        return await self.component.engine.run_async(op, self._run_now(name))

    def _run_now(self, name: str) -> Flow[str | None]:
        run = str(uuid4())
        done = yield from self._change(name, lambda document, now: document.run_now(run, now), True)
        return run if done else None

    def list_runs(self, op: Operation, name: str, /) -> list[RunRecord]:
        return self.component.engine.run(op, self._list_runs(name))

    async def list_runs_async(self, op: Operation, name: str, /) -> list[RunRecord]:
        return await self.component.engine.run_async(op, self._list_runs(name))

    def _list_runs(self, name: str) -> Flow[list[RunRecord]]:
        (document,) = yield from self.read([name])  # before: what leaves it is in the history by then
        subjects = yield from self.bucket.subjects(self._history(name, "*"))
        now = yield from self.bucket.now_ms()
        runs: list[Run] = []
        for first in range(0, len(subjects), _WINDOW):
            for entry in (yield from self.bucket.read(subjects[first : first + _WINDOW])):
                if not entry.deleted and (entry.expires_ms or now + 1) > now:
                    runs.append(json.loads(entry.data))
        return records(name, [*document.runs, *runs])

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        self.component.engine.run(op, self.bucket.ensure())
        return _Runs(self, handlers)


class _Runs(LeasedRuns):
    """One member of an application's runners."""

    def __init__(self, driver: NatsSchedule, handlers: Callable[[], frozenset[str]]) -> None:
        super().__init__(driver.app, handlers)
        self._driver = driver
        self._documents: dict[str, Document] = {}
        self._looked_for: frozenset[str] = frozenset()
        self._dues: dict[str, int] = {}
        self._seen = 0
        # token of a run → its job
        self._names: dict[object, str] = {}

    def _subscribe(self) -> Waiter:
        return self._driver.component.engine.notifier.subscribe(self._driver.channel)

    def exchange(self, outcomes: Sequence[Outcome], want: int, /) -> Sequence[DueRun]:
        self._driver.component.check_open()
        renew = self._to_renew()
        if not (outcomes or renew or want):
            return ()
        begun = self._clock()
        try:
            runs, renewed = self._driver.component.engine.run(self._operation(), self._exchange(outcomes, renew, want))
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
    ) -> Flow[tuple[list[DueRun], list[RunToken]]]:
        driver = self._driver
        now, self._seen, fresh = yield from driver.since(self._seen)
        for document in fresh:
            known = self._documents.get(document.name)
            if known is None or known.sequence < document.sequence:
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
            self._documents |= {document.name: document for document in (yield from driver.read(list(names)))}
            self._look_at(changed, handlers)
            if not refused:
                break
        if given_back:
            yield from driver.notify()
        self._names = {token: name for token, name in self._names.items() if token in kept}
        self._names |= {run.token: name for name, run in runs.items()}
        if want:
            self._is_due([min(self._dues.values()) - now] if self._dues else ())
        return list(runs.values()), [token for token in renew if token in kept]

    def _look_at(self, changed: Iterable[Document], handlers: frozenset[str]) -> None:
        """Note when there is something to do, of documents that have changed; of all where the process has other handlers."""
        if handlers != self._looked_for:
            self._looked_for, self._dues = handlers, {}
            changed = list(self._documents.values())
        for name in {document.name for document in changed}:
            document = self._documents[name]
            due = document.due(handlers)
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
            held, renewed = document.renew(token, self._member, now, now + self.lease_ms, always)
            if held:
                kept.add(token)
            if renewed:
                changed.append(document)
        return changed

    def _claim(self, want: int, now: int, runs: dict[str, DueRun]) -> list[Document]:
        first = nsmallest(want, ((due, name) for name, due in self._dues.items() if due <= now))
        for _, name in first:
            run = self._documents[name].claim(self._app, self._member, now, now + self.lease_ms)
            if run is not None:
                runs[name] = run
        return [self._documents[name] for _, name in first]
