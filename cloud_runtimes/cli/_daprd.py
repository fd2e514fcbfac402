"""The command line of ``daprd`` (dapr/dapr ``cmd/daprd/options``): what of it ``serve`` takes without an effect, and what it refuses, since somebody relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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
