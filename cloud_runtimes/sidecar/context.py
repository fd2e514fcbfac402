"""What the building blocks of a sidecar share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .pubsub.types import Subscription
from .settings import SidecarSettings

if TYPE_CHECKING:
    from ..client import CloudRuntimesClient
    from .app.channel import AppChannel

__all__ = ["Context"]


@dataclass(slots=True)
class Context:
    """One for each sidecar.

    Attributes:
        client: whose services answer; its async face is used throughout, on the sidecar's loop.
        settings: of the sidecar.
        attributes: what ``SetMetadata`` has set.
        app: the application, ``None`` where there is no port of it.
        subscriptions: those that are open now, as `GetMetadata` tells them.
    """

    client: CloudRuntimesClient
    settings: SidecarSettings
    attributes: dict[str, str] = field(default_factory=dict)
    app: AppChannel | None = None
    subscriptions: list[Subscription] = field(default_factory=list)

    def configured(self, service: str) -> bool:
        """Tell whether there can be a component of this service: one is declared, or none is of any, so that names are free.

        Dapr tells "none of this kind" (not configured) from "none of this name" (not found).
        """
        declared = self.client._runtime_for().declared()
        return not declared or any(kind == service for kind, _ in declared)
