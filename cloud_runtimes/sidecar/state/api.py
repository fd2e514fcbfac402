"""State in words of neither protocol."""

from __future__ import annotations

from typing import Any, Literal

from ..._dapr.failures import DaprError
from ...errors import CloudRuntimesError, ComponentNotFoundError
from ..context import Context

__all__ = ["StateApi"]


class StateApi:
    """The state stores of a client."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._state = context.client.state

    async def get(
        self, store: str, key: str, consistency: Literal["eventual", "strong"] | None, metadata: dict[str, str]
    ) -> Any | None:
        """Return the item, ``None`` where there is none."""
        try:
            return await self._state.get_item_async(store, key, consistency=consistency, type=bytes, metadata=metadata)
        except CloudRuntimesError as error:
            raise self._failure(store, error) from error

    def _failure(self, store: str, error: CloudRuntimesError) -> DaprError:
        if isinstance(error, ComponentNotFoundError):
            app_id = {"appID": self._context.settings.app_id}
            if self._context.configured("state"):
                return DaprError(
                    400,
                    "INVALID_ARGUMENT",
                    "ERR_STATE_STORE_NOT_FOUND",
                    f"state store {store} is not found",
                    reason="DAPR_STATE_NOT_FOUND",
                    metadata=app_id,
                )
            return DaprError(
                500,
                "FAILED_PRECONDITION",
                "ERR_STATE_STORE_NOT_CONFIGURED",
                f"state store {store} is not configured",
                reason="DAPR_STATE_NOT_CONFIGURED",
                metadata=app_id,
            )
        return DaprError(500, "INTERNAL", "ERR_STATE_GET", error.message)
