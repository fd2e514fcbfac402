"""State that the services of a client share: settings, the runtime, handles, and their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .. import registry
from .._core import fork
from .._core.clocks import since_boot
from .._core.handles import Handles
from .._core.threads import Background, Mutex
from ..errors import ClosedError
from ..spi.executor import Executor

if TYPE_CHECKING:
    import asyncio

    from ..config import ClientSettings
    from ..spi.component import Runtime
    from ..spi.driver import Driver
    from .base import Interceptor, Service, ServiceFrame


class Client(Protocol):
    """The client, as far as what stands below it knows it."""

    @property
    def _context(self) -> ClientContext: ...


def context_of(client: Client) -> ClientContext:
    """Return what the services of a client share."""
    return client._context


class ClientContext:
    """The client, as its services and their handles see it.

    ``load`` reads the settings, until when ``timeout`` holds. ``runtime`` is one that the client was given ready
    made. ``client`` is what the application holds. ``make`` makes the service of a name. ``interceptors`` returns
    those of a service, given its name and what finds a driver by its component.
    """

    def __init__(
        self,
        client: object,
        load: Callable[[], ClientSettings],
        timeout: float | None,
        runtime: Runtime | None,
        make: Callable[[str], Service],
        interceptors: Callable[[str, Callable[[str], Driver | None]], tuple[Interceptor, ...]],
    ) -> None:
        self.client = client
        self.timeout = timeout
        self.closed = False
        self.handles = Handles()
        self.now = since_boot  # the clock of leases
        self.requires: Mapping[str, Any] = {}  # features that the code needs, beside those of the settings
        self.policies: Any = None  # the interceptor of [resiliency], once it is read
        self._load = load
        self._make = make
        self._find_interceptors = interceptors
        self._settings: ClientSettings | None = None
        self._given_runtime = runtime
        self._runtime: Runtime | None = None
        self._executor = Executor()
        self._services: dict[str, Service] = {}
        self._lock = Mutex()
        self._closer: Background | None = None
        fork.register(self)

    @property
    def is_open(self) -> bool:
        """Whether it has a runtime that is not closed."""
        return self._runtime is not None and not self.closed

    @property
    def settings(self) -> ClientSettings:
        """The settings, read when first asked for."""
        with self._lock:
            if self._settings is None:
                self._settings = self._load()
                self.timeout = self._settings.timeout
            return self._settings

    def service(self, name: str) -> Any:
        """Return a service of the client, made when first asked for."""
        with fork.importing, self._lock:
            service = self._services.get(name)
            if service is None:
                service = self._services[name] = self._make(name)
            return service

    def frame(self, name: str) -> ServiceFrame:
        """Return the frame of a service, made when first asked for."""
        service: Service = self._services.get(name) or self.service(name)
        return service._frame

    def runtime(self, frame: ServiceFrame | None = None) -> Runtime:
        """Return the runtime, made when first asked for; the frame of a service that asks has its interceptors from now on."""
        with fork.importing, self._lock:
            if self.closed:
                raise ClosedError("this client is closed: make another", service=frame.name if frame else None)
            if self._runtime is None:
                settings = self.settings
                if self._given_runtime is not None:
                    self._given_runtime.attach(settings, self._executor)
                    self._runtime = self._given_runtime
                else:
                    factory: Callable[..., Runtime] = registry.find(registry.RUNTIMES, settings.runtime)
                    self._runtime = factory(settings, self._executor)
            if frame is not None and not frame.interceptors:
                frame.interceptors = self._find_interceptors(frame.name, frame.drivers.get)
            return self._runtime

    @property
    def runtime_name(self) -> str | None:
        """The name of the runtime; ``None``: it is not made yet."""
        return None if self._runtime is None else self._runtime.name

    @property
    def location(self) -> str:
        """Where the runtime keeps data; ``""``: it is not known."""
        return "" if self._runtime is None else self._runtime.location()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the client's own loop, for async handlers of sync callers."""
        self.runtime()
        return self._executor.loop()

    def problems(self) -> int:
        """Return how many consumers, runners and watchers do not work at the moment."""
        healths = [getattr(handle, "health", None) for handle in self.handles.held()]
        return sum(each is not None and each.problem is not None for each in healths)

    # -- the end ----------------------------------------------------------

    def close(self, limit: float | None) -> bool:
        """Refuse calls from now on, end the handles, and let go of the runtime, within ``limit`` seconds. ``False``: a thread goes on, for which `join` waits."""
        with self._lock:
            if self.closed:
                return True
            self.closed = True
            self._forget_drivers()
        end = None if limit is None else time.monotonic() + limit
        if self._runtime is not None and self._runtime.is_inside():
            self._closer = Background(partial(self._close, end), "cloud-runtimes-close")
            self._closer.start()
            return False
        self._close(end)
        return True

    def join(self, timeout: float) -> bool:
        """Wait for a thread that closes; return whether it is over."""
        return self._closer is None or self._closer.join(timeout)

    def _close(self, end: float | None) -> None:
        failure = self.handles.close(end)
        remaining = None if end is None else max(0.05, end - time.monotonic())
        if self._runtime is not None:
            self._runtime.close(remaining)
        self._executor.close(remaining)
        if failure is not None:
            raise failure

    def _forget_drivers(self) -> None:
        for service in self._services.values():
            service._frame.drivers.clear()

    def forked(self) -> None:
        """Forget, in a forked child, all that belongs to the parent; the next call connects anew."""
        self._forget_drivers()
        self._runtime = self._given_runtime
        self.handles.forked()
