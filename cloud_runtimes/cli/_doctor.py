"""``doctor``: what is installed, what is configured, and whether the runtime answers.

Each part is examined for itself, so that one that fails does not hide the others; the verdict comes first, and the first failure is the line at the end. It needs the standard library only. Settings of components are not shown: they may hold secrets.
"""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .. import __version__, config, registry
from .._core.urls import without_secrets
from ..client import SERVICES, CloudRuntimesClient, context_of
from ._errors import explain
from ._session import Invocation, make_client
from ._streams import GREEN, RED, complain, styled, write
from ._tables import Table

if TYPE_CHECKING:
    from ..runtimes.capa import CapaRuntime

T = TypeVar("T")

_READY_TIMEOUT: Final = 3.0
_WIDTH: Final = 16


class _Examination:
    """Gathers the report and the first thing that is wrong."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def attempt(self, part: Callable[[], T], otherwise: T) -> T:
        try:
            return part()
        except Exception as error:
            self.problem = self.problem or explain(error)
            return otherwise


def doctor(invocation: Invocation, as_json: bool) -> int:
    """Write the report; return 0 when the runtime is ready, else 1."""
    report = _examine(invocation)
    if as_json:
        import json

        write(json.dumps(report, ensure_ascii=False).encode() + b"\n")
    else:
        write("".join(f"{line}\n" for line in _lines(report)).encode("utf-8", "backslashreplace"))
        if not report["ready"]:
            complain(report["problem"])
    return 0 if report["ready"] else 1


def _examine(invocation: Invocation) -> dict[str, Any]:
    look = _Examination()
    workers: str | None = None
    waiting: list[dict[str, Any]] = []
    client = look.attempt(lambda: make_client(invocation), None)
    try:
        settings = look.attempt(lambda: _settings(client), None)
        kernels = look.attempt(_kernels, {"native": False, "reason": "the kernels cannot be chosen"})
        components: list[dict[str, Any]] = look.attempt(
            lambda: _components(look.attempt(lambda: _capa(client), None)), []
        )
        homes: dict[str, Any] = look.attempt(lambda: _homes(client), {"home": None, "homes": {}})
        declared: list[dict[str, str]] = look.attempt(lambda: _declared(client), [])
        if client is not None and look.problem is None:
            limit = min(_READY_TIMEOUT, invocation.timeout or _READY_TIMEOUT)
            look.attempt(lambda: client.wait_ready(timeout=limit), None)
            if look.problem is None:
                workers = _workers(client)
            # also where a broker is away: then it matters
            waiting = look.attempt(lambda: _waiting(client), [])
    finally:
        if client is not None:
            look.attempt(client.close, None)
    return {
        "version": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "kernels": kernels,
        "sqlite": sqlite3.sqlite_version,
        "runtime": None if settings is None else {"name": settings.runtime, "from": _runtime_origin(invocation)},
        "runtimes": registry.names(registry.RUNTIMES),
        "endpoint": None if settings is None or settings.endpoint is None else without_secrets(settings.endpoint),
        "app_id": None if settings is None else settings.app_id,
        **homes,
        "configuration": {
            **look.attempt(lambda: _config_file(invocation), {"from": None, "why": None}),
            "declared": declared,
        },
        "components": components,
        "workers": workers,
        "waiting": waiting,
        "ready": look.problem is None,
        "problem": look.problem,
    }


def _workers(client: CloudRuntimesClient) -> str | None:
    """Ask a server of this application whether what it runs works; ``None``: none answers."""
    from ..errors import CloudRuntimesError

    try:
        reply = client.rpc.invoke(
            context_of(client).settings.app_id, "healthz", http_method="GET", timeout=_READY_TIMEOUT
        )
    except CloudRuntimesError:
        return None
    if reply.status != 503:
        return "working"
    return "not working: a subscription, a configuration watcher or the jobs; the log of the worker says why"


def _waiting(client: CloudRuntimesClient) -> list[dict[str, Any]]:
    """Tell what waits in outboxes and spools, or was refused."""
    from ..pubsub.relay_operations import statuses

    frame: Any = context_of(client).frame("pubsub")
    return [
        {
            "pubsub": each.relay.pubsub_name,
            "in": each.relay.where,
            "events": each.waiting.events,
            "refused": each.refused.events,
            "configured": each.taken,
        }
        for each in statuses(frame.relays)
        if each.waiting.events or each.refused.events
    ]


def _config_file(invocation: Invocation) -> dict[str, str | None]:
    from .._core.config_discovery import find

    source = find(invocation.config)
    return {"from": None, "why": None} if source is None else {"from": str(source.path), "why": source.why}


def _settings(client: CloudRuntimesClient | None) -> config.ClientSettings | None:
    return None if client is None else context_of(client).settings


def _kernels() -> dict[str, Any]:
    from .. import native_status

    return native_status()._asdict()


def _homes(client: CloudRuntimesClient | None) -> dict[str, Any]:
    from .._core.home import home_folder

    capa = _capa(client)
    if capa is None:
        return {"home": home_folder(None), "homes": {}}
    return {"home": str(capa.home()), "homes": {service: str(home) for service, home in capa.homes.items()}}


def _capa(client: CloudRuntimesClient | None) -> CapaRuntime | None:
    from ..runtimes.capa import CapaRuntime

    runtime = None if client is None else context_of(client).runtime()
    return runtime if isinstance(runtime, CapaRuntime) else None


def _declared(client: CloudRuntimesClient | None) -> list[dict[str, str]]:
    if client is None:
        return []
    components = context_of(client).runtime().declared()
    return [
        {"service": service, "name": name, "component": components[service, name]}
        for service, name in sorted(components)
    ]


def _components(capa: CapaRuntime | None) -> list[dict[str, Any]]:
    homes = () if capa is None else (*capa.homes.values(), capa.home())
    tables = {each.component.name: each.find(each.services[0], "")[1] for each in homes if each.component is not None}
    return [_component(name, tables.get(name, {})) for name in registry.names(registry.COMPONENTS)]


def _component(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Tell what a component offers, without its configuration unless it is the home, and without I/O."""
    report: dict[str, Any] = {"name": name, "services": {}}
    try:
        component_class = registry.find(registry.COMPONENTS, name)
        report["services"] = dict.fromkeys(component_class.services)
        from ..spi.executor import Executor

        plain = config.load(
            {}, services=SERVICES, endpoint=None, timeout=None, runtime="capa", app_id="doctor", api_token=None
        )
        component = component_class(
            config.build(component_class.Settings, table, name, beside="component"), plain, Executor()
        )
        try:
            for service in component_class.services:
                report["services"][service] = sorted(component.driver(service, "doctor").features)
        finally:
            component.close(None)
    except Exception as error:  # e.g. it needs a package or a setting; that concerns only who uses it
        report["note"] = explain(error)
    return report


def _runtime_origin(invocation: Invocation) -> str:
    """Tell why it is this runtime, by the precedence of `config.load`."""
    table, origin = config.read(invocation.config)
    if invocation.runtime:
        return "--runtime"
    if os.environ.get("CLOUD_RUNTIMES_RUNTIME"):
        return "CLOUD_RUNTIMES_RUNTIME"
    if table.get("runtime"):
        return origin
    if invocation.endpoint:
        return "--endpoint"
    if table.get("endpoint"):
        return f"the endpoint in {origin}"
    sidecars = [f"DAPR_{kind}" for kind in ("HTTP_ENDPOINT", "GRPC_ENDPOINT", "HTTP_PORT", "GRPC_PORT")]
    for name in (*sidecars, "LAYOTTO_GRPC_ENDPOINT"):
        if os.environ.get(name):
            return name
    return "the default"


def _lines(report: dict[str, Any]) -> list[str]:
    def line(label: str, text: Any, depth: int = 0) -> str:
        return f"{'  ' * depth + label:<{_WIDTH - 2}}  {text}"

    kernels, runtime, configuration = report["kernels"], report["runtime"], report["configuration"]
    lines = [
        line("ready", styled("yes", GREEN) if report["ready"] else styled("no", RED)),
        line("cloud-runtimes", report["version"]),
        line("Python", report["python"]),
        line("platform", report["platform"]),
        line("kernels", f"{'native' if kernels['native'] else 'Python fallback'}: {kernels['reason']}"),
        line("SQLite", report["sqlite"]),
        line("runtime", f"{runtime['name']} ({runtime['from']})" if runtime else "not chosen"),
        line("runtimes", ", ".join(report["runtimes"])),
        line("endpoint", report["endpoint"] or "none"),
        line("app id", report["app_id"] or "not chosen"),
        line("home", report["home"] or "not chosen"),
        *(line(service, home, 1) for service, home in report["homes"].items()),
        line("configuration", "{from} ({why})".format_map(configuration) if configuration["from"] else "none"),
    ]
    lines += [
        line(f"{each['service']}.{each['name']}", each["component"], 1) for each in report["configuration"]["declared"]
    ]
    if report["workers"] is not None:
        lines.append(line("workers", report["workers"]))
    for each in report["waiting"]:
        text = f"{each['events']:,} events wait for {each['pubsub']} in {each['in']}"
        text += f", {each['refused']:,} were refused (cloud-runtimes spool refused)" if each["refused"] else ""
        lines.append(line("outboxes", text if each["configured"] else f"{text}; this configuration has no such broker"))
    return [*lines, "", *_table(report["components"])]


def _table(components: list[dict[str, Any]]) -> list[str]:
    cells = []
    for each in components:
        if "note" in each:
            cells.append([each["name"], "", each["note"]])
        for service, features in sorted(each["services"].items()):
            text = "by its settings" if features is None else ", ".join(features) or "the minimum"
            cells.append([each["name"], service, text])
    return Table(("component", "service", "features"), whole=True).render(cells)
