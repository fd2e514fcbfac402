"""A component that can be a home: one engine, which its drivers share, for many services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.threads import Mutex
from ..config import ClientSettings
from ..errors import ClosedError
from ..spi.component import Component

if TYPE_CHECKING:
    from ..rpc.peers import Peers
    from ..spi.executor import Executor


class HomeComponent(Component):
    """See the module."""

    def __init__(self, settings: Any, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self._lock = Mutex()
        self._peers: Peers | None = None
        self._closed = False

    @property
    def peers(self) -> Peers:
        """The connections to services that the registry knows."""
        with self._lock:
            if self._peers is None:
                from ..rpc.peers import Peers

                self._peers = Peers()
            return self._peers

    def check_open(self) -> None:
        """Refuse to go on waiting once the client was closed, though the engine may serve others."""
        if self._closed:
            raise ClosedError("the client was closed while this call waited")

    def close(self, timeout: float | None) -> None:
        with self._lock:
            self._closed = True
            peers, self._peers = self._peers, None
        if peers is not None:
            peers.close()
