"""Providers of OpenTelemetry's API: what they have besides the API, what they refuse, how they are set; the sync and the async API in one context."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import NoOpLogger
from opentelemetry.propagate import extract
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from cloud_runtimes._native import telemetry as kernel
from cloud_runtimes.errors import InvalidArgumentError, UnsupportedError
from cloud_runtimes.telemetry import _install, _otel_spans
from tests.support import Make
from tests.telemetry.otlp_receiver import Receiver


def test_providers_are_made_once(client: Make) -> None:
    telemetry = client().telemetry
    assert telemetry.tracer_provider() is telemetry.tracer_provider()
    assert telemetry.meter_provider() is telemetry.meter_provider()
    assert telemetry.logger_provider() is telemetry.logger_provider()


def test_both_apis_have_one_current_span(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        native, api = telemetry.tracer("native"), telemetry.tracer_provider().get_tracer("api")

        async def work() -> None:
            with api.start_as_current_span("api"):
                async with native.span("native in api"):
                    await asyncio.sleep(0)
                    with api.start_as_current_span("api in native"):
                        telemetry.logger("l").info("inside")

        asyncio.run(work())
        with native.span("native"), api.start_as_current_span("api in native 2") as span:
            headers: dict[str, str] = {}
            telemetry.inject(headers)
            parent = telemetry.extract(headers)
            assert parent is not None
            assert parent.span_id == trace.format_span_id(span.get_span_context().span_id)
        with trace.use_span(trace.get_current_span(extract(headers))):
            native.start_span("of a remote one").end()
        assert telemetry.flush(30)
        spans = {each.name: each for each in receiver.spans()}
        (record,) = receiver.logs()
    above = {
        name: next((n for n, s in spans.items() if s.span_id == each.parent_span_id), "")
        for name, each in spans.items()
    }
    assert above == {
        "api": "",
        "native in api": "api",
        "api in native": "native in api",
        "native": "",
        "api in native 2": "native",
        "of a remote one": "api in native 2",
    }
    assert record.span_id == spans["api in native"].span_id
    assert [name for name, each in spans.items() if each.flags & 0x200] == ["of a remote one"]


def test_limits_hold(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url, attributes=2, value_length=3, events=1, links=1).telemetry
        tracer = telemetry.tracer_provider().get_tracer("t")
        with tracer.start_as_current_span("s", attributes={"a": "long", "b": ["long"], "c": 1}) as span:
            for _ in range(3):
                span.add_event("e")
                span.add_link(span.get_span_context())
        assert telemetry.flush(30)
        (exported,) = receiver.spans()
    assert exported.attributes[0].value.string_value == "lon"
    assert exported.attributes[1].value.array_value.values[0].string_value == "lon"
    assert (exported.dropped_attributes_count, exported.dropped_events_count, exported.dropped_links_count) == (1, 2, 2)


def test_what_the_sdks_providers_have_besides(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url, service_name="shop").telemetry
        providers: tuple[Any, ...] = (
            telemetry.tracer_provider(),
            telemetry.meter_provider(),
            telemetry.logger_provider(),
        )
        for provider in providers:
            assert provider.resource.attributes["service.name"] == "shop"
            with pytest.raises(TypeError):
                provider.resource.attributes["service.name"] = "other"
        providers[0].get_tracer("t").start_span("one").end()
        assert providers[1].force_flush()
        assert [span.name for span in receiver.spans()] == ["one"]
        providers[0].get_tracer("t").start_span("two").end()
        providers[2].shutdown()
        assert len(receiver.spans()) == 2
        receiver.answer = lambda number: (503, {}, b"")
        providers[0].get_tracer("t").start_span("three").end()
        assert not providers[0].force_flush(timeout_millis=1)


def test_processors_are_refused(client: Make) -> None:
    telemetry = client().telemetry
    refusals: tuple[Any, ...] = (
        telemetry.tracer_provider().add_span_processor,  # type: ignore[attr-defined]
        telemetry.logger_provider().add_log_record_processor,  # type: ignore[attr-defined]
    )
    for refuse in refusals:
        with pytest.raises(UnsupportedError, match=r"\[telemetry\]"):
            refuse(object())


def test_what_is_switched_off_passes_contexts_on(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = client().telemetry
    tracer = telemetry.tracer_provider().get_tracer("t")
    context = extract({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    with tracer.start_as_current_span("s", context=context) as span:
        assert span.get_span_context() == trace.get_current_span(context).get_span_context()
        assert not span.is_recording()
        assert trace.get_current_span() is span
        assert tracer.start_span("below").get_span_context() == span.get_span_context()

        @tracer.start_as_current_span("decorated")
        def plain() -> Any:
            return trace.get_current_span().get_span_context()

        @tracer.start_as_current_span("decorated")
        async def later() -> Any:
            return plain()

        assert plain() == asyncio.run(later()) == span.get_span_context()
    assert not tracer.start_span("root").get_span_context().is_valid
    assert plain() == trace.INVALID_SPAN_CONTEXT
    with pytest.raises(KeyError), tracer.start_as_current_span("s"):
        raise KeyError
    assert isinstance(telemetry.logger_provider().get_logger("l"), NoOpLogger)
    telemetry.meter_provider().get_meter("m").create_counter("c").add(1)
    assert telemetry.flush(30)
    assert telemetry.stats().spans.recorded == telemetry.stats().metrics.recorded == 0


def scopes(receiver: Receiver) -> list[Any]:
    return [
        scope
        for path, _, body in receiver.requests
        if path == "/v1/metrics"
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in resource.scope_metrics
    ]


def test_instruments_of_one_name(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The same one is the same; another of its name is exported too, with a warning."""
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        for scope in (("m",), ("m",), ("m", "1", "https://schema", {"a": 1})):
            meter = telemetry.meter_provider().get_meter(*scope)
            meter.create_counter("Requests").add(1)
            meter.create_counter("requests").add(1)
        assert "another instrument" not in caplog.text
        meter.create_up_down_counter("requests").add(1)
        assert "another instrument requests" in caplog.text
        one, same = (meter.create_histogram("h", explicit_bucket_boundaries_advisory=[n]) for n in (1, 2))
        one.record(1.5)
        same.record(1.5)
        assert "h has the bounds that were given first" in caplog.text
        assert telemetry.flush(30)
        plain, full = sorted(scopes(receiver), key=lambda scope: scope.schema_url)
    assert [(metric.name, metric.sum.data_points[0].as_int) for metric in plain.metrics] == [("Requests", 4)]
    assert (full.scope.version, full.schema_url, full.scope.attributes[0].key) == ("1", "https://schema", "a")
    kinds = [(metric.name, metric.WhichOneof("data"), metric.sum.is_monotonic) for metric in full.metrics]
    assert kinds[:2] == [("Requests", "sum", True), ("requests", "sum", False)]


def test_wrong_instruments_and_values(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = client().telemetry
    meter = telemetry.meter_provider().get_meter("m")
    with pytest.raises(InvalidArgumentError, match="name"):
        meter.create_counter("")
    for number, advice in enumerate(([2, 1], ["x"], "12", 5)):
        meter.create_histogram(f"h{number}", explicit_bucket_boundaries_advisory=advice).record(1)  # type: ignore[arg-type]
    assert caplog.text.count("the advice of bounds is none") == 4
    counter = meter.create_counter("c", unit=None, description=None)  # type: ignore[arg-type]
    counter.add(-1)
    counter.add(float("nan"))
    with pytest.raises(InvalidArgumentError):
        counter.add("1")  # type: ignore[arg-type]
    assert dict(telemetry.stats().metrics.dropped) == {"invalid": 2}


def test_exponential_histograms_where_they_are_configured(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url, histograms="base2_exponential_bucket_histogram").telemetry
        meter = telemetry.meter_provider().get_meter("m")
        meter.create_histogram("h", explicit_bucket_boundaries_advisory=[1]).record(3)
        assert telemetry.flush(30)
        (metric,) = receiver.metrics()
    assert metric.exponential_histogram.data_points[0].count == 1


def test_exemplars_of_the_context_given(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        meter = telemetry.meter_provider().get_meter("m")
        tracer = telemetry.tracer_provider().get_tracer("t")
        span = tracer.start_span("s")
        there = trace.set_span_in_context(span)
        meter.create_counter("c").add(1, context=there)
        meter.create_up_down_counter("u").add(1, context=there)
        meter.create_gauge("g").set(1, context=there)
        meter.create_histogram("h").record(1, context=there)
        with trace.use_span(span):
            meter.create_counter("here").add(1)
            meter.create_counter("none").add(1, context=otel_context.Context())
        assert telemetry.flush(30)
        exemplars = {}
        for metric in receiver.metrics():
            (point,) = getattr(metric, metric.WhichOneof("data")).data_points
            exemplars[metric.name] = [each.span_id for each in point.exemplars]
    own = span.get_span_context().span_id.to_bytes(8, "big")
    assert exemplars == {"c": [own], "u": [own], "g": [own], "h": [own], "here": [own], "none": []}


def test_what_sends_is_not_traced(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instrumentations that ask are told so on the sender's thread; what is logged there is not recorded."""
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    seen: list[tuple[bool, bool]] = []
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        tracer = telemetry.tracer_provider().get_tracer("t")
        logger = telemetry.logger_provider().get_logger("l")
        exporter = telemetry._exporters["traces"]
        export = exporter.export

        def spying(*args: Any) -> int:
            logger.emit(body="from the sender")
            seen.append((is_instrumentation_enabled(), telemetry._pipeline.is_sender()))
            return export(*args)

        monkeypatch.setattr(exporter, "export", spying)
        tracer.start_span("s").end()
        assert telemetry.flush(30)
        assert seen == [(False, True)]
        assert is_instrumentation_enabled()
        assert receiver.logs() == []


def test_after_close_it_is_dropped_and_counted(client: Make) -> None:
    instance = client(home=":memory:")
    telemetry = instance.telemetry
    tracer = telemetry.tracer_provider().get_tracer("t")
    instance.close()
    with tracer.start_as_current_span("late"):
        pass
    assert dict(telemetry.stats().spans.dropped) == {"closed": 1}


def test_threads_at_once(client: Make) -> None:
    """Spans, contexts and providers of many threads; nothing is lost or mixed up."""
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        begin = threading.Barrier(8)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                begin.wait(60)
                tracer = telemetry.tracer_provider().get_tracer("t")
                for _ in range(200):
                    with tracer.start_as_current_span(f"outer {number}"):
                        with tracer.start_as_current_span(f"inner {number}"):
                            pass
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        assert telemetry.flush(60)
        spans = {span.span_id: span for span in receiver.spans()}
    assert len(spans) == 8 * 200 * 2
    inner = [span for span in spans.values() if span.parent_span_id]
    assert len(inner) == 8 * 200
    assert all(spans[span.parent_span_id].name == span.name.replace("inner", "outer") for span in inner)


def test_without_the_package(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    telemetry = client().telemetry
    for call in (telemetry.tracer_provider, telemetry.meter_provider, telemetry.logger_provider, _install.install):
        with pytest.raises(UnsupportedError, match=r'pip install "\.\[otel\]" in the checkout'):
            call()


def test_other_contexts_are_refused(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_otel_spans.otel_context, "attach", lambda context: object())
    monkeypatch.setattr(_otel_spans.otel_context, "detach", lambda token: None)
    with pytest.raises(UnsupportedError, match="OTEL_PYTHON_CONTEXT"):
        client().telemetry.tracer_provider()
    with client().telemetry.tracer("t").span("s") as span:
        assert kernel.current_span() is span


# -- install: once in a process, so each in one of its own --------------------

HEAD = """
import sys
from opentelemetry import _logs, metrics, trace
early = trace.get_tracer("early"), metrics.get_meter("early").create_counter("early"), _logs.get_logger("early")
from cloud_runtimes import CloudRuntimesClient, errors
from cloud_runtimes.telemetry import install
"""


def run(program: str, tmp_path: Path, **more: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env |= {"CLOUD_RUNTIMES_HOME": str(tmp_path / "home"), **more}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + textwrap.dedent(program)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.process
def test_install_in_one_line(tmp_path: Path) -> None:
    """Also what asked for tracers before records then; at exit all is sent."""
    program = """
        client = install()
        assert isinstance(client, CloudRuntimesClient)
        assert trace.get_tracer_provider() is client.telemetry.tracer_provider()
        assert metrics.get_meter_provider() is client.telemetry.meter_provider()
        assert _logs.get_logger_provider() is client.telemetry.logger_provider()
        del client
        with early[0].start_as_current_span("early"), trace.get_tracer("late").start_as_current_span("late"):
            early[1].add(1)
            early[2].emit(_logs.LogRecord(body="early"))
        """
    with Receiver() as receiver:
        run(program, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        late, top = sorted(receiver.spans(), key=lambda span: span.name, reverse=True)
        assert (late.name, top.name, late.parent_span_id) == ("late", "early", top.span_id)
        assert [metric.name for metric in receiver.metrics()][-1:] == ["early"]
        assert [record.span_id for record in receiver.logs()] == [late.span_id]


@pytest.mark.process
def test_install_once(tmp_path: Path) -> None:
    program = """
        given = CloudRuntimesClient()
        assert install(given) is given
        for again in (given, None):
            try:
                install(again)
            except errors.AlreadyExistsError as error:
                print(error)
        """
    first, second = run(program, tmp_path).splitlines()
    assert first == second
    assert re.search("cloud_runtimes.*once", first)


@pytest.mark.process
def test_a_foreign_provider_is_not_replaced(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for what, setup in (
        ("tracer", "from opentelemetry.sdk.trace import TracerProvider as P; trace.set_tracer_provider(P())"),
        ("meter", "from opentelemetry.sdk.metrics import MeterProvider as P; metrics.set_meter_provider(P())"),
        ("logger", "from opentelemetry.sdk._logs import LoggerProvider as P; _logs.set_logger_provider(P())"),
    ):
        with subtests.test(what=what, setup=setup):
            program = f"""
                {setup}
                others = {{"tracer": trace, "meter": metrics, "logger": _logs}}
                try:
                    install()
                except errors.AlreadyExistsError as error:
                    print(error)
                for name, module in others.items():
                    provider = getattr(module, f"get_{{name}}_provider")()
                    assert type(provider).__module__.startswith("opentelemetry."), provider
                """
            assert f"{what} provider (opentelemetry.sdk." in run(program, tmp_path)
            assert not (tmp_path / "home").exists()


@pytest.mark.process
def test_a_forked_child_goes_on(tmp_path: Path) -> None:
    program = """
        import os
        client = install()
        tracer = trace.get_tracer("t")
        with tracer.start_as_current_span("parent"):
            child = os.fork()
            with tracer.start_as_current_span("child" if not child else "after"):
                pass
            if not child:
                client.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        client.close()
        """
    with Receiver() as receiver:
        run(program, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        spans = {span.name: span for span in receiver.spans()}
        assert len(receiver.spans()) == 3
    assert spans["child"].parent_span_id == spans["after"].parent_span_id == spans["parent"].span_id
    assert len({span.span_id for span in spans.values()}) == 3


@pytest.mark.process
def test_the_package_imports_without_opentelemetry(tmp_path: Path) -> None:
    program = """
        import subprocess
        blocked = '''
        import sys
        sys.modules["opentelemetry"] = None
        from cloud_runtimes import CloudRuntimesClient, telemetry
        with CloudRuntimesClient() as client, client.telemetry.tracer("t").span("s"):
            pass
        try:
            telemetry.install()
        except NotImplementedError as error:
            print(error)
        '''
        import textwrap
        print(subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(blocked)], capture_output=True, text=True, check=True).stdout)
        """
    assert 'pip install ".[otel]" in the checkout' in run(program, tmp_path)
