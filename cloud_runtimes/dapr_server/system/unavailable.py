"""The APIs of Dapr that this sidecar does not have, refused as a ``daprd`` refuses them that has nothing of the kind configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...protocols.dapr.failures import DaprError


@dataclass(frozen=True, slots=True)
class Unavailable:
    """API of Dapr that this sidecar does not have.

    Attributes:
        routes: (methods, path) pairs.
        methods: of gRPC.
        status, grpc_code, error_code: of the refusal.
        message: text of the refusal; ``{}`` is replaced by the name in the route.
    """

    routes: tuple[tuple[str, str], ...]
    methods: tuple[str, ...]
    status: int
    grpc_code: str
    error_code: str
    message: str

    def failure(self, name: str) -> DaprError:
        """Return the refusal."""
        return DaprError(self.status, self.grpc_code, self.error_code, self.message.replace("{}", name).strip())


def _each(pattern: str, names: str) -> tuple[str, ...]:
    return tuple(pattern.replace("%", name) for name in names.split())


_NO_PLACEMENT: Final = (400, "UNAVAILABLE", "ERR_ACTOR_NO_PLACEMENT", "placement service is not configured")

APIS: Final = (
    Unavailable(
        (("*", "/v1.0/actors/{type}/{id}/{rest*}"),),
        (
            *_each("%ActorTimer", "Register Unregister"),
            *_each("%ActorReminder", "Register Unregister Get"),
            "UnregisterActorRemindersByType",
            "ListActorReminders",
            "GetActorState",
            "ExecuteActorStateTransaction",
            "InvokeActor",
            "SubscribeActorEventsAlpha1",
        ),
        *_NO_PLACEMENT,
    ),
    Unavailable(
        tuple(("GET POST", path) for path in _each("/%/workflows/{component}/{rest*}", "v1.0-alpha1 v1.0-beta1 v1.0")),
        tuple(
            name
            for version in ("Alpha1", "Beta1")
            for name in _each(f"%Workflow{version}", "Start Get Purge Terminate Pause Resume RaiseEvent")
        ),
        *_NO_PLACEMENT,
    ),
    Unavailable(
        tuple(("PUT", path) for path in _each("/v1.0-alpha1/crypto/{name}/%", "encrypt decrypt")),
        _each("%Alpha1", "Encrypt Decrypt"),
        500,
        "INTERNAL",
        "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED",
        "crypto providers not configured",
    ),
    Unavailable(
        tuple(
            ("POST", path)
            for path in _each(
                "/v1.0-alpha1/subtlecrypto/{name}/%", "getkey encrypt decrypt wrapkey unwrapkey sign verify"
            )
        ),
        _each("Subtle%Alpha1", "GetKey Encrypt Decrypt WrapKey UnwrapKey Sign Verify"),
        501,
        "UNIMPLEMENTED",
        "ERR_API_UNIMPLEMENTED",
        "this API is currently not implemented",
    ),
    Unavailable(
        tuple(("POST", path) for path in _each("/%/conversation/{name}/converse", "v1.0-alpha1 v1.0-alpha2")),
        ("ConverseAlpha1", "ConverseAlpha2"),
        400,
        "INVALID_ARGUMENT",
        "ERR_CONVERSATION_NOT_FOUND",
        "failed finding conversation component {}",
    ),
)
