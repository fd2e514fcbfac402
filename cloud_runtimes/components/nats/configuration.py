"""Configuration on NATS: one document for each group and label of a store, so that a save and a look are of one moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from ..._core.waker import Waker
from ...errors import UnavailableError
from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.flow import both_apis
from ...spi.operation import Method, Operation
from .._configuration import FEATURES, columns, group_and_label, items
from .._net.connections import ConnectionLost
from .._net.engines import EngineDriver
from .._state import too_large
from .._unreadable import read_entries, skip
from . import NatsComponent
from .buckets import Bucket
from .connection import Connection
from .entries import Entry, Put, decode
from .protocol import subscribe
from .requests import Flow

_LOOK: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_TIMEOUT: Final = 30.0
_SILENT: Final = 30.0
"""Seconds after which a silent server is asked whether it is there; after three times as many it is not."""


class NatsConfiguration(EngineDriver[NatsComponent], ConfigurationDriver):
    """Configuration store in a bucket."""

    features = FEATURES

    def __init__(self, component: NatsComponent, name: str) -> None:
        super().__init__(component, name)
        self._max_value = component.settings.max_value_bytes
        self._bucket = Bucket(component.engine, "configuration", name)

    def _subject(self, group: str, label: str) -> str:
        return self._bucket.subject("d", f"{group}\0{label}")

    # -- reading ----------------------------------------------------------

    def _get(self, op: Operation, selection: Selection, /) -> Flow[dict[str, ConfigurationItem]]:
        return (yield from self.read(selection))[1]

    get, get_async = both_apis(_get)

    def read(self, selection: Selection) -> Flow[tuple[int, dict[str, ConfigurationItem]]]:
        """Return the number of the document, and its items."""
        (entry,) = yield from self._bucket.read([self._subject(*group_and_label(selection))])
        rows = self._document(entry)["items"]
        keys = selection.keys or sorted(rows)
        selected = [(key, rows[key]) for key in keys if key in rows]
        return entry.sequence, items(self.name, selected, selection, lambda row: (row[0], *row[1], None))

    def scopes(self) -> Flow[list[tuple[str, str]]]:
        """Return the groups and labels that there are."""
        subjects = yield from self._bucket.subjects(f"{self._bucket.root}d.>")
        return sorted(read_entries(f"configuration {self.name!r}", subjects, str, _group_and_label))

    def _document(self, entry: Entry) -> dict[str, Any]:
        """Return what a group and label has; of what cannot be read nothing, so that a save replaces it."""
        if entry.deleted:
            return {"version": 0, "items": {}}
        try:
            document: dict[str, Any] = json.loads(entry.data)
            return {"version": document["version"] + 0, "items": dict(document["items"].items())}
        except Exception as error:
            skip(f"configuration {self.name!r}", f"with the sequence {entry.sequence}", error)
            return {"version": entry.sequence, "items": {}}

    # -- writing ----------------------------------------------------------

    def _save(
        self, op: Operation, saved: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /
    ) -> Flow[None]:
        rows = columns(self.name, saved, self._max_value)
        rows_by_subject: dict[str, list[tuple[str | None, ...]]] = {}
        for group, label, *row in rows:
            rows_by_subject.setdefault(self._subject(group or "", label or ""), []).append(tuple(row))

        def change(subject: str, document: dict[str, Any]) -> None:
            for key, tags, metadata, value in rows_by_subject[subject]:
                before = document["items"].get(key)
                if not isinstance(before, list) or before[1:] != [tags, metadata, value]:
                    document["version"] += 1
                    document["items"][key] = [document["version"], tags, metadata, value]

        yield from self._change(list(rows_by_subject), change)

    save, save_async = both_apis(_save)

    def _delete(self, op: Operation, selection: Selection, /) -> Flow[None]:
        def change(subject: str, document: dict[str, Any]) -> None:
            for key in selection.keys:
                if document["items"].pop(key, None) is not None:
                    document["version"] += 1

        yield from self._change([self._subject(*group_and_label(selection))], change)

    delete, delete_async = both_apis(_delete)

    def _change(self, subjects: Sequence[str], change: Callable[[str, dict[str, Any]], None]) -> Flow[None]:
        """Change documents, all or none; again where another was faster."""
        while subjects:
            puts = []
            for subject, entry in zip(subjects, (yield from self._bucket.read(subjects)), strict=True):
                document = self._document(entry)
                version = document["version"]
                change(subject, document)
                if document["version"] != version:
                    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
                    if len(data) > self._max_value:
                        raise too_large(self.name, "all keys of a group and label", len(data), self._max_value)
                    puts.append(Put(subject, data, entry.sequence))
            if not puts or (yield from self._bucket.put_all(puts)):
                return

    # -- subscribing ------------------------------------------------------

    def _subscribe(self, op: Operation, selection: Selection, /) -> Flow[tuple[ConfigurationSource, Update]]:
        source = NatsSource(self.component, self, selection)
        return source, (yield from source.read_all())

    subscribe, subscribe_async = both_apis(_subscribe)

    def subject(self, selection: Selection) -> str:
        """Return what a source listens to."""
        return self._subject(*group_and_label(selection))


class NatsSource(ConfigurationSource):
    """Looks at the document when its number is another; a subscription to its subject tells when."""

    def __init__(self, component: NatsComponent, driver: NatsConfiguration, selection: Selection) -> None:
        self.component = component
        self._driver = driver
        self._selection = selection
        self._seen = 0
        self._heard = False
        self._asked = 0.0
        self._connection: Connection | None = None
        self._waker: Waker | None = None

    def _operation(self) -> Operation:
        return Operation(_LOOK, self.component.name, _TIMEOUT)

    def read_all(self) -> Flow[Update]:
        """Return all that there is."""
        self._seen, items = yield from self._driver.read(self._selection)
        return Update(items, True)

    def look(self) -> Update | None:
        seen = self._seen
        update = self._driver.flows.run(self._operation(), self.read_all())
        return None if self._seen == seen else update

    def wait(self, timeout: float, /) -> None:
        if self._waker is None:
            self._waker = Waker()
        if self._connection is None:  # what changed before was not heard: look first
            self._connection = self.component.engine.open(
                self._operation(), subscribe(self._driver.subject(self._selection), 1)
            )
            self._connection.session.callbacks[1] = self._read
            return
        try:
            self._listen(self._connection, self._waker, monotonic() + timeout)
        except (ConnectionLost, TimeoutError) as error:
            self._connection.close()
            self._connection = None
            raise UnavailableError(f"nats {self.component.engine.where}: the connection ended: {error}") from error

    def _read(self, message: Any) -> None:
        self._heard = True

    def _listen(self, connection: Connection, waker: Waker, deadline: float) -> None:
        self._heard = False
        while not self._heard and (remaining := deadline - monotonic()) > 0:
            quiet = monotonic() - connection.heard
            if quiet >= 3 * _SILENT:
                raise ConnectionLost("the server is silent")
            if quiet >= _SILENT and connection.heard >= self._asked:
                self._asked = monotonic()
                connection.send(b"PING\r\n", self._asked + 1.0)
            readable = waker.wait(connection, min(remaining, _SILENT))
            if readable is False:
                return
            if readable:
                connection.receive()
                while connection.has_decrypted():
                    connection.receive()
                if answer := connection.answer():
                    connection.send(answer, monotonic() + 1.0)

    def wake(self) -> None:
        if (waker := self._waker) is not None:
            waker.wake()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._waker is not None:
            self._waker.close()


def _group_and_label(subject: str) -> tuple[str, str]:
    group, label = decode(subject.rpartition(".")[2]).split("\0")
    return group, label
