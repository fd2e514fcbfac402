"""Another OpenTelemetry SDK that is set up beside ours: one warning, and nothing is imported to find it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

BEFORE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""
METRICS = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
metrics.set_meter_provider(MeterProvider())
"""
CALL = """
import sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}, "telemetry": {"instrument": True}})
for number in range(3):
    client.state.save("s", "k", number)
"""
CLOSE = """
assert client.telemetry.flush(10)
client.close()
"""
INSTALL = """
from cloud_runtimes.telemetry import install
install().close()
"""
NOTHING = "assert 'opentelemetry' not in sys.modules\n"
NO_OP = "from opentelemetry import trace\ntrace.set_tracer_provider(trace.NoOpTracerProvider())\n"


def warnings_of(*parts: str) -> list[str]:
    """Return the lines of stderr of a program, which warnings of ours go to."""
    program = textwrap.dedent("".join(parts))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


@pytest.mark.process
@pytest.mark.parametrize(
    "parts",
    [(BEFORE, CALL, CALL, CLOSE), (METRICS, CALL, CLOSE), (CALL, BEFORE, CLOSE)],
    ids=["before", "metrics alone", "after the first call"],
)
def test_another_sdk_is_told_of_once(parts: tuple[str, ...]) -> None:
    (line,) = warnings_of(*parts)
    assert "OpenTelemetry's global provider is opentelemetry.sdk." in line
    assert "cloud_runtimes.telemetry.install()" in line


@pytest.mark.process
@pytest.mark.parametrize(
    "parts",
    [(CALL, NOTHING, CLOSE, NOTHING), ("import os\nos.environ['OTEL_PYTHON_TRACER_PROVIDER'] = 'sdk_tracer_provider'\nimport opentelemetry.trace\n", CALL, CLOSE),
     (INSTALL, CALL, CLOSE), (NO_OP, CALL, CLOSE)],
    ids=["none", "the API alone", "ours", "one that does nothing"],
)  # fmt: skip
def test_without_another_nothing_is_said(parts: tuple[str, ...]) -> None:
    assert warnings_of(*parts) == []
