"""The base of a sidecar's building blocks, and their view of the sidecar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..client import ServiceFrame, context_of
from ..errors import CloudRuntimesError, ComponentNotFoundError
from .limits import Budget
from .settings import SidecarSettings, Subscription

if TYPE_CHECKING:
    from ..client import CloudRuntimesClient
    from .app.channel import AppChannel
    from .http.app import HttpApi


class Lack(Enum):
    """Why there is no such component."""

    NOT_CONFIGURED = "there is none of its kind"
    NOT_FOUND = "there is none of its name"


@dataclass(slots=True)
class Context:
    """Shared state of a sidecar.

    Attributes:
        client: its services answer the requests; its async API is used throughout, on the sidecar's loop.
        settings: of the sidecar.
        attributes: attributes set by ``SetMetadata``.
        app: the application, ``None`` if it has no port.
        grpc_address: address of the sidecar's gRPC server; ``""``: there is none.
        peer_token: token with which other sidecars of the home pass gRPC calls on to this sidecar's application.
        wanted: subscriptions that are declared or that the application has asked for, open or not.
        subscriptions: subscriptions that are open now.
        watched: subscription of the application → function that returns why it cannot work now, ``None``: it works.
    """

    client: CloudRuntimesClient
    settings: SidecarSettings
    attributes: dict[str, str] = field(default_factory=dict)
    app: AppChannel | None = None
    grpc_address: str = ""
    peer_token: str | None = field(default=None, repr=False)
    wanted: list[Subscription] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)
    watched: dict[str, Callable[[], str | None]] = field(default_factory=dict)

    def configured(self, service: str) -> bool:
        """Return whether there can be a component of this service: one is declared, or none is of any, so that names are free.

        Dapr tells "none of this kind" (not configured) from "none of this name" (not found).
        """
        declared = context_of(self.client).runtime().declared()
        return not declared or any(kind == service for kind, _ in declared)

    def lack(self, service: str, store: str) -> Lack | None:
        """Tell why there is no such component, ``None``: there is one, though its settings may be wrong. Does no I/O."""
        try:
            self.driver(service, store)
        except ComponentNotFoundError:
            return Lack.NOT_FOUND if self.configured(service) else Lack.NOT_CONFIGURED
        except CloudRuntimesError:
            # what is wrong with a declared one, its first use says; else it is no name of a component
            if (service, store) not in context_of(self.client).runtime().declared():
                return Lack.NOT_FOUND if self.configured(service) else Lack.NOT_CONFIGURED
        return None

    def budget(self, what: str, remedy: str) -> Budget:
        """Return the budget of one answer; arguments as of `Budget`. An answer may be as large as a request."""
        limits = self.settings.limits
        return Budget(replace(limits, bytes=max(limits.bytes, self.settings.max_body)), what, remedy)

    def frame(self, service: str) -> ServiceFrame:
        """Return what stands between a service of the client and its drivers."""
        return context_of(self.client).frame(service)

    def driver(self, service: str, store: str) -> Any:
        """Return a component's driver, whose ``features`` tell what it can.

        Raises:
            ComponentNotFoundError: there is none.
            CloudRuntimesError: the name is none of a component, or its settings are wrong.
        """
        return self.frame(service).driver(store)


class Block:
    """Base of a building block: routes over HTTP, methods over gRPC, and what runs by itself."""

    def routes(self, http: HttpApi) -> None:
        """Add its routes."""

    def methods(self, grpc: Any) -> None:
        """Add its methods."""

    async def start(self) -> None:
        """Begin what runs by itself; before the first request."""

    async def stop(self) -> None:
        """End it; after the last request."""
