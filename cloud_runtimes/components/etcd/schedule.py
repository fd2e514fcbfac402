"""Jobs on etcd, and their runs: a document for each job, below its application. See `_schedule.document_runs`.

The servers tell no time, so occurrences are due by the clocks of the processes that run them. Leases are the servers': a member has one, with a key, while it has runs, and these are nobody else's as long as the key is there. So renewing all runs of a member is one call, and a clock that is wrong takes none from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from time import time
from urllib.parse import quote, unquote

from ...spi.operation import Operation
from ...spi.schedule import RunSource
from .._net.notify import Waiter
from .._schedule.document_runs import DocumentRuns, DocumentSchedule
from .._schedule.job_documents import HELD, Document, Run
from .._schedule.job_history import read_runs
from .._unreadable import read_entries
from . import EtcdComponent
from .engine import Flow, Request, ensure, lease_of, names_of, renew
from .failures import ServerError
from .messages import KeyValue, changed_by, delete, put, range_of, read_range, read_txn, then, txn, under


def now_ms() -> int:
    """Return the wall clock, milliseconds since 1970 UTC."""
    return int(time() * 1000)


class EtcdSchedule(DocumentSchedule[EtcdComponent]):
    """The jobs of one application."""

    def __init__(self, component: EtcdComponent, name: str, app: str | None = None) -> None:
        super().__init__(component, name, app)
        self.documents = component.key("schedule", self.app, "j", "")
        self.members = component.key("schedule", self.app, "m", "")
        self._max_operations = component.settings.max_operations

    # -- documents --------------------------------------------------------

    def _key(self, name: str) -> bytes:
        return self.documents + quote(name, safe="").encode()

    def _name(self, item: KeyValue) -> str:
        """Return the name of a job from its key."""
        name = unquote(item.key[len(self.documents) :].decode())
        if self._key(name) != item.key:
            raise ValueError("the key is none of a job")
        return name

    def _slots(self, name: str) -> bytes:
        return self.component.key("schedule", self.app, "r", quote(name, safe=""), "")

    def document(self, name: str, item: KeyValue | None) -> Document:
        """Return what the key of a name has."""
        limit = self.component.settings.history_runs
        return Document(name, 0, None, limit) if item is None else Document(name, item.modified, item.value, limit)

    def read(self, names: Sequence[str]) -> Flow[list[Document]]:
        documents = []
        for first in range(0, len(names), self._max_operations):
            some = names[first : first + self._max_operations]
            asked = [then(range_of, self._key(name)) for name in some]
            answers = read_txn((yield Request(txn, (), asked))).answers
            for name, answer in zip(some, answers, strict=True):
                items = read_range(answer).items
                documents.append(self.document(name, items[0] if items else None))
        return documents

    def since(self, revision: int) -> Flow[tuple[int, list[Document], frozenset[str]]]:
        """Return the revision of now, what was written behind another, and the members that live."""
        asked = [
            then(range_of, self.documents, under(self.documents), since=revision + 1),
            then(range_of, self.members, under(self.members), keys_only=True),
        ]
        done = read_txn((yield Request(txn, (), asked)))
        jobs, members = (read_range(answer).items for answer in done.answers)
        documents = list(
            read_entries("jobs", jobs, lambda item: repr(item.key), lambda item: self.document(self._name(item), item))
        )
        living = frozenset(item.key[len(self.members) :].decode(errors="replace") for item in members)
        return done.revision, documents, living

    def write(self, documents: Sequence[Document], adds: bool = False) -> Flow[list[Document]]:
        refused = []
        for document in documents:
            if not (yield from self._write(document)):
                refused.append(document)
        return refused

    def _write(self, document: Document) -> Flow[bool]:
        """Write a document and the history of its runs at once; ``False``: another was faster."""
        ended = document.ended()
        document.forget(ended)
        key, slots, seconds = self._key(document.name), self._slots(document.name), int(self.component.settings.history)
        while True:
            lease = (yield from self.component.engine.lease(seconds)) if ended else None
            operations = [
                then(put, slots + b"%d" % run["slot"], json.dumps(run).encode(), lease.id) for run in ended if lease
            ]
            operations.append(then(delete, key) if document.is_over else then(put, key, document.message()))
            condition = changed_by(key, document.version)
            try:
                done = read_txn((yield Request(txn, [condition], operations, writes=True)))
            except ServerError as error:
                if not error.no_lease or lease is None:
                    raise
                self.component.engine.forget(lease)
                continue
            if done.succeeded:
                document.version, document.exists = done.revision, not document.is_over
            return done.succeeded

    def notify(self) -> Flow[None]:
        """Nothing: members watch the keys."""
        yield from ()

    def _current(self, name: str) -> Flow[tuple[Document, int]]:
        (document,) = yield from self.read([name])
        if not document.exists or document.error is not None:
            runs = yield from self._history(name)
            if runs:
                document.follow(max(runs, key=lambda run: int(run["id"])))
        return document, now_ms()

    def _names(self) -> Flow[list[str]]:
        items = read_range((yield Request(range_of, self.documents, under(self.documents), keys_only=True))).items
        return sorted(read_entries("jobs", items, lambda item: repr(item.key), self._name))

    def _apps(self) -> Flow[list[str]]:
        return names_of(self.component, "schedule")

    def _of_app(self, app: str) -> EtcdSchedule:
        return EtcdSchedule(self.component, self.name, app)

    def _history(self, name: str) -> Flow[list[Run]]:
        slots = self._slots(name)
        items = read_range((yield Request(range_of, slots, under(slots)))).items
        return read_runs(name, [item.value for item in items])

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        self.component.engine.ready(op)
        return _Runs(self, handlers)


class _Runs(DocumentRuns):
    """Member of an application's runners."""

    _driver: EtcdSchedule
    _living: frozenset[str] = frozenset()
    _renew_lease_at = 0.0

    def _subscribe(self) -> Waiter:
        # its key is among them, so that who waits hears of a member that dies
        where = self._driver.component.key("schedule", self._driver.app, "")
        return self._driver.component.engine.notifier.subscribe(f"{where.decode()}*")

    def _until(self, now: int) -> int:
        return HELD

    def _look(self, want: int) -> Flow[tuple[int, list[Document]]]:
        begun = self._clock()
        if begun >= self._renew_lease_at:
            yield from self._live()
            self._renew_lease_at = begun + self.lease_ms / 3000
        self._seen, fresh, living = yield from self._driver.since(self._seen)
        if self._member not in living:  # its lease ended early: what nobody has claimed meanwhile is still its own
            yield from self._live()
            living |= {self._member}
        for document in fresh:
            document.hold(living)
        if living != self._living:
            self._living = living
            changed = [document for document in self._documents.values() if document.exists]
            for document in changed:
                document.hold(living)
            self._look_at(changed, self._handlers())
        return now_ms(), fresh

    def _read(self, names: Sequence[str]) -> Flow[list[Document]]:
        documents = yield from self._driver.read(names)
        for document in documents:
            document.hold(self._living)
        return documents

    def _live(self) -> Flow[None]:
        """Renew the member's lease, or have another."""
        id = lease_of("schedule", self._driver.app, self._member)
        if not (yield from renew(id)):
            # what runs have since it was last renewed, and one more
            yield from ensure(id, -(-self.lease_ms * 4 // 3000) + 1)
            key = self._driver.members + self._member.encode()
            yield Request(put, key, self._driver.app.encode(), id, writes=True)
