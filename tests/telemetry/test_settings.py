"""The table ``[telemetry]`` and ``OTEL_*``: what counts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.telemetry.settings import load


def loaded(table: dict[str, Any] | None = None) -> Any:
    return load(table or {}, "cloud.toml")


def test_the_defaults() -> None:
    config = loaded()
    assert config.exporters == {"traces": "file", "logs": "file", "metrics": "file"}
    assert config.settings.buffer_bytes == 32 << 20
    assert config.settings.file_bytes == 64 << 20
    assert config.settings.sampling == (1.0, 0.0, True)


def test_an_endpoint_chooses_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded({"endpoint": "http://a:4318/"}).urls == {
        "traces": "http://a:4318/v1/traces",
        "logs": "http://a:4318/v1/logs",
        "metrics": "http://a:4318/v1/metrics",
    }
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:1/x")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:2/exactly")
    config = loaded({"endpoint": "http://a:4318/"})
    assert config.urls == {
        "traces": "http://b:1/x/v1/traces",
        "logs": "http://c:2/exactly",
        "metrics": "http://b:1/x/v1/metrics",
    }


def test_exporters_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    config = loaded()
    assert config.exporters == {"traces": "otlp", "logs": "none", "metrics": "file"}
    assert config.urls == {"traces": "http://localhost:4318/v1/traces"}


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        ("always_on", None, (1.0, 0.0, False)),
        ("always_off", None, (0.0, 0.0, False)),
        ("traceidratio", "0.25", (0.25, 0.0, False)),
        ("parentbased_always_off", None, (0.0, 0.0, True)),
        ("parentbased_traceidratio", "0.5", (0.5, 0.0, True)),
        ("parentbased_rate_limited", "7", (1.0, 7.0, True)),
    ],
)
def test_samplers(monkeypatch: pytest.MonkeyPatch, name: str, argument: str | None, expected: Any) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    if argument:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert loaded().settings.sampling == expected


def test_variables_go_before_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "250")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "7")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "named")
    settings = loaded({"trace_delay": "9s", "attributes": 5, "events": 4, "service_name": "other"}).settings
    assert (settings.trace_delay, settings.attributes, settings.events, settings.service_name) == (0.25, 7, 4, "named")


def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}, "telemetry": {"flush_on_sigterm": False}}) as client:
        client.telemetry.tracer("t").start_span("s").end()
        client.telemetry.logger("t").error("no")
        assert client.telemetry.stats().spans.recorded == client.telemetry.stats().logs.recorded == 0


def test_wrong_settings(subtests: pytest.Subtests) -> None:
    for table, message in (
        ({"endpont": "x"}, "did you mean 'endpoint'"),
        ({"exporter": "zipkin"}, "'otlp' or 'file' or 'console' or 'none'"),
        ({"sampler": "sometimes"}, "known: always_off"),
        ({"timeout": 0}, "more than 0"),
        ({"timeout": "soon"}, "500ms"),
        ({"events": -1}, "0 or more"),
    ):
        with subtests.test(table=table, message=message), pytest.raises(InvalidArgumentError, match=message):
            loaded(table)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "often"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes"),
    ],
)
def test_wrong_variables(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidArgumentError, match=variable) as caught:
        loaded()
    assert value not in str(caught.value)


def test_errors_of_the_first_use_and_no_secret_in_them() -> None:
    for table in (
        {"endpoint": "ftp://host"},
        {"endpoint": "http://[hidden-key"},
        {"endpoint": "http://h:hidden-key"},
        {"endpoint": "http://h", "headers": "hidden-key"},
    ):
        client = CloudRuntimesClient(config={"telemetry": {**table, "flush_on_sigterm": False}})
        with pytest.raises(InvalidArgumentError) as caught:
            client.telemetry.tracer("t")
        assert "hidden-key" not in str(caught.value)
        client.close()
    assert "hidden" not in repr(loaded({"headers": "key=hidden"}).settings)
