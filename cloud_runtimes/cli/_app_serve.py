"""``serve``: its options, and those of ``daprd`` (dapr/dapr ``cmd/daprd/options``): what it takes without an effect, and what it refuses, since somebody relies on it.

The work is in `_serve`, which imports the sidecar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from ._errors import UsageError

# fmt: off
_WITH_VALUE: Final = frozenset([
    "actors-disseminate-timeout", "actors-service", "allowed-origins", "app-binding-options-timeout",
    "app-health-check-path", "app-health-probe-interval", "app-health-probe-timeout", "app-health-threshold",
    "app-max-concurrency", "config", "control-plane-address", "control-plane-namespace",
    "control-plane-trust-domain", "dapr-block-shutdown-duration", "dapr-http-max-request-size",
    "dapr-http-read-buffer-size", "dapr-internal-grpc-listen-address", "dapr-internal-grpc-port",
    "dapr-public-listen-address", "dapr-public-port", "disable-init-endpoints", "hot-reload-reconcile-interval",
    "log-level", "metrics-listen-address", "metrics-port", "mode", "placement-host-address", "profile-port",
    "read-buffer-size", "reminders-service", "scheduler-host-address", "scheduler-job-streams",
    "sentry-address", "sentry-request-jwt-audiences", "unix-domain-socket",
])
_SWITCHES: Final = frozenset([
    "app-ssl", "disable-builtin-k8s-secret-store", "enable-api-logging", "enable-app-health-check",
    "enable-metrics", "enable-mtls", "enable-profiling", "log-as-json",
])
# fmt: on
_FALSE: Final = ("0", "f", "F", "false", "False", "FALSE")
_REFUSED: Final = {
    "app-max-concurrency": "calls of the application have no limit here, on which it may rely",
    "app-ssl": "the application is called without TLS",
    "enable-mtls": "sidecars speak without TLS here",
    "mode": "there is standalone",
    "unix-domain-socket": "ports of TCP are listened on, which more may reach than the socket",
}
_HARMLESS: Final = {"app-max-concurrency": ("-1", "0"), "mode": ("standalone",), "unix-domain-socket": ("",)}
"""Values with which an option that is refused asks for nothing."""


@dataclass(slots=True)
class Daprd:
    """Options of daprd beside those of ``serve``.

    Attributes:
        configs: paths of ``--config``.
        max_body_size: of ``--dapr-http-max-request-size``, as ``--max-body-size``.
        ignored: names of those without an effect.
    """

    configs: list[str] = field(default_factory=list)
    max_body_size: str | None = None
    ignored: list[str] = field(default_factory=list)

    def take(self, name: str, value: str | None) -> None:
        """Take an option; a switch that is on has ``None``.

        Raises:
            UsageError: to ignore it would be dangerous.
        """
        if name in _REFUSED and value not in _HARMLESS.get(name, _FALSE):
            raise UsageError(f"--{name}: {_REFUSED[name]}: run daprd for that")
        if name == "config" and value is not None:
            if value.endswith((".toml", ".json")):
                raise UsageError("--config after serve is daprd's; ours stands before: cloud-runtimes --config … serve")
            self.configs.append(value)
        elif name == "dapr-http-max-request-size":
            self.max_body_size = f"{value}Mi"
        elif f"--{name}" not in self.ignored:
            self.ignored.append(f"--{name}")


def taken_out(arguments: Sequence[str]) -> tuple[list[str], Daprd]:
    """Return the arguments that are left, and what was taken out of them; what follows ``--`` is the command's.

    Raises:
        UsageError: an option has no value, or must not be ignored.
    """
    rest: list[str] = []
    options = Daprd()
    given = iter(arguments)
    for each in given:
        if each == "--":
            return [*rest, each, *given], options
        name, equals, value = each.removeprefix("--").partition("=")
        if not each.startswith("--") or name not in _WITH_VALUE | _SWITCHES:
            rest.append(each)
        elif name in _SWITCHES:
            options.take(name, value if equals else None)
        else:
            argument = value if equals else next(given, None)
            if argument is None or argument == "--":
                raise UsageError(f"--{name} needs a value")
            options.take(name, argument)
    return rest, options


class ServeCommand(TyperCommand):
    """``serve``, which finds `Daprd` in the context's ``meta``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest, ctx.meta[Daprd.__name__] = taken_out(args)
        return super().parse_args(ctx, rest)


def serve(
    context: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND [ARGUMENT]...", help="What to run beside it.")
    ] = None,
    app_id: Annotated[
        str | None, typer.Option("--app-id", "-a", metavar="ID", help="The application: its name for calls; else APP_ID.")
    ] = None,
    app_port: Annotated[
        int | None, typer.Option("--app-port", "-p", metavar="PORT", max=65535, help="Where it listens.")
    ] = None,
    app_protocol: Annotated[
        str, typer.Option("--app-protocol", "-P", metavar="http|grpc", help="What it speaks.")
    ] = "http",
    app_channel_address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address on which it listens.")
    ] = "127.0.0.1",
    http_port: Annotated[
        int, typer.Option("--dapr-http-port", "-H", metavar="PORT", max=65535, help="0 or -1: a free one.")
    ] = 3500,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            "--dapr-grpc-port", "-G", metavar="PORT", max=65535, help="0 or -1: a free one; else 50001.",
            show_default=False,
        ),
    ] = None,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="Serve HTTP alone.")] = False,
    listen: Annotated[
        str, typer.Option("--dapr-listen-addresses", "--host", metavar="ADDRESS", help="Where to listen.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A further name of this server, for callers without a token; repeatable.",
            show_default=False,
        ),
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Option(
            "--resources-path", "--components-path", "-d", metavar="PATH",
            help="Folder of resource files; repeatable, or with commas.", show_default=False,
        ),
    ] = None,
    api_token: Annotated[
        str | None,
        typer.Option("--dapr-api-token", metavar="TOKEN", help="What callers must send; else DAPR_API_TOKEN, which ps does not show."),
    ] = None,
    max_body_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of a request's body, e.g. 8Mi; else 4Mi.", show_default=False)
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--dapr-graceful-shutdown-seconds", metavar="SECONDS", min=0,
            help="What is under way has at the end; the command before SIGKILL.",
        ),
    ] = 5.0,
) -> int:  # fmt: skip
    """Serve the HTTP and gRPC API of a Dapr sidecar, until interrupted, until the command ends, or until /v1.0/shutdown is called. For development, tests and single machines: run Dapr itself where there are several machines, for its actors, workflows and components, mTLS and access control.

    Options mean what they mean to daprd and dapr run; the other options of daprd are taken too, and those without an effect are named. The command finds APP_ID, APP_PORT, APP_PROTOCOL, DAPR_HTTP_PORT and DAPR_GRPC_PORT in its environment, gets the signals that come here, and its exit code is this one's. Without --resources-path every name of a component is there, in the home folder.
    """
    from ._serve import ServeOptions, serve_sidecar

    return serve_sidecar(context.obj, ServeOptions(**context.params, daprd=context.meta[Daprd.__name__]))
