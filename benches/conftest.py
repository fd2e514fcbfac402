"""The value that most benches use, and which kernels run."""

from __future__ import annotations

from typing import Any

import pytest

import cloud_runtimes


def pytest_report_header() -> str:
    return f"kernels: {cloud_runtimes.native_status()}"


@pytest.fixture
def event() -> dict[str, Any]:
    """A small telemetry event of twelve fields."""
    return {
        "id": "01J9ZQ4T8W3N5V6X7Y8Z9A0B1C",
        "type": "http.request",
        "source": "checkout-api",
        "level": "INFO",
        "seq": 184467,
        "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
        "duration_ms": 12.625,
        "status": 200,
        "sampled": True,
        "method": "GET",
        "route": "/cart/{id}",
        "retry": 0,
    }
