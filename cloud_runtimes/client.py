"""The client: settings, one runtime, lazy services; open and close."""

from __future__ import annotations

import atexit
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from . import config
from ._core import extras
from ._core.arguments import CLIENT_TIMEOUT, check_timeout
from ._core.backoff import NONE, Backoff
from ._core.logs import in_development
from ._core.os_errors import resource_exhausted
from ._service import ClientContext, ServiceFrame, context_of, run_until_closed, run_until_closed_async, threaded
from ._version import __version__
from .errors import CloudRuntimesError, DeadlineExceededError, InternalError, InvalidArgumentError, UnavailableError

if TYPE_CHECKING:
    from ._service import Interceptor, Service
    from .admin import AdminService
    from .application import Application
    from .configuration import ConfigurationService
    from .database import DatabaseService
    from .file import FileService
    from .lock import LockService
    from .pubsub import PubSubService
    from .resiliency.interceptor import PolicyInterceptor
    from .resiliency.policies import Resiliency
    from .rpc import RpcService
    from .schedule import JobRunner, ScheduleService
    from .secret import SecretService
    from .spi.component import Runtime
    from .spi.driver import Driver
    from .state import StateService
    from .telemetry import TelemetryService

__all__ = ["SERVICES", "CloudRuntimesClient", "ServiceFrame", "context_of"]

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
_OFFERED: Final = {**SERVICES, "admin": "AdminService"}

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
        requires: features that the code needs, such as ``{"state": {"orders": ["transaction", "ttl"]}}``, beside those of the table ``[requires]``. `wait_ready`, `run`, `lifespan` and ``cloud-runtimes config validate`` refuse components that lack one.

    Raises:
        InvalidArgumentError: an argument of the wrong type or value. What is wrong in a configuration file is raised by the first call, since only that reads it.
    """

    _made_at = ""
    """Line that made it, in development mode."""

    def __init__(
        self,
        endpoint: str | None = None,
        timeout: float | None = config.DEFAULT_TIMEOUT,
        *,
        runtime: str | Runtime | None = None,
        app_id: str | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        api_token: str | None = None,
        requires: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    ) -> None:
        for name, value in (("endpoint", endpoint), ("app_id", app_id), ("api_token", api_token)):
            if value is not None and not isinstance(value, str):
                raise InvalidArgumentError(f"{name} must be text, not {type(value).__name__}")
        check_timeout(timeout)
        if runtime is not None and not isinstance(runtime, str):
            from .spi.component import Runtime

            if not isinstance(runtime, Runtime):
                raise InvalidArgumentError(f"runtime must be a name or a Runtime, not {type(runtime).__name__}")
        if requires is not None and not isinstance(requires, Mapping):
            raise InvalidArgumentError(f"requires must be a mapping, not {type(requires).__name__}")
        if config is not None and not isinstance(config, (str, os.PathLike, Mapping)):
            raise InvalidArgumentError(f"config must be a path or a mapping, not {type(config).__name__}")
        self._arguments: dict[str, Any] = {
            "endpoint": endpoint,
            "timeout": timeout,
            "runtime": runtime if runtime is None or isinstance(runtime, str) else runtime.name,
            "app_id": app_id,
            "api_token": api_token,
        }
        self._context = ClientContext(
            self,
            partial(_load, config, self._arguments),
            timeout,
            None if isinstance(runtime, str) else runtime,
            self._make,
            self._interceptors,
        )
        self._context.requires = requires or {}
        if in_development():
            from ._service.development import begin

            self._made_at = begin(searches=config is None)
        _open_clients.add(self)

    def __del__(self) -> None:
        context: ClientContext | None = self.__dict__.get("_context")  # there is none where making it failed
        if context is not None and context.is_open:
            made = f", made at {self._made_at}," if self._made_at else ""
            warnings.warn(f"{self!r}{made} was not closed: use it in a with block", ResourceWarning, 1, self)

    def __repr__(self) -> str:
        runtime = self._arguments["runtime"] or self._context.runtime_name or "not chosen yet"
        location = f" at {self._context.location}" if self._context.location else ""
        return f"<CloudRuntimesClient runtime={runtime}{location}{' closed' if self._context.closed else ''}>"

    # -- services ---------------------------------------------------------

    def _make(self, name: str) -> Service:
        try:
            if "opentelemetry.trace" in sys.modules:  # events and calls carry the spans of an SDK that is there
                from .telemetry.other_sdk import join_other

                join_other()
            kind = getattr(import_module(f"cloud_runtimes.{name}"), _OFFERED[name])
            if name == "telemetry" and self._context.settings.telemetry.get("provider") == "global":
                with extras.importing('telemetry: provider = "global"', "otel"):
                    from .telemetry.global_providers import GlobalTelemetryService as kind
            service: Service = kind(self._context, lifespan=self._run_jobs) if name == "rpc" else kind(self._context)
        except (ImportError, OSError) as error:
            raise resource_exhausted(error) or error from None
        return service

    if TYPE_CHECKING:
        admin: AdminService
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
            if name in _OFFERED:
                service = self.__dict__[name] = self._context.service(name)  # next time without a lookup
                return service
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _run_jobs(self, timeout: float | None) -> JobRunner | None:
        """Return what runs due jobs while the methods are served; ``None`` where the runtime has no schedules."""
        return self.schedule.running(timeout=timeout) if self.supports("schedule") else None

    def _interceptors(self, service: str, find: Callable[[str], Driver | None]) -> tuple[Interceptor, ...]:
        """Return what is around the calls of a service, outermost first."""
        chain: list[Interceptor] = []
        settings = self._context.settings
        if service != "telemetry" and self._made_at:
            from ._service.development import DevelopmentInterceptor

            chain.append(DevelopmentInterceptor(self._context))
        if service != "telemetry" and settings.telemetry.get("instrument"):
            from .telemetry.interceptor import SpanInterceptor

            tracer = self.telemetry.tracer("cloud_runtimes", __version__)
            meter = self.telemetry.meter("cloud_runtimes", __version__) if self.telemetry.measures else None
            chain.append(SpanInterceptor(find, tracer, settings.app_id, meter))
        if service != "telemetry" and settings.resiliency is not None:
            chain.append(read_policies(self._context))
        return tuple(chain)

    # -- the client's own methods -----------------------------------------

    def supports(self, feature: str, component: str | None = None) -> bool:
        """Return whether a feature works, e.g. ``client.supports("state.ttl", "orders")``. Does no I/O.

        Args:
            feature: ``"<service>"`` or ``"<service>.<feature>"``; the features of a service are constants of its module in `cloud_runtimes.spi`. ``"admin.<method>"`` is a method of `admin`.
            component: the store's name; without one, what all declared components of the service support, or the default.

        Raises:
            InvalidArgumentError: the client's configuration is wrong.
        """
        service_name, _, wanted = feature.partition(".")
        if service_name == "admin":
            from .spi.admin import EVERYWHERE, FEATURES

            if not wanted or wanted in EVERYWHERE:
                return True
            service_name, wanted = FEATURES.get(wanted, ("", ""))
        if service_name not in SERVICES:
            return False
        runtime = self._context.runtime()
        declared = sorted(name for service, name in runtime.declared() if service == service_name)
        names = [component] if component is not None else declared or ["default"]
        frame = self._context.frame(service_name)
        try:
            drivers = [frame.driver(name) for name in names]
        except CloudRuntimesError:
            return False
        return all(not wanted or wanted in driver.features for driver in drivers)

    def native(self, service: str, name: str) -> Any:
        """Return the vendor's client or connection behind a component, for what no service offers (docs/how-to/native-clients.md).

        Args:
            service: such as ``"state"``.
            name: of the component.

        Raises:
            InvalidArgumentError: there is no such service.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnsupportedError: no client of a vendor stands behind it.
        """
        if service not in SERVICES:
            raise InvalidArgumentError(f"{service!r} is no service; there are {', '.join(sorted(SERVICES))}")
        return self._context.runtime().native(service, name)

    def running(
        self, *, host: str = "127.0.0.1", port: int | None = None, timeout: float | None = CLIENT_TIMEOUT
    ) -> Application:
        """Return a handle that runs what is registered: RPC methods, subscriptions and due jobs.

        ``with`` runs them in the background, ``async with`` in the running loop. Without methods it serves nothing, unless a port is given.

        Args:
            host, port: where methods are served; default a free port.
            timeout: seconds to start, and again to end; the client's by default.

        Raises:
            InvalidArgumentError: on entering, nothing is registered; or ``host`` or ``port`` is wrong.
            UnavailableError: on entering, the port is taken.
            UnsupportedError: on entering, a component lacks what ``requires`` or a declared subscription asks for.
        """
        from .application import Application

        return Application(self, host, port, check_timeout(timeout, self._context.timeout))

    def run(self, *, host: str = "127.0.0.1", port: int | None = None, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Run what is registered until the client is closed, or SIGINT or SIGTERM comes; then let running handlers end.

        `run_async` runs async handlers in the running loop. Cancelling it ends it too.

        Args:
            host, port, timeout: as in `running`.

        Raises:
            InvalidArgumentError, UnavailableError: as in `running`.
            CloudRuntimesError: a subscription, or running jobs, cannot work as asked for and never has.
        """
        run_until_closed(self.running(host=host, port=port, timeout=timeout))

    async def run_async(
        self, *, host: str = "127.0.0.1", port: int | None = None, timeout: float | None = CLIENT_TIMEOUT
    ) -> None:
        """Run what is registered until the client is closed, or SIGINT or SIGTERM comes; then let running handlers end.

        `run_async` runs async handlers in the running loop. Cancelling it ends it too.

        Args:
            host, port, timeout: as in `running`.

        Raises:
            InvalidArgumentError, UnavailableError: as in `running`.
            CloudRuntimesError: a subscription, or running jobs, cannot work as asked for and never has.
        """
        await run_until_closed_async(self.running(host=host, port=port, timeout=timeout))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_OFFERED})

    def wait_ready(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Return once the runtime answers, and what ``[resiliency]`` refers to is there.

        Args:
            timeout: seconds to wait; the client's by default, ``None``: no limit.

        Raises:
            InvalidArgumentError: a target of ``[resiliency]`` is none.
            UnsupportedError: a component lacks what ``requires`` or a declared subscription asks for.
            DeadlineExceededError: it did not within ``timeout`` seconds; its last error is the cause.
        """
        for delay in self._until_ready(timeout):
            time.sleep(delay)

    async def wait_ready_async(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Return once the runtime answers, and what ``[resiliency]`` refers to is there.

        Args:
            timeout: seconds to wait; the client's by default, ``None``: no limit.

        Raises:
            InvalidArgumentError: a target of ``[resiliency]`` is none.
            UnsupportedError: a component lacks what ``requires`` or a declared subscription asks for.
            DeadlineExceededError: it did not within ``timeout`` seconds; its last error is the cause.
        """
        import asyncio

        flow = self._until_ready(timeout)
        while (delay := await asyncio.to_thread(next, flow, None)) is not None:
            await asyncio.sleep(delay)

    def _until_ready(self, timeout: float | None) -> Any:
        """Try, yielding the seconds to wait before the next try."""
        from ._service import requirements

        runtime = self._context.runtime()
        requirements.check_all(self._context)
        limit = check_timeout(timeout, self._context.timeout)
        end = None if limit is None else time.monotonic() + limit
        pauses = Backoff(0.02, 1.0, jitter=NONE)
        while True:
            try:
                runtime.ready()
                if self._context.settings.resiliency is not None:
                    read_policies(self._context).policies.check(runtime.stores())
                return
            except UnavailableError as error:
                delay = pauses.next()
                if end is not None and time.monotonic() + delay >= end:
                    raise DeadlineExceededError(
                        f"the runtime {runtime.name} is not ready after {limit:g} s: {error}"
                    ) from error
            except CloudRuntimesError:
                raise
            except Exception as error:
                raise InternalError(f"the runtime {runtime.name} failed: {type(error).__name__}: {error}") from error
            yield delay

    def close(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Refuse further calls, let handlers end, flush publishers, and let go of everything.

        Closing twice does nothing. A signal handler may interrupt a write of its own thread. There `close` only begins: a thread does the rest once that write is over, and the end of the program waits for it.

        Args:
            timeout: seconds for all of it; the client's by default, ``None``: no limit.

        Raises:
            InvalidArgumentError: ``timeout`` is no number above 0.
            BulkError: events of a publisher failed, and no flush has told of them.
        """
        if self._context.close(check_timeout(timeout, self._context.timeout)):
            _open_clients.discard(self)

    close_async = threaded(close)

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


def read_policies(context: ClientContext) -> PolicyInterceptor:
    """Return the policies of all calls of a client, read when first asked for."""
    if context.policies is None:
        from .resiliency.interceptor import PolicyInterceptor
        from .resiliency.settings import load

        settings = context.settings

        def read_file(path: str, where: str) -> Resiliency:
            from .protocols.dapr.documents import read_file

            return read_file(path, settings.app_id, where)

        context.policies = PolicyInterceptor(load(settings.resiliency or {}, settings.origin, SERVICES, read_file))
    policies: PolicyInterceptor = context.policies
    return policies


def _load(source: Any, arguments: Mapping[str, Any]) -> config.ClientSettings:
    return config.load(source, services=SERVICES, **arguments)


@atexit.register
def _close_forgotten() -> None:
    for client in list(_open_clients):
        try:
            client.close(timeout=5.0)
            context_of(client).join(5.0)
        except Exception as error:
            from ._core.logs import logger

            logger().warning("closing a forgotten client failed: %s", error)
