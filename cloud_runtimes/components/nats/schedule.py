"""Jobs on NATS, and their runs: a bucket for each application, with a document for each job. See `_schedule.document_runs`.

Its holder renews a run's lease; when the holder dies it ends by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final

from ...spi.operation import Operation
from ...spi.schedule import RunSource
from .._net.notify import Waiter
from .._schedule.document_runs import DocumentRuns, DocumentSchedule
from .._schedule.job_documents import Document, Run
from .._schedule.job_history import read_runs
from .._schedule.runs import CHANNEL
from .._unreadable import read_entries
from . import NatsComponent
from .buckets import Bucket
from .entries import Entry, Put, decode, encode
from .failures import ServerError
from .requests import Batch, Flow, Request

_WINDOW: Final = 500


class NatsSchedule(DocumentSchedule[NatsComponent]):
    """The jobs of one application."""

    def __init__(self, component: NatsComponent, name: str, app: str | None = None) -> None:
        super().__init__(component, name, app)
        self.bucket = Bucket(component.engine, "schedule", self.app)
        self.channel = f"{CHANNEL}:{self.app}"
        self._history_ms = int(component.settings.history * 1000)

    # -- documents --------------------------------------------------------

    def _subject(self, name: str) -> str:
        return self.bucket.subject("j", name)

    def _name(self, subject: str) -> str:
        """Return the name of a job from its subject."""
        name = decode(subject.rpartition(".")[2])
        if self._subject(name) != subject:
            raise ValueError("the key is none of a job")
        return name

    def document(self, name: str, entry: Entry) -> Document:
        """Return what a message of a name has."""
        data = None if entry.deleted else entry.data
        return Document(name, entry.sequence, data, self.component.settings.history_runs)

    def read(self, names: Sequence[str]) -> Flow[list[Document]]:
        """Return what there is of some names."""
        documents = []
        for first in range(0, len(names), _WINDOW):
            some = names[first : first + _WINDOW]
            entries = yield from self.bucket.read([self._subject(name) for name in some])
            documents += [self.document(name, entry) for name, entry in zip(some, entries, strict=True)]
        return documents

    def since(self, sequence: int) -> Flow[tuple[int, int, list[Document]]]:
        """Return the server's time, and what was written behind a sequence, with its last one."""
        now, entries = yield from self.bucket.since(f"{self.bucket.root}j.*", sequence)
        if entries:
            sequence = entries[-1][1].sequence
        read = read_entries("jobs", entries, itemgetter(0), lambda each: self.document(self._name(each[0]), each[1]))
        return now, sequence, list(read)

    def write(self, documents: Sequence[Document], adds: bool = False) -> Flow[list[Document]]:
        """Write documents and the history of their runs; returns those that another wrote first."""
        done = yield from self.bucket.put([self._put(document) for document in documents])
        refused, ended = [], []
        for document, sequence in zip(documents, done, strict=True):
            if isinstance(sequence, ServerError):
                refused.append(document)
            else:
                document.version = sequence
                ended.append(document)
        yield from self.note(ended)
        over = [document for document in ended if document.is_over]
        if over:
            yield from self.bucket.put([Put(self._subject(each.name), None, each.version) for each in over])
            for document in over:
                document.exists = False
        if adds and ended:
            yield from self.notify()
        return refused

    def _put(self, document: Document) -> Put:
        return Put(self._subject(document.name), document.message(), document.version)

    def _slot(self, name: str, slot: int | str) -> str:
        return f"{self.bucket.root}r.{encode(name)}.{slot}"

    def note(self, documents: Iterable[Document]) -> Flow[None]:
        """Write to the history which runs have ended, and leave them out of what is written next."""
        puts = []
        for document in documents:
            ended = document.ended()
            for run in ended:
                subject = self._slot(document.name, run["slot"])
                puts.append(Put(subject, json.dumps(run).encode(), ttl_ms=self._history_ms))
            document.forget(ended)
        for first in range(0, len(puts), _WINDOW):
            yield from self.bucket.put(puts[first : first + _WINDOW])

    def _current(self, name: str) -> Flow[tuple[Document, int]]:
        entry, now = yield from self.bucket.read_now(self._subject(name))
        document = self.document(name, entry)
        if document.exists and document.error is None:
            yield from self.note([document])
        else:
            newest, _ = yield from self.bucket.read_now(self._slot(name, "*"))
            for run in () if newest.deleted else read_runs(name, [newest.data]):
                document.follow(run)
        return document, now

    def _names(self) -> Flow[list[str]]:
        subjects = yield from self.bucket.subjects(f"{self.bucket.root}j.*")
        return sorted(read_entries("jobs", subjects, str, self._name))

    def _apps(self) -> Flow[list[str]]:
        from .portable import names_of

        return names_of(self.component, "schedule")

    def _of_app(self, app: str) -> NatsSchedule:
        return NatsSchedule(self.component, self.name, app)

    def _history(self, name: str) -> Flow[list[Run]]:
        subjects = yield from self.bucket.subjects(self._slot(name, "*"))
        now = yield from self.bucket.now_ms()
        slots: list[bytes] = []
        for first in range(0, len(subjects), _WINDOW):
            for entry in (yield from self.bucket.read(subjects[first : first + _WINDOW])):
                if not entry.deleted and (entry.expires_ms or now + 1) > now:
                    slots.append(entry.data)
        return read_runs(name, slots)

    def notify(self) -> Flow[None]:
        """Wake the members of all processes."""
        yield Batch(Request(self.component.engine.notifier.subject(self.channel), answers=0))

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        self.component.engine.run(op, self.bucket.ensure())
        return _Runs(self, handlers)


class _Runs(DocumentRuns):
    """Member of an application's runners."""

    _driver: NatsSchedule

    def _subscribe(self) -> Waiter:
        return self._driver.component.engine.notifier.subscribe(self._driver.channel)

    def _look(self, want: int) -> Flow[tuple[int, list[Document]]]:
        now, self._seen, fresh = yield from self._driver.since(self._seen)
        return now, fresh
