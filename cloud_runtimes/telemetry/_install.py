"""The way to OpenTelemetry's API, whose package is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import extras
from .._core.threads import Mutex
from ..errors import AlreadyExistsError

if TYPE_CHECKING:
    from .. import CloudRuntimesClient

_lock = Mutex()


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
