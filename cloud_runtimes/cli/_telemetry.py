"""``telemetry serve``."""

from __future__ import annotations

from collections.abc import Sequence

from .._core.home import home_folder
from .._core.signals import ending_signals
from ..dashboard.server import Viewer
from ._session import Invocation, logging_to_stderr, make_client
from ._streams import write

__all__ = ["serve"]


def serve(
    invocation: Invocation, host: str, port: int, home: str | None, max_bytes: int, allowed_hosts: Sequence[str]
) -> int:
    """Receive and show telemetry until a signal; return the exit code."""
    if home is None:
        home = make_client(invocation)._context.settings.runtime_settings.get("home")
    viewer = Viewer(home_folder(home), host, port, allowed_hosts=allowed_hosts, max_bytes=max_bytes)
    with logging_to_stderr(), ending_signals(viewer.signalled), viewer:
        write(f"{viewer.address} for a browser, OTEL_EXPORTER_OTLP_ENDPOINT={viewer.address} for clients\n".encode())
        viewer.wait()
    return 128 + viewer.signal
