"""The sidecar itself in words of neither protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ..._core.logs import logger
from ...client import context_of
from ...errors import CloudRuntimesError
from ...protocols.dapr.failures import DaprError
from ...spi import state as state
from ..context import Context
from ..settings import ComponentInfo, SidecarSettings, Subscription

RUNTIME_VERSION: Final = "1.19.0"
"""The version of Dapr whose API this is; clients look at it."""

_KINDS: Final = {
    "state": "state",
    "pubsub": "pubsub",
    "secret": "secretstores",
    "configuration": "configuration",
    "lock": "lock",
}
"""Service → what the type of such a component begins with in Dapr."""

_MAX_ATTRIBUTES: Final = 100
_MAX_BYTES: Final = 64 * 1024
"""Of all attributes, names and values."""
_CAPABILITIES: Final = ((state.ETAG, "ETAG"), (state.TRANSACTION, "TRANSACTIONAL"), (state.TTL, "TTL"))


class SystemApi:
    """Metadata, health and shutdown of the sidecar."""

    def __init__(self, context: Context, shutdown: Callable[[], None]) -> None:
        self._context = context
        self._shutdown = shutdown

    @property
    def settings(self) -> SidecarSettings:
        """Settings of the sidecar."""
        return self._context.settings

    @property
    def subscriptions(self) -> list[Subscription]:
        """Subscriptions that are declared or requested, whether they can be opened or not, and streams."""
        wanted = self._context.wanted
        return [*wanted, *(each for each in self._context.subscriptions if each not in wanted)]

    def components(self) -> list[ComponentInfo]:
        """Return the components: those that the settings name, else those that the client's configuration declares, and the bindings."""
        return list(self.settings.components or self._declared())

    def attributes(self) -> dict[str, str]:
        """Return what was set, and the version."""
        from ... import __version__

        return {
            **self._context.attributes,
            "daprRuntimeVersion": RUNTIME_VERSION,
            "cloudRuntimesVersion": __version__,
        }

    def set_attribute(self, name: str, value: str) -> None:
        """Set one; without a name nothing is done.

        Raises:
            DaprError: all of them would be more than is kept, since each `GetMetadata` tells them.
        """
        if not name:
            return
        attributes = {**self._context.attributes, name: value}
        size = sum(len(text.encode()) for pair in attributes.items() for text in pair)
        if len(attributes) > _MAX_ATTRIBUTES or size > _MAX_BYTES:
            text = (
                f"the metadata would be {len(attributes)} attributes of {size:,} bytes: a sidecar keeps {_MAX_ATTRIBUTES} "
                f"of {_MAX_BYTES:,} bytes together; set fewer or shorter ones"
            )
            raise DaprError.basic(413, "RESOURCE_EXHAUSTED", "ERR_METADATA_TOO_LARGE", text)
        self._context.attributes[name] = value

    def check_health(self, app_id: str | None) -> None:
        """Refuse while the application does not listen yet or a subscription of it cannot work, and for another application's sidecar."""
        lacking = ["app"] if self._context.app is not None and not self._context.app.is_ready else []
        problems = [(name, tell()) for name, tell in self._context.watched.items()]
        lacking += [f"{name}: {why}" for name, why in problems if why is not None]
        if lacking:
            raise DaprError(500, "INTERNAL", "ERR_HEALTH_NOT_READY", f"dapr is not ready: [{' '.join(lacking)}]")
        if app_id is not None and app_id != self.settings.app_id:
            raise DaprError(500, "INTERNAL", "ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match")

    def shutdown(self) -> None:
        """End the sidecar, once what is under way is answered."""
        logger().info("shutdown requested via the API")
        self._shutdown()

    def _declared(self) -> Iterator[ComponentInfo]:
        declared = context_of(self._context.client).runtime().declared()
        for (service, name), vendor in declared.items():
            if service in _KINDS:
                yield ComponentInfo(name, f"{_KINDS[service]}.{vendor}", capabilities=self._capabilities(service, name))
        for name, (service, store) in self.settings.bindings.items():
            vendor = declared.get((service, store), "sqlite")
            yield ComponentInfo(
                name,
                "bindings.localstorage" if service == "file" else f"bindings.{vendor}",
                capabilities=("OUTPUT_BINDING",),
            )

    def _capabilities(self, service: str, name: str) -> tuple[str, ...]:
        if service != "state":
            return ()
        try:
            features = self._context.driver(service, name).features
        except CloudRuntimesError:  # its settings are wrong, which its first call says
            return ()
        return tuple(capability for feature, capability in _CAPABILITIES if feature in features)
