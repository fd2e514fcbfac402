"""The part of Dapr's resource `Resiliency` that a sidecar holds: policies for calls of applications, which is `Resiliency.app`. The rest is warned of."""

from __future__ import annotations

from ...protocols.dapr.documents import Document, Problems, read_resiliency
from ...resiliency.policies import Resiliency

__all__ = ["resiliency"]


def resiliency(documents: list[Document], problems: Problems) -> Resiliency | None:
    """Return what all documents come to; ``None``: there are none."""
    if not documents:
        return None
    actors: list[str] = []
    found = read_resiliency(documents, problems, actors)
    unheld = [f"actor {name!r}" for name in actors]
    unheld += [f"component {name!r}" for name in dict.fromkeys((*found.outbound, *found.inbound))]
    unheld += [f"default {name!r}" for name in found.defaults if name.startswith(("Actor", "Component"))]
    if unheld:
        problems.warn("resiliency", f"has no effect here: {'; '.join(dict.fromkeys(unheld))}")
    return found
