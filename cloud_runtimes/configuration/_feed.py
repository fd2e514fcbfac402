"""The thread of a subscription, between a `ConfigurationSource` and those who take what changed.

It keeps what there is (`current`) and what was handed out; a taker gets the difference. So changes coalesce, and the last value arrives whatever a reconnect brings.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from .._core import fork
from .._core.logs import repeated
from .._core.threads import Background, Changes, Mutex
from .._service import Health
from ..errors import ClosedError, CloudRuntimesError
from ..spi.configuration import ConfigurationItem, ConfigurationSource, Update

Items = dict[str, ConfigurationItem]

_IDLE: Final = 5.0
"""Seconds between looks, where the source does not want more of them."""


class Feed:
    """See the module. ``first`` is what there was when it was made; ``add_context`` notes on an error where it happened."""

    def __init__(
        self,
        source: ConfigurationSource,
        first: Update,
        *,
        name: str,
        add_context: Callable[[CloudRuntimesError], None] = lambda error: None,
    ) -> None:
        self._source = source
        self.name = name
        self._add_context = add_context
        # a signal handler may ask for `current` while its own thread is in here
        self._lock = Mutex()
        self._changes = Changes()
        self._current: Items = dict(first.items)
        # what takers know, and the keys of which that may no longer be so
        self._known: Items = {}
        self._fresh = set(self._current)
        self._begun = False
        self._closing = False
        self._stopping = Changes()
        self.error: CloudRuntimesError | None = None
        self.health = Health(name, "configuration")
        self.health.works()  # it has read ``first``
        self._thread = Background(self._run, "cloud-runtimes-subscription")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def current(self) -> Items:
        """Return what there is, as far as it has been heard."""
        with self._lock:
            return dict(self._current)

    # -- takers -----------------------------------------------------------

    def take(self, timeout: float | None) -> Items | None:
        """Return what changed since the last take, the first time all; ``None`` once closed or when ``timeout`` seconds are up."""
        end = None if timeout is None else monotonic() + timeout
        while True:
            if (items := self._difference()) is not None or self._over():
                return items
            ticket = self._changes.ticket()
            # it may have come between the look and the ticket
            remaining = 0.0 if self._has_news() else None if end is None else end - monotonic()
            if not self._changes.wait(ticket, remaining) and not self._has_news():
                return None

    async def take_async(self, timeout: float | None) -> Items | None:
        """Return what changed since the last take, the first time all; ``None`` once closed or when ``timeout`` seconds are up."""
        end = None if timeout is None else monotonic() + timeout
        while True:
            if (items := self._difference()) is not None or self._over():
                return items
            future = self._changes.future()
            remaining = 0.0 if self._has_news() else None if end is None else end - monotonic()
            if not await self._changes.wait_async(future, remaining) and not self._has_news():
                return None

    def _difference(self) -> Items | None:
        """Hand out what takers do not know yet; ``None``: nothing. The first time it is a dict, perhaps an empty one."""
        if not self._fresh and self._begun:
            return None
        items: Items = {}
        with self._lock:
            if self._closing:
                return None
            for key in sorted(self._fresh):
                now, known = self._current.get(key), self._known.get(key)
                if now is None and known is not None:
                    items[key] = ConfigurationItem(key, "", None, known.group, known.label, deleted=True)
                elif now is not None and now != known:
                    items[key] = now
            self._fresh.clear()
            if not items and self._begun:
                return None
            self._begun = True
            for key, item in items.items():
                if item.deleted:
                    del self._known[key]
                else:
                    self._known[key] = item
        return items

    def give_back(self, items: Items) -> None:
        """Hand items out again, or what has become of them since, because their handler failed."""
        with self._lock:
            for key, item in items.items():
                if item.deleted:
                    self._known[key] = item  # whatever comes, it differs from this
                else:
                    self._known.pop(key, None)
            self._fresh.update(items)
            self._begun = self._begun and bool(items)
        self._changes.announce()

    def wait(self) -> None:
        """Return once closed; raise the error that ended the subscription, if one did."""
        while not self._over():
            ticket = self._changes.ticket()
            self._changes.wait(ticket, 0.0 if self._is_over() else None)

    async def wait_async(self) -> None:
        """Return once closed; raise the error that ended the subscription, if one did."""
        while not self._over():
            future = self._changes.future()
            await self._changes.wait_async(future, 0.0 if self._is_over() else None)

    def _is_over(self) -> bool:
        return self._closing or self.error is not None

    def _has_news(self) -> bool:
        return bool(self._fresh) or not self._begun or self._is_over()

    def _over(self) -> bool:
        """Return whether it is closed, or raise what ended it."""
        if self.error is not None:
            raise self.error
        return self._closing

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            try:
                update = self._source.look()
                if update is not None:
                    self._admit(update)
                self.health.works()
                self._source.wait(_IDLE)
            except Exception as error:
                if self._closing:
                    break
                pause = self.health.failed(error)
                if pause is None:
                    assert self.health.problem is not None
                    self._add_context(self.health.problem)
                    self.error = self.error or self.health.problem
                    break
                self.pause(pause)
        try:
            self._source.close()
        except Exception as error:
            repeated(f"closing {self.name}", "%s: closing failed: %s", self.name, error)
        self._changes.announce()

    def _admit(self, update: Update) -> None:
        with self._lock:
            items = update.items
            if update.complete:
                gone = self._current.keys() - items.keys()
            else:
                gone = {key for key, item in items.items() if item.deleted} & self._current.keys()
            changed = {key: item for key, item in items.items() if not item.deleted and self._current.get(key) != item}
            self._current.update(changed)
            for key in gone:
                del self._current[key]
            self._fresh.update(changed, gone)
        if changed or gone:
            self._changes.announce()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        ticket = self._stopping.ticket()
        self._stopping.wait(ticket, 0.0 if self._closing else seconds)

    async def pause_async(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        future = self._stopping.future()
        await self._stopping.wait_async(future, 0.0 if self._closing else seconds)

    def stop(self) -> None:
        """Hand out nothing any more; takers see the end."""
        self._closing = True
        self._changes.announce()
        self._stopping.announce()
        self._source.wake()

    def end(self, timeout: float | None) -> bool:
        """Wait for the thread; returns whether it ended in time."""
        return self._thread.join(timeout)

    def forked(self) -> None:
        """In a forked child: the thread and the source are the parent's."""
        fork.keep(self._source)
        self.error = ClosedError("this subscription was opened before fork and belongs to the parent: open another")
