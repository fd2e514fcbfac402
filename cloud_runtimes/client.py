"""The client: settings, one runtime, lazy services; open and close."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from . import config, registry
from ._core import fork
from ._core.arguments import CLIENT_TIMEOUT, check_timeout
from ._core.threads import Background, Mutex
from .errors import (
    ClosedError,
    CloudRuntimesError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    UnavailableError,
)
from .spi.operation import out_of_files

if TYPE_CHECKING:
    import asyncio

    from ._service import Service
    from .configuration import ConfigurationService
    from .database import DatabaseService
    from .file import FileService
    from .lock import LockService
    from .pubsub import PubSubService
    from .resiliency._calls import Rules
    from .resiliency.policies import Resiliency
    from .rpc import RpcService
    from .schedule import ScheduleService
    from .secret import SecretService
    from .spi.component import Runtime
    from .spi.executor import Executor
    from .state import StateService
    from .telemetry import TelemetryService

__all__ = ["SERVICES", "CloudRuntimesClient"]

SERVICES: Final[Mapping[str, str]] = {
    "configuration": "ConfigurationService",
    "database": "DatabaseService",
    "file": "FileService",
    "lock": "LockService",
    "pubsub": "PubSubService",
    "rpc": "RpcService",
    "schedule": "ScheduleService",
    "secret": "SecretService",
    "state": "StateService",
    "telemetry": "TelemetryService",
}
"""The services there are: name → class, in the package of that name."""

_open_clients: weakref.WeakSet[CloudRuntimesClient] = weakref.WeakSet()


class CloudRuntimesClient:
    """The way to every service, over one runtime.

    Making one does no I/O and starts nothing; the first call connects. One client serves any number of threads and event loops, and a forked child. ``with client:`` closes it at the end; a forgotten one is closed at exit.

    Args:
        endpoint: where a sidecar listens, e.g. ``"http://localhost:3500"``, ``"grpc://localhost:50001"``.
        timeout: seconds for every call that gives none of its own, retries included; ``None``: no limit.
        runtime: ``"capa"`` (in the process, the default), the name of an entry point, or a `Runtime`.
        app_id: this application's name: the default consumer group and the source of its events.
        config: a TOML, JSON or YAML file, a folder of such files, or a mapping. Default: the file that ``CLOUD_RUNTIMES_CONFIG`` names, else the nearest ``cloud-runtimes.toml``, or ``pyproject.toml`` with a table ``[tool.cloud-runtimes]``, from the working directory upward. ``{}``: none.
        api_token: for a sidecar.

    Raises:
        InvalidArgumentError: an argument of the wrong type or value. What is wrong in a configuration file is raised by the first call, since only that reads it.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        timeout: float | None = config.DEFAULT_TIMEOUT,
        *,
        runtime: str | Runtime | None = None,
        app_id: str | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        api_token: str | None = None,
    ) -> None:
        for name, value in (("endpoint", endpoint), ("app_id", app_id), ("api_token", api_token)):
            if value is not None and not isinstance(value, str):
                raise InvalidArgumentError(f"{name} must be text, not {type(value).__name__}")
        check_timeout(timeout)
        if runtime is not None and not isinstance(runtime, str):
            from .spi.component import Runtime

            if not isinstance(runtime, Runtime):
                raise InvalidArgumentError(f"runtime must be a name or a Runtime, not {type(runtime).__name__}")
        if config is not None and not isinstance(config, (str, os.PathLike, Mapping)):
            raise InvalidArgumentError(f"config must be a path or a mapping, not {type(config).__name__}")
        self._arguments: dict[str, Any] = {
            "endpoint": endpoint,
            "timeout": timeout,
            "runtime": runtime if runtime is None or isinstance(runtime, str) else runtime.name,
            "app_id": app_id,
            "api_token": api_token,
        }
        self._config = config
        self._timeout = timeout
        self._given_runtime = None if isinstance(runtime, str) else runtime
        self._settings_: Any = None
        self._runtime: Runtime | None = None
        self._executor: Executor | None = None
        self._services: dict[str, Service] = {}
        self._rules: Rules | None = None
        # what close() must end first: publishers and subscriptions; those that end by themselves once nobody has them
        self._handles: set[Any] = set()
        self._loose_handles: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = Mutex()
        self._closed = False
        self._closer: Background | None = None
        _open_clients.add(self)
        fork.register(self)

    def __repr__(self) -> str:
        runtime = self._arguments["runtime"] or (self._runtime.name if self._runtime else "not chosen yet")
        return f"<CloudRuntimesClient runtime={runtime}{' closed' if self._closed else ''}>"

    # -- services ---------------------------------------------------------

    def _service(self, name: str) -> Any:
        with fork.importing, self._lock:
            service = self._services.get(name)
            if service is None:
                try:
                    made = getattr(import_module(f"cloud_runtimes.{name}"), SERVICES[name])(self)
                except (ImportError, OSError) as error:
                    raise out_of_files(error) or error from None
                service = self._services[name] = made
        self.__dict__[name] = service  # next time without a lookup
        return service

    if TYPE_CHECKING:
        configuration: ConfigurationService
        lock: LockService
        file: FileService
        database: DatabaseService
        pubsub: PubSubService
        rpc: RpcService
        schedule: ScheduleService
        secret: SecretService
        state: StateService
        telemetry: TelemetryService
    else:

        def __getattr__(self, name: str) -> Any:
            if name in SERVICES:
                return self._service(name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _settings(self) -> config.ClientSettings:
        with self._lock:
            if self._settings_ is None:
                self._settings_ = config.load(self._config, services=SERVICES, **self._arguments)
                self._timeout = self._settings_.timeout
            return cast("config.ClientSettings", self._settings_)

    def _runtime_for(self, service: Service | None = None) -> Runtime:
        """Return the runtime, made when first asked for."""
        with fork.importing, self._lock:
            if self._closed:
                raise ClosedError("this client is closed: make another", service=service.name if service else None)
            if self._runtime is None:
                from .spi.executor import Executor

                settings = self._settings
                if self._executor is None:
                    self._executor = Executor()
                if self._given_runtime is not None:
                    self._given_runtime.attach(settings, self._executor)
                    self._runtime = self._given_runtime
                else:
                    made: Callable[..., Runtime] = registry.find(registry.RUNTIMES, settings.runtime)
                    self._runtime = made(settings, self._executor)
            if service is not None and self._settings.resiliency is not None and service.name != "telemetry":
                service._rules = self._rules_of(self._settings)
            if service is not None and service._hooks is None and self._settings.telemetry.get("instrument"):
                from .telemetry._calls import calls

                service._hooks = calls(self, service)
            return self._runtime

    def _rules_of(self, settings: config.ClientSettings) -> Rules:
        """Return the policies of all calls, read when first asked for."""
        if self._rules is None:
            from .resiliency._calls import Rules
            from .resiliency.settings import load

            def read_file(path: str, where: str) -> Resiliency:
                from .protocols.dapr.resiliency import read_file

                return read_file(path, settings.app_id, where)

            self._rules = Rules(load(settings.resiliency or {}, settings.origin, SERVICES, read_file))
        return self._rules

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """Return the client's own loop, for async handlers of a sync subscription."""
        self._runtime_for()
        assert self._executor is not None
        return self._executor.loop()

    # -- the client's own methods -----------------------------------------

    def supports(self, feature: str, component: str | None = None) -> bool:
        """Tell whether a feature works, e.g. ``client.supports("state.ttl", "orders")``. Does no I/O.

        Args:
            feature: ``"<service>"`` or ``"<service>.<feature>"``; the features of a service are constants of its ``driver`` module.
            component: the store's name; without one, what all declared components of the service support, or the default.
        """
        service_name, _, wanted = feature.partition(".")
        if service_name not in SERVICES:
            return False
        runtime = self._runtime_for()
        declared = sorted(name for service, name in runtime.declared() if service == service_name)
        names = [component] if component is not None else declared or ["default"]
        service: Service = self._service(service_name)
        try:
            drivers = [service._driver(name) for name in names]
        except CloudRuntimesError:
            return False
        return all(not wanted or wanted in driver.features for driver in drivers)

    def wait_ready(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Return once the runtime answers, and what ``[resiliency]`` refers to is there.

        Raises:
            InvalidArgumentError: a target of ``[resiliency]`` is none.
            DeadlineExceededError: it did not within ``timeout`` seconds; its last error is the cause.
        """
        for delay in self._until_ready(timeout):
            time.sleep(delay)

    async def wait_ready_async(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Asynchronous `wait_ready`."""
        import asyncio

        flow = self._until_ready(timeout)
        while (delay := await asyncio.to_thread(next, flow, None)) is not None:
            await asyncio.sleep(delay)

    def _until_ready(self, timeout: float | None) -> Any:
        """Try, yielding the seconds to wait before the next try."""
        runtime = self._runtime_for()
        limit = check_timeout(timeout, self._timeout)
        end = None if limit is None else time.monotonic() + limit
        delay = 0.02
        while True:
            try:
                runtime.ready()
                if self._settings.resiliency is not None:
                    self._rules_of(self._settings).policies.check(runtime.stores())
                return
            except UnavailableError as error:
                if end is not None and time.monotonic() + delay >= end:
                    raise DeadlineExceededError(
                        f"the runtime {runtime.name} is not ready after {limit:g} s: {error}"
                    ) from error
            except CloudRuntimesError:
                raise
            except Exception as error:
                raise InternalError(f"the runtime {runtime.name} failed: {type(error).__name__}: {error}") from error
            yield delay
            delay = min(delay * 2, 1.0)

    def close(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Refuse further calls, let handlers end, flush publishers, and let go of everything within ``timeout`` seconds.

        Closing twice does nothing. In a signal handler that came in the middle of a write of its own thread it only begins: a thread does the rest once that write is over, and the end of the program waits for it.
        """
        limit = check_timeout(timeout, self._timeout)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for service in self._services.values():
                service._drivers = {}
        end = None if limit is None else time.monotonic() + limit
        if self._runtime is not None and self._runtime.is_inside():
            self._closer = Background(partial(self._close, end), "cloud-runtimes-close")
            self._closer.start()
            return
        self._close(end)

    def _close(self, end: float | None) -> None:
        failure: BaseException | None = None
        # telemetry comes last: closing the others may record
        handles = sorted((*self._handles, *self._loose_handles), key=lambda each: getattr(each, "closes_last", False))
        for handle in handles:
            try:
                handle._close_by_client(end)
            except Exception as error:
                failure = failure or error
        left = None if end is None else max(0.05, end - time.monotonic())
        if self._runtime is not None:
            self._runtime.close(left)
        if self._executor is not None:
            self._executor.close(left)
        _open_clients.discard(self)
        if failure is not None:
            raise failure

    async def close_async(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Asynchronous `close`."""
        import asyncio

        # handlers of subscriptions of this loop must be able to run while it waits
        await asyncio.to_thread(partial(self.close, timeout=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()

    # -- process ----------------------------------------------------------

    def forked(self) -> None:
        """Forget, in a forked child, all that belongs to the parent; the next call connects anew."""
        self._lock = Mutex()
        for service in self._services.values():
            service._drivers = {}
        self._runtime = self._given_runtime
        if self._rules is not None:
            self._rules.forked()
        self._handles = {handle for handle in self._handles if getattr(handle, "outlives_fork", False)}
        self._loose_handles = weakref.WeakSet()


@atexit.register
def _close_forgotten() -> None:
    for client in list(_open_clients):
        try:
            client.close(timeout=5.0)
            if client._closer is not None:
                client._closer.join(5.0)
        except Exception as error:
            from ._core.logs import logger

            logger().warning("closing a forgotten client failed: %s", error)
