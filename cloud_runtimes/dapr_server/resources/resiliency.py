"""What of Dapr's resource `Resiliency` is held by a sidecar: timeouts and retries of calls of the application beside it, which is `Resiliency.app`. The rest is warned of."""

from __future__ import annotations

from ...protocols.dapr.documents import Document, Problems, Unheld, read_resiliency
from ...resiliency.policies import Resiliency

__all__ = ["resiliency"]


def resiliency(documents: list[Document], app_id: str, problems: Problems) -> Resiliency | None:
    """Return what all documents come to; ``None``: there are none."""
    if not documents:
        return None
    rest = Unheld()
    found = read_resiliency(documents, problems, rest, breakers=False)
    unheld = [f"circuit breaker {name!r}" for name in rest.breakers]
    unheld += [f"actor {name!r}" for name in rest.actors]
    unheld += [f"calls of {name!r}, which is another application" for name in found.apps if name != app_id]
    unheld += [f"component {name!r}" for name in dict.fromkeys((*found.outbound, *found.inbound))]
    unheld += [f"default {name!r}" for name in found.defaults if name.startswith(("Actor", "Component"))]
    if unheld:
        problems.warn("resiliency", f"has no effect here: {'; '.join(dict.fromkeys(unheld))}")
    return found
