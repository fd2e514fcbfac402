"""The way to OpenTelemetry's API, whose package is imported when it is asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from .._core import extras
from .._core.logs import once
from .._core.threads import Mutex
from ..errors import AlreadyExistsError

if TYPE_CHECKING:
    from .. import CloudRuntimesClient

_lock = Mutex()
_PROVIDERS: Final = {
    "opentelemetry.trace": "_TRACER_PROVIDER",
    "opentelemetry.metrics._internal": "_METER_PROVIDER",
    "opentelemetry._logs._internal": "_LOGGER_PROVIDER",
}
"""Modules and their global providers. The API's functions would make one where ``OTEL_PYTHON_TRACER_PROVIDER`` names it."""


def warn_of_others() -> None:
    """Warn, once, where OpenTelemetry's global providers are another SDK's; imports nothing."""
    for module, name in _PROVIDERS.items():
        provider = getattr(sys.modules.get(module), name, None)
        kind: type = type(provider)
        known = kind.__module__.startswith(
            ("cloud_runtimes.", "opentelemetry.")
        )  # ours, or one of the API that does nothing
        if provider is None or (known and not kind.__module__.startswith("opentelemetry.sdk.")):
            continue
        once(
            "other SDK",
            "OpenTelemetry's global provider is %s.%s, and the telemetry of cloud_runtimes does not record to it: its spans, and "
            "events that they send, have other traces. Call cloud_runtimes.telemetry.install() in place of that SDK's set-up, "
            "with [telemetry] endpoint where it sends, or leave [telemetry] instrument out.",
            kind.__module__,
            kind.__qualname__,
        )
        return


def api_module() -> Any:
    """Return `_otel`. Raises `UnsupportedError`: opentelemetry-api is missing."""
    with extras.importing("telemetry: OpenTelemetry's API", "otel"):
        import opentelemetry._logs
        import opentelemetry.metrics
        import opentelemetry.trace  # noqa: F401

        from . import _otel
    return _otel


def install(client: CloudRuntimesClient | None = None) -> CloudRuntimesClient:
    """Make a client's providers OpenTelemetry's global ones, so that whatever is instrumented for OpenTelemetry records here: ``cloud_runtimes.telemetry.install()``. Propagators stay as they are. To be called once, before instrumentations are switched on.

    Args:
        client: whose telemetry records; without one a client of its own, ``CloudRuntimesClient()``.

    Returns:
        The client. Its `close`, at the latest that at exit, sends what there is; what is recorded later is dropped and counted.

    Raises:
        AlreadyExistsError: there is a global provider, ours or another; OpenTelemetry lets it be set once in a process.
        UnsupportedError: the package opentelemetry-api is missing (extra ``[otel]``), or ``OTEL_PYTHON_CONTEXT`` chooses contexts that are not those of `contextvars`.
    """
    api = api_module()
    with _lock:
        provider = api.global_provider()
        if provider is not None:
            raise AlreadyExistsError(
                f"telemetry: OpenTelemetry has a global {provider} already, and lets it be set once in a process: call install() first and once, or give client.telemetry.tracer_provider() to each instrumentation",
                service="telemetry",
                operation="install",
            )
        if client is not None:
            api.set_providers(client.telemetry)
            return client
        from .. import CloudRuntimesClient

        created = CloudRuntimesClient()
        try:
            api.set_providers(created.telemetry)
        except BaseException:
            created.close()
            raise
        return created
