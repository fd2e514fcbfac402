"""Audit: each change that `AdminService` makes is an event, where ``[admin] audit`` names a pub/sub component for it."""

from __future__ import annotations

import getpass
import inspect
import os
import socket
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, TypeVar

from .._core.logs import repeated
from .._service import Service
from ..config import build
from ..errors import CloudRuntimesError
from .settings import AdminSettings

F = TypeVar("F", bound=Callable[..., Any])
AUDIT_TOPIC: Final = "cloud_runtimes.audit"
"""Topic of the events."""
_NOT_TOLD: Final = frozenset({"self", "timeout", "metadata", "dry_run"})


class Audited(Service):
    """A service whose changes are told."""

    def _audit(self, options: Mapping[str, Any]) -> str | None:
        """Return which component gets the event of a call; ``None``: nobody asks for it, or nothing is changed."""
        settings = self._frame.context.settings
        audit = build(AdminSettings, settings.admin, f"{settings.origin}: [admin]").audit
        return None if options.get("dry_run") else audit

    def _told(self, name: str, given: Mapping[str, Any], result: Any) -> dict[str, Any]:
        """Return what the event of a call tells."""
        return {
            "action": name,
            "arguments": {key: _plain(value) for key, value in given.items() if key not in _NOT_TOLD},
            "count": getattr(result, "count", result),
            "app_id": self._frame.context.settings.app_id,
            "user": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }


def audited(method: F) -> F:
    """Have each call of a method that changed something told, with its arguments and how many things it changed."""
    signature = inspect.signature(method)
    name = method.__name__.removesuffix("_async")

    if not inspect.iscoroutinefunction(method):

        @wraps(method)
        def call(self: Audited, *arguments: Any, **options: Any) -> Any:
            audit = self._audit(options)
            result = method(self, *arguments, **options)
            if audit is not None:
                told = self._told(name, signature.bind(self, *arguments, **options).arguments, result)
                try:
                    self._frame.context.service("pubsub").publish(audit, AUDIT_TOPIC, told)
                except CloudRuntimesError as error:
                    _untold(name, error)
            return result

        return call  # type: ignore[return-value]

    @wraps(method)
    async def call_async(self: Audited, *arguments: Any, **options: Any) -> Any:
        audit = self._audit(options)
        result = await method(self, *arguments, **options)
        if audit is not None:
            told = self._told(name, signature.bind(self, *arguments, **options).arguments, result)
            try:
                await self._frame.context.service("pubsub").publish_async(audit, AUDIT_TOPIC, told)
            except CloudRuntimesError as error:
                _untold(name, error)
        return result

    return call_async  # type: ignore[return-value]


def _untold(name: str, error: CloudRuntimesError) -> None:
    repeated("audit", "admin.%s was done, and its audit event was not published: %s", name, error)


def _plain(value: Any) -> Any:
    """Return an argument as JSON has it."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _user() -> str | None:
    """Return who runs this process; ``None``: the system does not know."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None
