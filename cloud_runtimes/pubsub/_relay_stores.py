"""Stores in which events wait for a broker of another engine, and the leases of their forwarders.

A lease has an owner and a version, which each renewal changes. A contender takes it over once the version has stood still
for long enough by the contender's own clock. So no clocks are compared. Every removal renews the lease in the same
commit, so that a forwarder that lost it removes nothing.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Sequence
from itertools import zip_longest
from time import time_ns
from typing import Any, Final, TypeVar

from .._core.arguments import HIDDEN
from .._core.logs import repeated
from .._native import events as kernel
from ..errors import CloudRuntimesError, ConflictError
from ..spi import state as state_spi
from ..spi.operation import Method, Operation
from ..spi.pubsub import OutgoingBatch
from ..spi.relay import Backlog, RelayLog, Waiting
from ..spi.state import StateDriver, StateWrite

T = TypeVar("T")

_RELAY: Final = Method("pubsub", "relay", repeatable=False)
_TIMEOUT: Final = 10.0
KNOWN: Final = f"{HIDDEN}known{HIDDEN}"
"""Before a name in the key that says that events wait under it."""
_HEAD: Final = struct.Struct(">QI")
"""Before the frame in the value of a hidden key: when it is due, 0: at once; how many events it has."""
_FEW, _MANY = 100, 1000
"""Keys that are read at a time: the first time, and at most."""


def call(where: str, method: Callable[..., T], *args: Any) -> T:
    """Call a driver's method, for work that no caller waits for."""
    op = Operation(_RELAY, where, _TIMEOUT)
    try:
        return method(op, *args)
    except CloudRuntimesError as error:
        raise op.mapped(error, "") from error.__cause__
    except Exception as error:
        raise op.mapped(error, "") from error


class RelayStore(ABC):
    """Events that wait under a name in one store.

    Args:
        name: hidden; begins with `HIDDEN`.
        where: what messages call the store.
    """

    def __init__(self, name: str, where: str) -> None:
        self.name = name
        self.where = where

    @property
    def identity(self) -> Hashable:
        """Identity of the events that wait here, equal for two stores that lead to the same ones."""
        return self.where, self.name

    def run(self, method: Callable[..., T], *args: Any) -> T:
        """Call a driver's method."""
        return call(self.where, method, *args)

    @abstractmethod
    def add(self, batch: OutgoingBatch) -> Sequence[Any]:
        """Return events as what a transaction of the store writes, so that they wait once it is committed."""

    @abstractmethod
    def read(self, after: Any, limit: int, held: Collection[Any]) -> tuple[Sequence[Waiting], Any]:
        """Return what waits, and where to go on; see `RelayLog.waiting`. The caller has what has the tokens ``held``, and may get it again."""

    @abstractmethod
    def lease(self) -> tuple[str, Any] | None:
        """Return owner and version of the lease; ``None``: nobody has it."""

    @abstractmethod
    def settle(self, owner: str, version: Any, done: Sequence[Waiting], forwarded: int, refused: Sequence[Any]) -> Any:
        """Take or renew the lease, remove what is done, and add to another name of the store, in one commit.

        Args:
            owner: of the lease from now on.
            version: that it must have; ``None``: nobody may have it.
            done: to remove.
            forwarded: how many events of it the broker has.
            refused: result of `add` of another name.

        Returns:
            The new version.

        Raises:
            ConflictError: somebody else has the lease; nothing was written.
        """

    @abstractmethod
    def move(self, done: Sequence[Waiting], added: Sequence[Any] | None) -> None:
        """Remove what waits, and add to another name of the store, in one commit, whoever has the lease; ``None``: it is dropped. A forwarder may have it under way."""

    @abstractmethod
    def release(self, version: Any) -> None:
        """Give the lease back, if it has this version."""

    @abstractmethod
    def backlog(self) -> Backlog:
        """Count what waits."""


class _Leased(RelayStore):
    """Keeps the lease as a hidden key of a state store."""

    def __init__(self, name: str, where: str, state: StateDriver) -> None:
        super().__init__(name, where)
        self._state = state
        self._strong = "strong" if state_spi.CONSISTENCY in state.features else None
        self._key = f"{HIDDEN}lease{name}"

    def lease(self) -> tuple[str, Any] | None:
        value = self.run(self._state.get, self._key, self._strong)
        return None if value is None else (value.data.decode(errors="replace"), value.etag)

    def _lease_write(self, owner: str, version: Any) -> StateWrite:
        return StateWrite(self._key, owner.encode(), etag=version, create=version is None)

    def _version(self, owner: str) -> Any:
        found = self.lease()
        if found is None or found[0] != owner:
            raise ConflictError(f"another process forwards what waits in {self.where}")
        return found[1]

    def release(self, version: Any) -> None:
        try:
            self.run(self._state.write, [StateWrite(self._key, None, etag=version)], True)
        except ConflictError:
            pass  # somebody else has it


class LogStore(_Leased):
    """Events that wait in a log of the engine."""

    def __init__(self, name: str, where: str, log: RelayLog) -> None:
        super().__init__(name, where, log.leases)
        self.log = log

    @property
    def identity(self) -> Hashable:
        return self.log.leases.engine, self.name

    def add(self, batch: OutgoingBatch) -> Sequence[Any]:
        return [self.log.change(batch)]

    def read(self, after: Any, limit: int, held: Collection[Any]) -> tuple[Sequence[Waiting], Any]:
        return self.run(self.log.waiting, after, limit, held)

    def settle(self, owner: str, version: Any, done: Sequence[Waiting], forwarded: int, refused: Sequence[Any]) -> Any:
        changes = [self._state.change([self._lease_write(owner, version)]), *refused]
        if done:
            changes.append(self.log.removal(done, forwarded, 0))
        self.run(self._state.commit, changes)
        return self._version(owner)

    def move(self, done: Sequence[Waiting], added: Sequence[Any] | None) -> None:
        dropped = sum(each.events for each in done) if added is None else 0
        self.run(self._state.commit, [self.log.removal(done, 0, dropped), *(added or ())])

    def backlog(self) -> Backlog:
        return self.run(self.log.backlog)


class KeyStore(_Leased):
    """Events that wait as hidden keys of a state store, in the order of their commits.

    Attributes:
        is_known: whether the store has the name written down; else each commit does it.
    """

    is_known = True

    def __init__(self, name: str, where: str, state: StateDriver) -> None:
        super().__init__(name, where, state)
        self._prefix = f"{name}{HIDDEN}"
        self._page = _FEW

    @property
    def known(self) -> StateWrite:
        """The write that notes the name."""
        return StateWrite(KNOWN + self.name, b"1")

    def add(self, batch: OutgoingBatch) -> Sequence[Any]:
        due = 0 if batch.delay_ms is None else time_ns() // 1_000_000 + batch.delay_ms
        waiting = [
            StateWrite(f"{self._prefix}{kernel.uuid7().hex()}", _HEAD.pack(due, len(kernel.Frame(frame))) + frame)
            for frame in batch.frames
        ]
        return waiting if self.is_known else [self.known, *waiting]

    def read(self, after: Any, limit: int, held: Collection[Any]) -> tuple[Sequence[Waiting], Any]:
        waiting = self._oldest(len(held) + self._page)
        if waiting:
            size = 1 + sum(len(each.frame) for each in waiting)
            self._page = max(1, min(_MANY, limit * len(waiting) // size))
        return waiting, None

    def _oldest(self, count: int) -> list[Waiting]:
        waiting: list[Waiting] = []
        for key, value in self.run(self._state.oldest, self._prefix, count):
            try:
                if isinstance(value, CloudRuntimesError):
                    raise value
                due, events = _HEAD.unpack_from(value.data)
                waiting.append(Waiting(key, value.data[_HEAD.size :], events, due or None))
            except (CloudRuntimesError, struct.error) as error:
                message = "%s: an event that waits there cannot be read, and stays: %s"
                repeated(f"relay {self.where}", message, self.where, error)
        return waiting

    def settle(self, owner: str, version: Any, done: Sequence[Waiting], forwarded: int, refused: Sequence[Any]) -> Any:
        writes = [*refused, *(StateWrite(each.token, None) for each in done)]
        step = self._state.max_writes - 1
        for first in range(0, len(writes) or 1, step):
            self.run(self._state.write, [self._lease_write(owner, version), *writes[first : first + step]], True)
            version = self._version(owner)
        return version

    def move(self, done: Sequence[Waiting], added: Sequence[Any] | None) -> None:
        writes = [
            write
            for pair in zip_longest((StateWrite(each.token, None) for each in done), added or ())
            for write in pair
            if write
        ]
        step = self._state.max_writes // 2 * 2
        for first in range(0, len(writes), step):
            self.run(self._state.write, writes[first : first + step], True)

    def backlog(self) -> Backlog:
        """Count what waits, as far as a page goes."""
        waiting = self._oldest(_MANY)
        return Backlog(sum(each.events for each in waiting), sum(len(each.frame) for each in waiting), None)
