"""``serve``: its options. What it does is in `_serve`, which imports the sidecar."""

from __future__ import annotations

from typing import Annotated

import typer

from ._daprd import Daprd

__all__ = ["serve"]


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
