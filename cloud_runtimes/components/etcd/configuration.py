"""Configuration on etcd: a key for each item, whose version is the revision that wrote it.

A value is the text alone, so that other programs read and write it too, unless the item has tags or metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

from ..._core.waker import Waker
from ...errors import CloudRuntimesError, ResourceExhaustedError, UnavailableError
from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.flow import both_apis
from ...spi.operation import Method, Operation
from .._configuration import FEATURES, columns, group_and_label, items
from .._net.connections import ConnectionLost
from .._net.engines import EngineDriver
from . import EtcdComponent
from .engine import Flow, Request
from .messages import KeyValue, delete, put, range_of, read_range, read_txn, read_watched, then, txn, under, watch
from .notifier import Watching

_LOOK: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_TIMEOUT: Final = 30.0
_LONGEST: Final = 5.0
"""Seconds after which a wait looks whether the server is there."""
_TAGGED: Final = b"\0"
"""What a value begins with that is not the text alone."""


class EtcdConfiguration(EngineDriver[EtcdComponent], ConfigurationDriver):
    """A configuration store: the keys below its name, group and label."""

    features = FEATURES

    def __init__(self, component: EtcdComponent, name: str) -> None:
        super().__init__(component, name)
        self._max_operations = component.settings.max_operations

    def prefix(self, where: Selection | ConfigurationItem) -> bytes:
        """Return what the keys of a group and label begin with."""
        group, label = (quote(each, safe="") for each in group_and_label(where))
        return self.component.key("configuration", self.name, group, label, "")

    # -- reading ----------------------------------------------------------

    def _get(self, op: Operation, selection: Selection, /) -> Flow[dict[str, ConfigurationItem]]:
        return (yield from self.read(selection))[1]

    get, get_async = both_apis(_get)

    def read(self, selection: Selection) -> Flow[tuple[int, dict[str, ConfigurationItem]]]:
        """Return a revision, and the items of that moment."""
        prefix = self.prefix(selection)
        if not selection.keys:
            result = read_range((yield Request(range_of, prefix, under(prefix))))
            return result.revision, self.items(selection, [(item, False) for item in result.items])
        revision, held = 0, []
        for first in range(0, len(selection.keys), self._max_operations):
            some = selection.keys[first : first + self._max_operations]
            asked = [then(range_of, prefix + key.encode(), revision=revision) for key in some]
            done = read_txn((yield Request(txn, (), asked)))
            revision = revision or done.revision
            held += [(item, False) for answer in done.answers for item in read_range(answer).items]
        return revision, self.items(selection, held)

    def items(self, selection: Selection, held: Iterable[tuple[KeyValue, bool]]) -> dict[str, ConfigurationItem]:
        """Return what keys hold as what the caller gets; of each it is told whether it was deleted."""
        size = len(self.prefix(selection))
        rows = ((item.key[size:].decode(errors="replace"), item, deleted) for item, deleted in held)
        return items(self.name, rows, selection, _columns)

    # -- writing ----------------------------------------------------------

    def _save(
        self, op: Operation, saved: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /
    ) -> Flow[None]:
        rows = columns(self.name, saved, self.component.settings.max_value_bytes)
        values = {}
        for item, (_, _, key, tags, about, value) in zip(saved, rows, strict=True):
            assert key is not None
            assert value is not None
            data = value.encode()
            if tags is not None or about is not None or data.startswith(_TAGGED):
                data = _TAGGED + json.dumps([tags, about, value], ensure_ascii=False).encode()
            values[self.prefix(item) + key.encode()] = data
        yield from self._change([then(put, key, data) for key, data in values.items()])

    save, save_async = both_apis(_save)

    def _delete(self, op: Operation, selection: Selection, /) -> Flow[None]:
        prefix = self.prefix(selection)
        yield from self._change([then(delete, prefix + key.encode()) for key in selection.keys])

    delete, delete_async = both_apis(_delete)

    def _change(self, operations: Sequence[bytes]) -> Flow[None]:
        if len(operations) > self._max_operations:
            raise ResourceExhaustedError(
                f"{len(operations):,} keys of {self.name!r} at once; etcd takes {self._max_operations:,}: change them in parts, "
                "or raise --max-txn-ops of the servers and max_operations"
            )
        if operations:
            yield Request(txn, (), operations, writes=True)

    # -- subscribing ------------------------------------------------------

    def _subscribe(self, op: Operation, selection: Selection, /) -> Flow[tuple[ConfigurationSource, Update]]:
        source = EtcdSource(self, selection)
        return source, source.began((yield from self.read(selection)))

    subscribe, subscribe_async = both_apis(_subscribe)


class EtcdSource(ConfigurationSource):
    """A watch from the revision behind the last one seen, on a connection of its own. After a lost one it goes on there; where the server has forgotten that revision, all that there is is read."""

    def __init__(self, driver: EtcdConfiguration, selection: Selection) -> None:
        self._driver = driver
        self._selection = selection
        self._keys = frozenset(selection.keys)
        self._prefix = driver.prefix(selection)
        self._seen = 0
        self._stale = False
        self._changes: dict[bytes, tuple[KeyValue, bool]] = {}
        self._watching: Watching | None = None
        self._waker: Waker | None = None

    def began(self, snapshot: tuple[int, dict[str, ConfigurationItem]]) -> Update:
        """Take in all that there is, at a revision."""
        self._seen, known = snapshot
        self._stale = False
        self._changes.clear()
        return Update(known, True)

    def look(self) -> Update | None:
        if self._stale:
            op = Operation(_LOOK, self._driver.component.name, _TIMEOUT)
            return self.began(self._driver.flows.run(op, self._driver.read(self._selection)))
        if not self._changes:
            return None
        changed, self._changes = self._driver.items(self._selection, self._changes.values()), {}
        return Update(changed, False)

    def wait(self, timeout: float, /) -> None:
        if self._waker is None:
            self._waker = Waker()
        try:
            if self._watching is None:
                self._watching = Watching(self._driver.component.engine)
                self._watching.send(watch(1, self._prefix, under(self._prefix), self._seen + 1))
            self._listen(self._watching, self._waker, monotonic() + timeout)
        except (ConnectionLost, CloudRuntimesError) as error:
            self._forget()
            if isinstance(error, CloudRuntimesError):
                raise
            where = self._driver.component.engine.where
            raise UnavailableError(f"etcd {where}: the connection ended: {error}") from error

    def _listen(self, watching: Watching, waker: Waker, deadline: float) -> None:
        while not self._changes and not self._stale and (remaining := deadline - monotonic()) > 0:
            watching.check()
            readable = waker.wait(watching.connection, min(remaining, _LONGEST))
            if readable is False:
                return
            if readable:
                for message in watching.receive():
                    self._take(watching, message)

    def _take(self, watching: Watching, message: bytes) -> None:
        response = read_watched(message)
        if response.compacted or (
            response.created and response.revision < self._seen
        ):  # forgotten, or an older copy of the data
            self._stale = True
            self._forget()
            return
        if response.cancelled:
            watching.cancelled(response.reason)
        for event in response.events:
            key = event.item.key[len(self._prefix) :].decode(errors="replace")
            if not self._keys or key in self._keys:
                self._changes[event.item.key] = event.item, event.deleted
            self._seen = max(self._seen, event.item.modified)

    def _forget(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.close()

    def wake(self) -> None:
        if (waker := self._waker) is not None:
            waker.wake()

    def close(self) -> None:
        self._forget()
        if self._waker is not None:
            self._waker.close()


def _columns(row: tuple[str, KeyValue, bool]) -> tuple[Any, ...]:
    """Return an item in the columns of `_configuration`."""
    key, item, deleted = row
    tags, metadata, value = None, None, item.value
    if value.startswith(_TAGGED):
        tags, metadata, value = json.loads(value[1:])
    text = value if isinstance(value, str) else value.decode(errors="replace")
    return key, item.modified, tags, metadata, text, 0 if deleted else None
