"""``dashboard``."""

from __future__ import annotations

from typing import Annotated

import typer

from ._session import connect
from ._streams import write
from ._telemetry import AllowHost, Home, Host, MaxBytes, Port


def dashboard(
    context: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = 4318,
    home: Home = None,
    max_bytes: MaxBytes = 256 << 20,
    allow_host: AllowHost = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Mend too, with the token in the address.")
    ] = False,
    hide_payloads: Annotated[
        bool, typer.Option("--hide-payloads", help="Show no data of events, no values and no content of files.")
    ] = False,
) -> int:
    """Show what services hold on a page: topics, groups, dead letters, jobs, locks, services, stores, and the telemetry that it receives by OTLP over HTTP, until interrupted. Whoever reaches the address sees all; /metrics is for Prometheus."""
    import secrets

    from .._core.home import home_folder
    from .._core.os_signals import ending_signals
    from ..client import context_of
    from ..dashboard.operations import Operations
    from ..dashboard.server import Viewer

    token = secrets.token_urlsafe(24) if allow_changes else None
    with connect(context.obj) as client:
        if home is None:
            home = context_of(client).settings.runtime_settings.get("home")
            home = home if isinstance(home, str) and "://" not in home else None
        operations = Operations(client, token=token, hide_payloads=hide_payloads)
        viewer = Viewer(
            home_folder(home), host, port, allowed_hosts=allow_host or (), max_bytes=max_bytes, operations=operations
        )
        with ending_signals(viewer.signalled), viewer:
            fragment = f"/#token={token}" if token else ""
            write(
                f"{viewer.address}{fragment} for a browser, OTEL_EXPORTER_OTLP_ENDPOINT={viewer.address} for clients\n".encode()
            )
            viewer.wait()
    return 128 + viewer.signal
