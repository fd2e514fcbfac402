"""The thread that carries events from a store where they wait to their broker.

Of all processes that may forward what waits under a name, one does: the holder of the store's lease. It reads what waits,
sends it as a publisher does, and removes what the broker has, by the commit that renews its lease. It never gives up: what
the broker refuses for good is set aside under another name, so that it holds up nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import getpid
from socket import gethostname
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .._core.backoff import Backoff
from .._core.logs import repeated
from .._core.threads import Background
from .._native import events as kernel
from ..errors import CloudRuntimesError, ConflictError, PayloadError
from ..spi.events import cause_of, dead_letter_record
from ..spi.operation import Method
from ..spi.pubsub import OutgoingBatch, PubSubDriver
from ._lanes import ATTEMPT, Chunk, Lane
from ._sending import TAKE_BYTES, Sending

if TYPE_CHECKING:
    from .._service import ServiceFrame
    from ..spi.relay import Waiting
    from ._relay_stores import RelayStore

LEASE: Final = 3.0
"""Seconds without a renewal after which another process takes the lease over."""
_RENEW: Final = 1.0
_MARGIN: Final = 0.5
"""Seconds before the lease may be taken over in which nothing is sent any more."""
_IDLE: Final = 1.0
"""Seconds between two looks for what other processes left, and for which an idle holder keeps the lease."""
_CONTEND: Final = 0.5
_LOOK: Final = 0.05
_LAND: Final = 0.02
"""Seconds for which what the broker has is gathered, before it is removed."""
_CLOSING: Final = 10.0
"""Seconds for which a forwarder goes on at most while its client closes."""
_TIMEOUT: Final = 120.0
"""Seconds of an attempt of a client library that retries by itself."""
_FORWARD: Final = Method("pubsub", "forward", repeatable=False)


class Forwarder(Sending):
    """See the module.

    Args:
        frame: of pub/sub.
        pubsub_name: where the events go.
        open_stores: returns the store where they wait, and that for what is refused.
        target: returns the broker's driver.
        expire: is called now and then by the holder of the lease.
    """

    def __init__(
        self,
        frame: ServiceFrame,
        pubsub_name: str,
        open_stores: Callable[[], tuple[RelayStore, RelayStore]],
        target: Callable[[], PubSubDriver],
        expire: Callable[[], None] | None = None,
    ) -> None:
        self._target = target
        super().__init__(frame, pubsub_name, _FORWARD, at_once=False)
        self._open_stores = open_stores
        self._expire = expire
        self.store, self._aside = open_stores()
        self._owner = f"{gethostname()}-{getpid()}-{kernel.uuid7().hex()}"
        self._thread = Background(self._run, "cloud-runtimes-forwarder")
        self._closing = self._failed = False
        self._observe = frame.first(lambda each: each.forwarding(pubsub_name))
        self._pauses = Backoff(0.1, 5.0)
        self._unreadable: set[Any] = set()
        self._reset()
        # of another holder: the version of its lease, and since when it has stood still
        self._seen: tuple[Any, float] | None = None

    def _reset(self) -> None:
        """Begin anew: without the lease, with nothing read. What is under way is not waited for."""
        self._chunks.clear()
        self._queued = 0
        self._lanes = [Lane() for _ in self._lanes]
        self._version: Any = None
        self._held_until = 0.0
        self._settled_at = 0.0
        self._after: Any = None
        self._tokens: set[Any] = set()
        self._done: list[Waiting] = []
        self._forwarded = 0
        self._refused: list[Any] = []
        self._active_at = monotonic()
        self._looked_at = 0.0

    def _find_driver(self) -> PubSubDriver:
        return self._target()

    @property
    def _name(self) -> str:
        return f"{self._pubsub_name} (from {self.store.where})"

    def _expiry(self, lane: Lane) -> float:
        return monotonic() + _TIMEOUT  # nothing is given up, not even at the end

    def add(self, batch: OutgoingBatch) -> Sequence[Any]:
        """Return events as what a transaction of the store writes; see `RelayStore.add`."""
        return self.store.add(batch)

    def start(self) -> None:
        """Begin, unless it has."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once for what waits."""
        self._looked_at = 0.0
        self._wake.put(None)
        self._thread.start()

    def _close_by_client(self, end: float | None) -> None:
        """Forward on as long as the broker takes something, for a while; leave the rest to other processes."""
        self._give_up_at = min(monotonic() + _CLOSING, *(() if end is None else (end,)))
        self._closing = True
        self._wake.put(None)
        self._thread.join(max(0.0, self._give_up_at - monotonic()) + 2 * ATTEMPT)

    # -- the thread -------------------------------------------------------

    def _goes_on(self) -> bool:
        """Return whether there is more to forward at the end, and the broker takes it."""
        assert self._give_up_at is not None
        if monotonic() >= self._give_up_at or self._failed or any(lane.failures for lane in self._lanes):
            return False
        return bool(self._chunks or self._done or not self._looked_at)

    def _run(self) -> None:
        while not self._closing or self._goes_on():
            try:
                pause = self._round()
                self._pauses.reset()
                self._failed = False
            except ConflictError:
                self._reset()
                pause = _CONTEND
            except Exception as error:
                self._failed = True
                pause = self._pauses.next()
                message = "what waits in %s for %s is not forwarded at the moment: %s"
                repeated(f"forwarder {self._name}", message, self.store.where, self._pubsub_name, error)
                self._reopen()
            self._wait(pause)
        try:
            self._finish()
        except Exception as error:
            repeated(f"forwarder {self._name}", "leaving %s: %s", self.store.where, error)
        self._workers.close()

    def _reopen(self) -> None:
        try:
            self.store, self._aside = self._open_stores()
        except CloudRuntimesError:
            pass  # the next round tells

    def _round(self) -> float:
        """Do what there is to do; return for how long to wait then."""
        if self._version is None and not self._acquire():
            self._looked_at = monotonic()
            return _IDLE if self._seen is None else _CONTEND
        self._collect()
        self._take_settled()
        now = monotonic()
        if (self._done and (not self._chunks or now >= self._settled_at + _LAND)) or now >= self._settled_at + _RENEW:
            self._settle()
        self._read()
        soonest = self._launch() if monotonic() < self._held_until else 0.0
        if not self._chunks and not self._done:
            if monotonic() >= self._active_at + _IDLE:
                self.store.release(self._version)
                self._reset()
                return _IDLE
            return _LOOK
        return min(soonest, _LAND if self._done else _LOOK if self._queued < TAKE_BYTES // 2 else _RENEW / 2)

    def _acquire(self) -> bool:
        """Take the lease where something waits and nobody else holds it."""
        waiting, _ = self.store.read(None, 1, ())
        if waiting and self._unreadable:
            all_there, _ = self.store.read(None, TAKE_BYTES, self._unreadable)
            waiting = [each for each in all_there if each.token not in self._unreadable]
        if not waiting:
            self._seen = None
            return False
        lease = self.store.lease()
        if lease is not None and lease[0] != self._owner:
            if self._seen is None or self._seen[0] != lease[1]:
                self._seen = lease[1], monotonic()
            if monotonic() < self._seen[1] + LEASE:
                return False
        self._seen = None
        self._renew(None if lease is None else lease[1])
        return True

    def _renew(self, version: Any) -> None:
        begun = monotonic()
        self._version = self.store.settle(self._owner, version, self._done, self._forwarded, self._refused)
        if self._observe is not None:
            self._observe(self._forwarded, len(self._refused))
        self._held_until, self._settled_at = begun + LEASE - _MARGIN, monotonic()

    def _settle(self) -> None:
        """Remove what the broker has, and renew the lease."""
        self._renew(self._version)
        self._tokens.difference_update(each.token for each in self._done)
        self._done, self._forwarded, self._refused = [], 0, []
        if self._expire is not None:
            self._expire()

    def _read(self) -> None:
        """Queue what waits, as much as may be in memory."""
        now = monotonic()
        if self._queued >= TAKE_BYTES // 2 or now < self._looked_at + _LOOK:
            return
        after = self._after if self._chunks else None
        waiting, after = self.store.read(after, TAKE_BYTES - self._queued, self._tokens)
        fresh = [each for each in waiting if each.token not in self._tokens]
        for each in fresh:
            try:
                frame = kernel.Frame(each.frame)
                kind = (frame.topic, bool(len(frame)) and frame[0].raw, each.due_ms)
            except PayloadError as error:
                message = "an event that waits in %s cannot be read, and stays: %s"
                repeated(f"relay {self.store.where}", message, self.store.where, error)
                self._unreadable.add(each.token)
                self._tokens.add(each.token)
                continue
            self._tokens.add(each.token)
            self._queue(Chunk(0, len(frame), each.frame, now, kind, each))
        if fresh:
            self._active_at = now
        self._after = after if waiting else None
        self._looked_at = self._looked_at if fresh else now

    def _take_settled(self) -> None:
        """Take the chunks at the front that have no open events for done."""
        while self._chunks and not self._chunks[0].open:
            chunk = self._chunks.popleft()
            self._queued -= len(chunk.body)
            self._done.append(chunk.token)
            self._forwarded += chunk.count - len(chunk.failed)
            for index, error in sorted(chunk.failed.items()):
                self._set_aside(chunk, index, error)

    def _set_aside(self, chunk: Chunk, index: int, error: CloudRuntimesError) -> None:
        record = chunk.records[index]
        topic = chunk.kind[0]
        letter = dead_letter_record(record, cause_of("refused", error), topic=topic, group=self._pubsub_name)
        frame = kernel.build_frame(record.source, record.type, topic, (letter,))
        self._refused += self._aside.add(OutgoingBatch(topic, [frame], 1, raw=chunk.kind[1]))
        message = "%s refused event %s for good: %s. It is set aside; see cloud-runtimes spool status"
        repeated(f"refused {self._name}", message, f"{self._pubsub_name}/{topic}", record.id, error)

    def _finish(self) -> None:
        """Wait for what is under way, note what of it the broker has, and release the lease."""
        if self._version is None:
            return
        while any(lane.attempt is not None for lane in self._lanes):
            end = self._give_up_at
            if end is not None and monotonic() >= end:
                break
            self._wait(None if end is None else max(0.0, end - monotonic()))
            self._collect()
        self._take_settled()
        self._settle()
        self.store.release(self._version)
