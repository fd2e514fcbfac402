"""Settings of telemetry: ``OTEL_*`` before the table ``[telemetry]``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote

from .. import config
from ..config import duration, setting
from ..errors import InvalidArgumentError
from ..spi.relay import SpoolSettings, spool_settings
from ._sampling import SAMPLERS, Sampling, sampling

__all__ = ["SIGNALS", "TelemetrySettings", "load", "pairs"]

SIGNALS: Final = ("traces", "logs", "metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Settings of the table ``[telemetry]``.

    Attributes:
        provider: ``own``, or ``global``: records through the global providers of OpenTelemetry's API, which another SDK has set (extra ``otel``). Exporters, sampling and limits are then those of that SDK.
        exporter: ``otlp``, ``file``, ``console`` or ``none``; without it ``otlp`` where there is an endpoint, else ``file``.
        endpoint: base URL of OTLP/HTTP, to which ``/v1/traces``, ``/v1/logs`` and ``/v1/metrics`` are added; of OTLP/gRPC as it is.
        protocol: of OTLP: ``http/protobuf``, or ``grpc`` (extra ``otlp-grpc``).
        headers: sent with every batch, as ``name=value,name=value``, percent-encoded.
        compression: ``none``, ``gzip`` or ``zstd`` (over HTTP; before Python 3.14 extra ``zstd``).
        certificate: file of the certificates to trust.
        timeout: seconds for one attempt to send a batch.
        retry_timeout: seconds for all attempts; then the batch is dropped.
        spool: keep batches for OTLP on this machine until the collector has them: ``true``, or a table with ``max_bytes`` of each signal (1 GiB), ``max_age`` (7 d) and ``on_full`` (``block`` for ``retry_timeout``, ``raise`` or ``drop_oldest``). All lost is counted.
        buffer_bytes: memory of each signal's buffer.
        trace_delay: after which spans leave though they are few.
        log_delay: after which log records do.
        metric_interval: between two collections.
        temporality: of sums and histograms: ``cumulative``, ``delta`` (counters and histograms) or ``lowmemory`` (the same here).
        exemplars: ``trace_based``: of sampled spans; ``always_on``, ``always_off``.
        histograms: without bounds of their own: ``explicit_bucket_histogram`` or ``base2_exponential_bucket_histogram``.
        sampler: by the names of ``OTEL_TRACES_SAMPLER``, and ``parentbased_rate_limited``.
        sampler_arg: its ratio, or its traces per second.
        sampler_store: configuration store in which the sampler can be changed while the application runs.
        sampler_key: whose value it is there: a name, or name and argument as ``parentbased_traceidratio:0.25``.
        instrument: whether the calls of this client's services, and the handlers of events and RPC methods, have spans, and subscriptions metrics.
        service_name: else the application's ``app_id``.
        resource: more attributes of the resource, as ``name=value,name=value``.
        attributes: of a span, a log record, an event and a link, at most; more are dropped and counted.
        events: of a span, at most.
        links: of a span, at most.
        value_length: longest attribute in characters, -1: no limit.
        file_bytes: of all files of the exporter ``file``.
        flush_on_sigterm: whether SIGTERM sends what there is first.
    """

    provider: Literal["own", "global"] = setting("own", help="what records: ours, or OpenTelemetry's global provider")
    exporter: Literal["otlp", "file", "console", "none"] | None = setting(None, help="where records go")
    endpoint: str | None = setting(None, help="base URL of OTLP")
    protocol: Literal["http/protobuf", "grpc"] = setting("http/protobuf", help="of OTLP")
    headers: str = setting("", help="headers of every batch, name=value,name=value")
    compression: Literal["none", "gzip", "zstd"] = setting("none", help="of bodies")
    certificate: str | None = setting(None, help="file of the certificates to trust")
    timeout: float = setting(10.0, parse=duration, help="for one attempt")
    retry_timeout: float = setting(60.0, parse=duration, help="for all attempts of a batch")
    spool: bool | dict = setting(False, help="keep batches on this machine until the collector has them")  # type: ignore[type-arg]
    buffer_bytes: int = setting(32 << 20, help="memory of each signal's buffer")
    trace_delay: float = setting(5.0, parse=duration, help="after which spans leave")
    log_delay: float = setting(1.0, parse=duration, help="after which log records leave")
    metric_interval: float = setting(60.0, parse=duration, help="between two collections")
    temporality: Literal["cumulative", "delta", "lowmemory"] = setting("cumulative", help="of sums and histograms")
    exemplars: Literal["trace_based", "always_on", "always_off"] = setting("trace_based", help="which values are kept")
    histograms: Literal["explicit_bucket_histogram", "base2_exponential_bucket_histogram"] = setting(
        "explicit_bucket_histogram", help="without bounds of their own"
    )
    sampler: str = setting("parentbased_always_on", help="which traces are recorded")
    sampler_arg: float | None = setting(None, help="ratio, or traces per second")
    sampler_store: str | None = setting(None, help="configuration store that changes the sampler")
    sampler_key: str = setting("telemetry.sampler", help="its key there")
    instrument: bool = setting(False, help="whether service calls and handlers have spans, and subscriptions metrics")
    service_name: str | None = setting(None, help="else the app_id")
    resource: str = setting("", help="attributes of the resource, name=value,name=value")
    attributes: int = setting(128, help="attributes of a span or log record")
    events: int = setting(128, help="events of a span")
    links: int = setting(128, help="links of a span")
    value_length: int = setting(-1, help="longest attribute, -1: no limit")
    file_bytes: int = setting(64 << 20, help="of all files")
    flush_on_sigterm: bool = setting(True, help="whether SIGTERM sends what there is first")

    def __post_init__(self) -> None:
        for name in ("attributes", "events", "links"):
            if getattr(self, name) < 0:
                raise ValueError(f"setting {name!r} must be 0 or more")
        for name in ("timeout", "retry_timeout", "metric_interval", "buffer_bytes", "file_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"setting {name!r} must be more than 0")
        if self.sampler not in SAMPLERS:
            raise ValueError(config.unknown("sampler", self.sampler, SAMPLERS))

    @property
    def sampling(self) -> Sampling:
        """Arguments of the kernel's `Sampler`."""
        return sampling(self.sampler, self.sampler_arg)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Loaded:
    """The settings, what only the environment says, and where each signal goes."""

    settings: TelemetrySettings
    disabled: bool
    spool: SpoolSettings | None
    exporters: Mapping[str, str]
    protocols: Mapping[str, str]
    urls: Mapping[str, str]
    placed: bool
    """Whether the settings say where records go."""


# variable → setting, how it is read
_VARIABLES: Final[Mapping[str, tuple[str, Any]]] = {
    "OTEL_SERVICE_NAME": ("service_name", str),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("endpoint", str),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("protocol", str),
    "OTEL_EXPORTER_OTLP_HEADERS": ("headers", str),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("compression", str),
    "OTEL_EXPORTER_OTLP_CERTIFICATE": ("certificate", str),
    "OTEL_EXPORTER_OTLP_TIMEOUT": ("timeout", float),
    "OTEL_BSP_SCHEDULE_DELAY": ("trace_delay", lambda text: float(text) / 1000),
    "OTEL_BLRP_SCHEDULE_DELAY": ("log_delay", lambda text: float(text) / 1000),
    "OTEL_METRIC_EXPORT_INTERVAL": ("metric_interval", lambda text: float(text) / 1000),
    "OTEL_METRICS_EXEMPLAR_FILTER": ("exemplars", str.lower),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("temporality", str.lower),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": ("histograms", str.lower),
    "OTEL_TRACES_SAMPLER": ("sampler", str),
    "OTEL_TRACES_SAMPLER_ARG": ("sampler_arg", float),
    "OTEL_ATTRIBUTE_COUNT_LIMIT": ("attributes", int),
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": ("attributes", int),
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("value_length", int),
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("value_length", int),
    "OTEL_SPAN_EVENT_COUNT_LIMIT": ("events", int),
    "OTEL_SPAN_LINK_COUNT_LIMIT": ("links", int),
}


@config.without_values
def pairs(text: str, what: str) -> dict[str, str]:
    """Read ``name=value,name=value``, percent-encoded.

    Raises:
        InvalidArgumentError: a member without ``=``; the text, which may be secret, is not told.
    """
    result = {}
    for member in text.split(","):
        if not member.strip():
            continue
        name, equals, value = member.partition("=")
        if not equals or not name.strip():
            raise InvalidArgumentError(f"{what}: expected name=value,name=value")
        result[unquote(name.strip())] = unquote(value.strip())
    return result


@config.without_values
def load(table: Mapping[str, Any], origin: str) -> Loaded:
    """Merge environment and table.

    Raises:
        InvalidArgumentError: whatever is wrong with any of them.
    """
    env = os.environ
    values, where = dict(table), f"{origin}: [telemetry]"
    for variable, (name, read) in _VARIABLES.items():
        text = env.get(variable, "").strip()
        if text:
            try:
                values[name] = read(text)
                where += f", {variable}"
            except ValueError:
                raise InvalidArgumentError(f"{variable}: expected a number") from None
    settings = config.build(TelemetrySettings, values, where)
    exporters, protocols, urls = {}, {}, {}
    for signal in SIGNALS:
        variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
        protocol = protocols[signal] = env.get(variable, "").strip() or settings.protocol
        if protocol not in ("http/protobuf", "grpc"):
            raise InvalidArgumentError(f"{variable}: there are http/protobuf and grpc")
        path = "" if protocol == "grpc" else f"/v1/{signal}"
        url = env.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
        if not url and settings.endpoint:
            url = settings.endpoint.rstrip("/") + path
        chosen = env.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() or settings.exporter
        if settings.provider == "global":
            chosen = "none"
        elif chosen is None:
            chosen = "otlp" if url else "file"
        if chosen not in ("otlp", "file", "console", "none"):
            raise InvalidArgumentError(f"OTEL_{signal.upper()}_EXPORTER: there are otlp, file, console and none")
        exporters[signal] = chosen
        if chosen == "otlp":
            urls[signal] = url or ("http://localhost:4317" if protocol == "grpc" else f"http://localhost:4318{path}")
    return Loaded(
        settings=settings,
        spool=spool_settings(settings.spool, f"{origin}: [telemetry]"),
        disabled=env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true",
        exporters=exporters,
        protocols=protocols,
        urls=urls,
        placed=settings.exporter is not None or any(exporter != "file" for exporter in exporters.values()),
    )
