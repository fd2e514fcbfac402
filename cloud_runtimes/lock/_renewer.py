"""The renewing thread of a client: one, however many leases are held. It refers to leases weakly, so one that nobody has any more expires."""

from __future__ import annotations

import weakref
from time import monotonic
from typing import TYPE_CHECKING

from .._core import fork
from .._core.threads import Background, Changes
from ..errors import CloudRuntimesError
from ..spi.operation import Method, Operation

if TYPE_CHECKING:
    from .lease import Lease
    from .service import LockService

__all__ = ["LeaseRenewer"]

_RENEW = Method("lock", "renew", repeatable=False)


class LeaseRenewer:
    """Renews leases when a third of their time is over, for one `LockService`."""

    def __init__(self, service: LockService) -> None:
        self._service = service
        self._begin()
        fork.register(self)

    def _begin(self) -> None:
        self._leases: dict[int, weakref.ref[Lease]] = {}
        self._changes = Changes()
        self._thread = Background(self._run, "cloud-runtimes-renewer")
        self._closed = False

    def forked(self) -> None:
        """In a forked child: the leases are the parent's, which goes on renewing them."""
        self._begin()

    def add(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        self._leases[id(lease)] = weakref.ref(lease)
        self._service._context.handles.add(self)
        self._thread.start()
        self._changes.announce()

    def forget(self, lease: Lease) -> None:
        """Stop renewing a lease."""
        self._leases.pop(id(lease), None)

    def _run(self) -> None:
        while not self._closed:
            ticket = self._changes.ticket()
            self._changes.wait(ticket, self._renew_due())

    def _renew_due(self) -> float | None:
        """Renew what is due; returns seconds until the next is, ``None``: there is none."""
        pauses: list[float] = []
        for key, reference in list(self._leases.items()):
            lease = reference()
            if lease is None or lease._ending or lease.lost:
                self._leases.pop(key, None)
                continue
            now = self._service._now()
            if lease._due <= now and not self._closed:
                # one that hangs must leave time for another try, and for the others
                limit = max(0.05, (lease._deadline - now) / 3)
                if lease._timeout is not None:
                    limit = min(limit, lease._timeout)
                try:
                    driver = self._service._driver(lease._store_name)
                except CloudRuntimesError:  # the client is being closed
                    self._leases.pop(key, None)
                    continue
                lease._renew_in_background(Operation(_RENEW, lease._store_name, limit), driver)
            pauses.append(max(0.0, min(lease._due, lease._deadline) - self._service._now()))
        return min(pauses) if pauses else None

    def _close_by_client(self, end: float | None) -> None:
        """End the thread. Leases expire instead of being released, since their holders may be in the middle of what they guard."""
        self._closed = True
        self._changes.announce()
        self._thread.join(None if end is None else max(0.0, end - monotonic()))
        self._service._context.handles.discard(self)
