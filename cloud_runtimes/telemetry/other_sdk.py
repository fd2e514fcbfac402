"""Another OpenTelemetry SDK in the process, such as a vendor's distribution, and the traces that it shares with ours."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

from .._core.logs import once
from .._native import telemetry as kernel
from ..errors import UnsupportedError

_PROVIDERS: Final = {
    "opentelemetry.trace": "_TRACER_PROVIDER",
    "opentelemetry.metrics._internal": "_METER_PROVIDER",
    "opentelemetry._logs._internal": "_LOGGER_PROVIDER",
}
"""Modules and their global providers. The API's functions would make one where ``OTEL_PYTHON_TRACER_PROVIDER`` names it."""


def _other_provider() -> str | None:
    """Name the class of OpenTelemetry's global provider, where it is another SDK's; imports nothing."""
    for module, name in _PROVIDERS.items():
        provider = getattr(sys.modules.get(module), name, None)
        kind: type = type(provider)
        known = kind.__module__.startswith(
            ("cloud_runtimes.", "opentelemetry.")
        )  # ours, or one of the API that does nothing
        if provider is not None and (not known or kind.__module__.startswith("opentelemetry.sdk.")):
            return f"{kind.__module__}.{kind.__qualname__}"
    return None


def join_other(*, placed: bool = True) -> ModuleType | None:
    """Keep current spans in OpenTelemetry's context where another SDK has set a global provider, so that one trace goes through its spans and ours.

    Args:
        placed: whether the configuration says where our records go; else there is one warning.

    Returns:
        `_otel_spans`; ``None`` where there is no such provider, or its context is not that of `contextvars`.
    """
    other = _other_provider()
    if other is None:
        return None
    from . import _otel_spans

    try:
        kernel.bridge(_otel_spans.Bridge())
    except UnsupportedError as error:
        once("other contexts", "%s: until then spans of cloud_runtimes and of %s have different traces", error, other)
        return None
    if not placed:
        once(
            "other SDK",
            "OpenTelemetry's global provider is %s, and the telemetry of cloud_runtimes does not record to it: a trace goes through "
            'the spans of both, but ours are exported elsewhere. Set [telemetry] provider = "global" to record through it, or '
            "endpoint to where it sends.",
            other,
        )
    return _otel_spans
