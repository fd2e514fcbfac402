"""Bindings in words of neither protocol: the only way of Dapr's API to files and SQL."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import CloudRuntimesError, InvalidArgumentError, PermissionDeniedError, UnavailableError
from ...protocols.dapr.failures import DaprError
from ..context import Context
from . import files, sql

__all__ = ["BindingsApi"]


class BindingsApi:
    """The bindings that the settings name."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._closed: set[str] = set()

    async def invoke(
        self, name: str, operation: str, data: bytes, metadata: Mapping[str, str]
    ) -> tuple[bytes, dict[str, str]] | None:
        """Do something with a binding; return the reply's data and metadata, ``None``: it has no reply."""
        try:
            return await self._invoke(name, operation, data, metadata)
        except PermissionDeniedError as error:
            text = f"error invoking output binding {name}: {error.message}"
            raise DaprError.basic(403, "PERMISSION_DENIED", "ERR_INVOKE_OUTPUT_BINDING", text) from error
        except CloudRuntimesError as error:
            text = f"error invoking output binding {name}: {error.message}"
            raise DaprError.basic(500, "INTERNAL", "ERR_INVOKE_OUTPUT_BINDING", text) from error

    async def _invoke(
        self, name: str, operation: str, data: bytes, metadata: Mapping[str, str]
    ) -> tuple[bytes, dict[str, str]] | None:
        if not operation:
            raise InvalidArgumentError("operation field is missing from request")
        kind, store = self._context.settings.bindings.get(name, ("", ""))
        if not kind:
            raise InvalidArgumentError(f"couldn't find output binding {name}")
        operations = files.OPERATIONS if kind == "file" else sql.OPERATIONS
        if operation not in operations:
            raise InvalidArgumentError(
                f"binding {name} does not support operation {operation}. supported operations:{' '.join(operations)}"
            )
        if kind == "file":
            budget = self._context.budget(f"the answer of binding {name}", "ask for less at a time")
            found = await files.invoke(self._context, store, operation, data, metadata, budget)
            return None if found is None else (found, {})
        if operation == "close":
            # for callers of the sidecar alone: the client's database serves others too
            self._closed.add(name)
            return None
        if name in self._closed:
            raise UnavailableError("component is closed")
        budget = self._context.budget(f"the rows of binding {name}", "add a condition or LIMIT")
        try:
            return await sql.invoke(self._context.frame("database"), store, operation, metadata, budget)
        except CloudRuntimesError as error:
            raise type(error)(f"{error.message} (SQLSTATE {sql.state(error)})") from error
