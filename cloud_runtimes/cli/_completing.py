"""Names that the shell completes: of components, topics and groups, as the configuration and the home have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import typer

from ..errors import CloudRuntimesError
from ._session import Invocation, make_client

if TYPE_CHECKING:
    from ..client import CloudRuntimesClient

_PATIENCE: Final = 2.0
"""Seconds after which a shell completes nothing."""


def _offered(names: Callable[[CloudRuntimesClient, dict[str, Any], str], Iterable[str]]) -> Any:
    """Return what typer asks for the names that begin so; whatever fails completes nothing."""

    def complete(context: typer.Context, incomplete: str) -> Iterator[str]:
        root = context.find_root().params
        invocation = Invocation(
            root.get("config"), root.get("runtime"), root.get("endpoint"), root.get("app_id"), _PATIENCE
        )
        try:
            with redirect_stderr(StringIO()), make_client(invocation) as client:
                found = [*names(client, context.params, incomplete)]
        except (CloudRuntimesError, OSError):
            return
        yield from (name for name in found if name.startswith(incomplete))

    return complete


def stores(service: str) -> Any:
    """Return what completes the names of a service's components."""
    return _offered(
        lambda client, given, begun: (each.name for each in client.admin.stores() if each.service == service)
    )


def _bus(given: dict[str, Any]) -> str:
    bus: str = given["name"] if "name" in given else given["pubsub"]
    return bus


topics: Final = _offered(
    lambda client, given, begun: (each.name for each in client.admin.topics(_bus(given), prefix=begun, limit=100))
)
groups: Final = _offered(
    lambda client, given, begun: (each.name for each in client.admin.groups(_bus(given), given["topic"]))
)
