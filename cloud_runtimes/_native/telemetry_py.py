"""Spans, log records and metrics that become OTLP bytes, and the bounded buffer that holds them: the reference of the compiled kernel `src_ext/telemetry.pyx`, in one module for each part."""

# flake8: noqa
from .otlp_py import Limits as Limits
from .telemetry_buffer_py import *
from .telemetry_context_py import *
from .telemetry_logs_py import *
from .telemetry_metrics_py import *
from .telemetry_points import Observable as Observable
from .telemetry_spans_py import *
