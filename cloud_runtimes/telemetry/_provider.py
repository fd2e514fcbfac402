"""What the providers of OpenTelemetry's API share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UnsupportedError
from ._wire import scope

if TYPE_CHECKING:
    from .service import TelemetryService

__all__ = ["Provider", "Resource"]


class Resource(NamedTuple):
    """Who records, as the SDK's providers tell it.

    Attributes:
        attributes: of the resource.
    """

    attributes: Mapping[str, Any]


class Provider:
    """Base of the three: the scope of what records, and what the SDK's providers have besides the API.

    Args:
        telemetry: where all goes.
    """

    def __init__(self, telemetry: TelemetryService) -> None:
        self._telemetry = telemetry

    @property
    def resource(self) -> Resource:
        """Who records."""
        return Resource(MappingProxyType(self._telemetry._resource))

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Send all that was recorded before, of all signals; tell whether it was accepted in time. See `TelemetryService.flush`."""
        return self._telemetry.flush(max(timeout_millis, 1) / 1000)

    def shutdown(self) -> None:
        """Send what there is; recording goes on until the client is closed, which other parts of the program may use."""
        self.force_flush()

    def _scope(
        self, name: str, version: str | None, schema_url: str | None, attributes: Mapping[str, Any] | None
    ) -> int:
        return self._telemetry._scope_number(scope(name or "", version, schema_url, attributes))

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"telemetry: there are no {what} of the SDK here: records go where the table [telemetry] or OTEL_EXPORTER_OTLP_ENDPOINT sends them; for {what} set up the SDK's provider instead of this one",
            service="telemetry",
        )
