"""``telemetry serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from ._session import logging_to_stderr, make_client
from ._streams import write

telemetry_app = typer.Typer(
    help="Look at traces, logs and metrics while developing.", no_args_is_help=True, rich_markup_mode=None
)


Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")]
Port = Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Where to listen; 0: a free one.")]
Home = Annotated[
    str | None, typer.Option(metavar="PATH", help="Folder of telemetry, or :memory:; else the home of [capa].")
]
MaxBytes = Annotated[
    int, typer.Option(metavar="N", min=1 << 20, help="Limit of telemetry; the oldest records go first.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A further name of this server; repeatable.", show_default=False),
]


@telemetry_app.callback()
def _telemetry() -> None:
    """Look at traces, logs and metrics while developing."""


@telemetry_app.command("serve", short_help="Receive and show telemetry.")
def serve(
    context: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = 4318,
    home: Home = None,
    max_bytes: MaxBytes = 256 << 20,
    allow_host: AllowHost = None,
) -> int:
    """Receive traces, logs and metrics by OTLP over HTTP, keep them in telemetry.db, and show them on a page, until interrupted. For development: whoever reaches the address sees all."""
    from .._core.home import home_folder
    from .._core.os_signals import ending_signals
    from ..client import context_of
    from ..dashboard.server import Viewer

    if home is None:
        home = context_of(make_client(context.obj)).settings.runtime_settings.get("home")
    viewer = Viewer(home_folder(home), host, port, allowed_hosts=allow_host or (), max_bytes=max_bytes)
    with logging_to_stderr(), ending_signals(viewer.signalled), viewer:
        write(f"{viewer.address} for a browser, OTEL_EXPORTER_OTLP_ENDPOINT={viewer.address} for clients\n".encode())
        viewer.wait()
    return 128 + viewer.signal
