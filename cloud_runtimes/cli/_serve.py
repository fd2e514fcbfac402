"""``serve``: the sidecar, and the command beside it."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import config
from .._core.os_signals import ENDING, HANGING_UP, PASSED, handling
from ..client import SERVICES, CloudRuntimesClient, context_of
from ..dapr_server import Sidecar, SidecarSettings
from ..dapr_server.server import need_grpc
from ..errors import UnsupportedError
from ._child import Child
from ._daprd import Daprd
from ._errors import UsageError
from ._session import APP_ID, Invocation, logging_to_stderr
from ._streams import complain, note, write

_NOT_FOUND: Final = 127
_NOT_RUN: Final = 126
_QUANTITIES: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of the command, as they were given."""

    app_id: str | None
    app_port: int | None
    app_protocol: str
    app_channel_address: str
    http_port: int
    grpc_port: int | None
    no_grpc: bool
    listen: str
    allow_host: Sequence[str] | None
    resources: Sequence[str] | None
    api_token: str | None = dataclasses.field(repr=False)
    max_body_size: str | None
    grace: float
    command: Sequence[str] | None
    daprd: Daprd


def serve_sidecar(invocation: Invocation, options: ServeOptions) -> int:
    """Serve until a signal, the end of the command, or a call of ``/v1.0/shutdown``; return the exit code."""
    with logging_to_stderr():
        tables, origin = config.read(invocation.config)
        app_id = options.app_id or invocation.app_id or os.environ.get("APP_ID") or tables.get("app_id") or APP_ID
        resources = _resources(options, app_id)
        settings = _settings(options, app_id, resources)
        runtime = invocation.runtime or os.environ.get("CLOUD_RUNTIMES_RUNTIME") or tables.get("runtime") or "capa"
        if runtime in ("dapr", "layotto"):
            raise UsageError(f"runtime {runtime!r} is itself a sidecar: serve stands on another runtime, e.g. capa")
        client = CloudRuntimesClient(
            timeout=config.DEFAULT_TIMEOUT if invocation.timeout is None else invocation.timeout,
            runtime=runtime,
            app_id=app_id,
            config=_merged(tables, origin, {} if resources is None else resources.config),
        )
        with client:
            context_of(client).runtime()  # what is wrong with the configuration is told before anything runs
            return _run(Sidecar(client, settings), options)


def _run(sidecar: Sidecar, options: ServeOptions) -> int:
    settings = sidecar.context.settings
    signals = _Signals(sidecar)
    with handling((*ENDING, *HANGING_UP, *PASSED), signals.handle, ignored=False), sidecar:
        addresses = [f"{sidecar.http_address} for HTTP"]
        if sidecar.grpc_address:
            addresses.append(f"{sidecar.grpc_address} for gRPC")
        line = f"{', '.join(addresses)}: the sidecar of {settings.app_id}"
        if not options.command:
            write(f"{line}\n".encode())
            sidecar.wait()
            return 128 + sidecar.signal if sidecar.signal else 0
        note(line)  # stdout is the command's
        signals.starting = True
        try:
            child = Child(options.command, _environment(sidecar, options), sidecar.wake)
        except OSError as error:
            complain(f"{options.command[0]}: {error.strerror}")
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUN
        signals.forward_to(child)
        try:
            sidecar.wait(lambda: child.ended)
        finally:
            # the sidecar answers until the command has ended: it may have something to save
            code = child.end(sidecar.signal or signal.SIGTERM, options.grace, signals.again)
        return code


class _Signals:
    """Handles signals: they end the sidecar, by way of the command if there is one."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._count = 0
        self._child: Child | None = None
        self._pending: list[int] = []
        self.starting = False

    def again(self) -> bool:
        """Return whether there was a second one."""
        return self._count > 1

    def forward_to(self, child: Child) -> None:
        """Send the command what came while it was started and what comes."""
        self._child = child
        for number in self._pending:
            child.send(number)

    def handle(self, number: int, frame: Any) -> None:
        """Take a signal."""
        if number in PASSED:
            if self._child is not None:
                self._child.send(number)
            elif self.starting:
                self._pending.append(number)
            return
        self._count += 1
        if self._count == 1:
            self._sidecar.signalled(number)
        elif not self.starting:  # else a process could be left that nobody knows of
            raise KeyboardInterrupt


def _environment(sidecar: Sidecar, options: ServeOptions) -> dict[str, str]:
    """Return what ``dapr run`` tells a command (dapr/cli ``pkg/standalone/run.go``), over this process's environment."""
    settings = sidecar.context.settings
    environment = dict(os.environ)
    for name in ("APP_PORT", "DAPR_GRPC_PORT"):
        environment.pop(name, None)  # those of a sidecar around this one
    environment |= {
        "APP_ID": settings.app_id,
        "APP_CHANNEL_ADDRESS": settings.app_host,
        "APP_PROTOCOL": settings.app_protocol,
        "DAPR_HTTP_PORT": sidecar.http_address.rpartition(":")[2],
    }
    if settings.app_port is not None:
        environment["APP_PORT"] = str(settings.app_port)
    if sidecar.grpc_address:
        environment["DAPR_GRPC_PORT"] = sidecar.grpc_address.rpartition(":")[2]
    if options.api_token is not None:
        environment["DAPR_API_TOKEN"] = options.api_token
    return environment


def _resources(options: ServeOptions, app_id: str) -> Any:
    if options.daprd.ignored:
        note(f"warning: without effect here: {', '.join(options.daprd.ignored)}")
    if options.daprd.configs:
        from ..dapr_server.resources import check_configs

        for each in check_configs(options.daprd.configs, app_id):
            note(f"warning: {each}")
    if not options.resources:
        return None
    from ..dapr_server.resources import load

    resources = load(
        [path for each in options.resources for path in each.split(",") if path],
        app_id,
        os.environ.get("NAMESPACE", ""),
    )
    for each in resources.warnings:
        note(f"warning: {each}")
    return resources


def _settings(options: ServeOptions, app_id: str, resources: Any) -> SidecarSettings:
    if options.app_protocol not in ("http", "grpc"):
        raise UsageError(f"--app-protocol {options.app_protocol!r}: there are http and grpc")
    host = "127.0.0.1" if options.listen == "localhost" else options.listen
    if "," in host:
        raise UsageError("--dapr-listen-addresses: give one address; 0.0.0.0 is all of IPv4")
    token = options.api_token if options.api_token is not None else os.environ.get("DAPR_API_TOKEN")
    if host not in _LOOPBACK and not token:
        note(f"warning: whoever reaches {host} may do all that the application may: set DAPR_API_TOKEN")
    grpc_port = None if options.no_grpc else 50001 if options.grpc_port is None else max(0, options.grpc_port)
    if options.grpc_port is None and grpc_port is not None:  # a wish, not a demand
        try:
            need_grpc()
        except UnsupportedError as error:
            note(f"note: HTTP alone, since {error}")
            grpc_port = None
    known = {} if resources is None else resources.settings
    return SidecarSettings(
        app_id=app_id,
        namespace=os.environ.get("NAMESPACE") or "default",
        app_host=options.app_channel_address,
        app_port=options.app_port if options.app_port is not None and options.app_port > 0 else None,
        app_protocol=options.app_protocol,
        host=host,
        allowed_hosts=tuple(options.allow_host or ()),
        http_port=max(0, options.http_port),
        grpc_port=grpc_port,
        api_token=token or None,
        app_token=os.environ.get("APP_API_TOKEN") or None,
        max_body=quantity(options.max_body_size or options.daprd.max_body_size or "4Mi"),
        grace=options.grace,
        **known,
    )


def quantity(text: str) -> int:
    """Return the bytes of a quantity such as ``4Mi``.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"(\d{1,12})(k|M|G|Ki|Mi|Gi|)", text)
    if match is None or not (size := int(match[1]) * _QUANTITIES[match[2]]):
        raise UsageError(f"--max-body-size {text!r}: give bytes, e.g. 4Mi, 500k, 4194304")
    return size


def _merged(tables: Mapping[str, Any], origin: str, more: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the configuration with the components of resource files. Where any is declared, other names are errors, as to daprd."""
    merged = dict(tables)
    declares = more or any(merged.get(service) for service in SERVICES if service not in ("rpc", "telemetry"))
    if declares and isinstance(capa := merged.get("capa", {}), Mapping):
        merged["capa"] = {"strict": True, **capa}
    for service, components in more.items():
        if service == "capa":
            continue
        there = dict(merged.get(service, {}))
        if there and service == "schedule":  # of resource files it is only for jobs to have one
            continue
        for name, table in components.items():
            if name in there:
                raise UsageError(f"[{service}.{name}] stands in {origin} and in the resource files: keep one")
            there[name] = table
        merged[service] = there
    return merged
