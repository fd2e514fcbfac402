"""``init``, ``config validate`` and ``config schema``: the configuration file of an application."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from .. import config
from .._core import extras
from .._core.config_discovery import find
from ..errors import UnsupportedError
from ._errors import UsageError
from ._session import Invocation, connect
from ._streams import note, write

_NAME: Final = "cloud-runtimes.toml"
_SCHEMA: Final = "cloud-runtimes.schema.json"
_TEXT: Final = """\
#:schema ./{schema}
# Configuration of Cloud Runtimes, found from this folder and those below it.
# Every line may go: without any, all services work on SQLite and files in .cloud_runtimes, beside this file.

app_id = {app_id}     # name of the application: source of its events, consumer group, name for calls
# timeout = 30        # seconds for a call, retries included

# Where all names live that have no table below. Leave the code as it is, and move:
# [capa]
# home = "postgresql://user@host/name"     # {postgres}
# home = "redis://user@host:6379/0"        # {redis}
# home = "nats://user:password@host:4222"
# home = "etcd://user:password@host:2379"

# A service that the home lacks, or that is better elsewhere, has a home of its own:
# [capa.homes]
# file = "s3://bucket/prefix"
# pubsub = "kafka://host:9092"

# Names with a component of their own. With strict = true in [capa], every name needs one.
# [state.orders]
# component = "sqlite"
#
# [pubsub.bus]
# component = "redis"
# url = "redis://localhost:6379/0"

# [telemetry]
# instrument = true                        # spans of calls and handlers, metrics of subscriptions
# endpoint = "http://localhost:4318"       # where OTLP goes; without it to files in the home
"""


def init(context: typer.Context) -> int:
    """Write cloud-runtimes.toml, with comments, in the working directory. It is found there and in all folders below. Beside it is the schema by which editors complete and check it."""
    from ._schema import schema_text

    app_id = context.obj.app_id or "".join(
        each if each.isascii() and (each.isalnum() or each in "._-") else "-" for each in os.path.basename(os.getcwd())
    )
    try:
        with open(_NAME, "x", encoding="utf-8") as file:
            lines = {extra: f"{extras.install_line(extra)} {extras.WHERE}" for extra in ("postgres", "redis")}
            file.write(_TEXT.format(app_id=f'"{app_id[:128] or "app"}"', schema=_SCHEMA, **lines))
    except FileExistsError:
        raise UsageError(f"{_NAME} is there already: edit it, or remove it first") from None
    with open(_SCHEMA, "w", encoding="utf-8") as file:
        file.write(schema_text())
    note(f"wrote {_NAME} and {_SCHEMA}: cloud-runtimes doctor tells what it does")
    return 0


def schema(
    resources: Annotated[
        bool, typer.Option("--resources", help="That of the resource files of Dapr which serve reads.")
    ] = False,
) -> int:
    """Write a JSON schema of the configuration, by which editors complete and check it. Components of other packages are in it, where they are installed."""
    if resources:
        from ..dapr_server.resources.schema import resource_schema_text as schema_text
    else:
        from ._schema import schema_text

    write(schema_text().encode())
    return 0


def validate(
    context: typer.Context,
    path: Annotated[
        str | None, typer.Argument(help="File or folder; else the one that counts here.", show_default=False)
    ] = None,
) -> int:
    """Check the configuration of this command and of applications here, without reaching any server. Exit code 2 where something is wrong."""
    invocation: Invocation = context.obj
    if path is not None:
        invocation.config = path
    source = find(invocation.config)
    if source is None:
        raise UsageError("there is no configuration file: name one, or make one by cloud-runtimes init")
    config.read(invocation.config)
    from .._service import requirements
    from ..client import context_of, read_policies
    from ..runtimes.capa import CapaRuntime

    with connect(invocation) as client:
        shared = context_of(client)
        runtime = shared.runtime()
        for service, name in (declared := sorted(runtime.declared())):
            shared.frame(service).driver(name)
        shared.service("telemetry")
        try:
            requirements.check(shared, shared.settings.requires)
        except UnsupportedError as error:
            raise UsageError(str(error)) from None
        if shared.settings.resiliency is not None:
            for target, service, name in read_policies(shared).policies.named():
                known = [each for kind, each in declared if kind == service]
                if name not in known and (meant := config.typo(name, known)):
                    note(f'warning: [resiliency.targets."{target}"]: is [{service}.{meant}] meant?')
        undeclared = f"undeclared names on {runtime}"
        if isinstance(runtime, CapaRuntime):
            if runtime.capa.strict:
                undeclared = "undeclared names are refused"
            for service in (*runtime.homes, runtime.home().services[0]):
                runtime.undeclared(service)
    write(f"{source.path}: valid, {len(declared)} components, {undeclared}\n".encode())
    return 0
