"""A page that shows what services hold and what telemetry says, and mends where that is allowed.

``cloud-runtimes dashboard`` runs it (`server`), and ``cloud-runtimes telemetry serve`` runs its receiver of OTLP alone. `asgi` answers HTTP, `operations` asks ``client.admin``, `openmetrics` says it to scrapers. `otlp_json` and `cloud_runtimes.telemetry.json_records` read telemetry, `rows` makes rows of it, `store` keeps it within limits, `queries` reads it for the page, whose files are in ``page/``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..client import CloudRuntimesClient

__all__ = ["app"]


def app(
    client: CloudRuntimesClient,
    *,
    token: str | None = None,
    hide_payloads: bool = False,
    allowed_hosts: Sequence[str] = (),
) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Return the dashboard as an ASGI application, to be mounted behind a login: ``api.mount("/ops", app(client))``.

    It shows what the components of the client hold, and no telemetry.

    Args:
        client: whose components are shown; the caller closes it.
        token: allows changes to whoever opens the page with ``#token=…`` behind its address; ``None``: it only shows.
        hide_payloads: show no data of events and no values.
        allowed_hosts: names of the server beside addresses and ``localhost``; one that begins with a dot stands for all below it.
    """
    from .._http.request_guard import RequestGuard
    from .asgi import DashboardApp
    from .operations import Operations

    guard = RequestGuard(allowed_hosts, option="allowed_hosts=", pages=True)
    return DashboardApp(None, guard, Operations(client, token=token, hide_payloads=hide_payloads))
