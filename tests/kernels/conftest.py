"""Both twins of the events, batch and telemetry kernels behind fixtures, so that each test body is written once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

PACKAGE = "cloud_runtimes._native."
FIELDS = (
    "id", "source", "type", "topic", "subject", "time_us", "time_text", "key", "traceparent", "content_type",
    "payload", "extensions", "metadata", "expires_us", "raw",
)  # fmt: skip


def load_native(name: str) -> ModuleType:
    """A compiled kernel; where it is not built a visible skip, or the failure itself under CLOUD_RUNTIMES_NATIVE=require."""
    try:
        return importlib.import_module(PACKAGE + "_" + name)
    except ImportError as error:
        if os.environ.get("CLOUD_RUNTIMES_NATIVE") == "require":
            raise
        pytest.skip(f"the compiled kernel cannot be loaded: {error}")


def load(twin: str, name: str) -> ModuleType:
    return load_native(name) if twin == "native" else importlib.import_module(f"{PACKAGE}{name}_py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("native_only"):
        load_native("batch")


@pytest.fixture(params=[pytest.param("native", marks=pytest.mark.native_only), "python"])
def twin(request: pytest.FixtureRequest) -> str:
    """Which twin runs."""
    return str(request.param)


@pytest.fixture
def events(twin: str) -> Iterator[ModuleType]:
    """The events kernel; its clock is the real one again afterwards."""
    module = load(twin, "events")
    yield module
    module._set_clock(None)


@pytest.fixture
def batch(twin: str) -> ModuleType:
    """The batch kernel."""
    return load(twin, "batch")


@pytest.fixture
def kernel(twin: str) -> Iterator[ModuleType]:
    """The telemetry kernel, with a standing clock of nanoseconds."""
    module = load(twin, "telemetry")
    module._set_clock(lambda: 1_700_000_000_123_456_789)
    yield module
    module._set_clock(None)


@pytest.fixture
def twins() -> Iterator[tuple[ModuleType, ModuleType]]:
    """Both telemetry kernels, the compiled one first, with one standing clock."""
    both = load_native("telemetry"), importlib.import_module(PACKAGE + "telemetry_py")
    for module in both:
        module._set_clock(lambda: 1_700_000_000_123_456_789)
    yield both
    for module in both:
        module._set_clock(None)


@pytest.fixture
def both() -> Iterator[tuple[ModuleType, ModuleType]]:
    """Both events kernels, the compiled one first, with one standing clock."""
    twins = load_native("events"), importlib.import_module(PACKAGE + "events_py")
    for module in twins:
        module._set_clock(lambda: 1_700_000_000_000)
    yield twins
    for module in twins:
        module._set_clock(None)


def outcome(function: Any, *args: Any, **options: Any) -> tuple[str, Any]:
    """Outcome of a call: its value, or the type of its error."""
    try:
        return "value", function(*args, **options)
    except Exception as error:
        return "error", type(error)


def read_field(record: Any, name: str) -> tuple[str, Any]:
    return outcome(getattr, record, name)


def read_frame(module: ModuleType, body: bytes) -> tuple[str, Any]:
    """Everything that can be read from a frame, or the type of its error."""

    def read() -> Any:
        frame = module.Frame(body)
        return (
            frame.source,
            frame.type,
            frame.topic,
            [
                (
                    *(read_field(frame[index], name) for name in FIELDS),
                    outcome(frame[index].to_json),
                    frame.record_bytes(index),
                    frame.expires(index),
                )
                for index in range(len(frame))
            ],
        )

    return outcome(read)


@pytest.fixture
def same() -> Any:
    """Asserts that a call has one outcome in both twins, and gives it."""

    def check(both: tuple[ModuleType, ModuleType], name: str, *args: Any, **options: Any) -> tuple[str, Any]:
        native, python = (outcome(getattr(module, name), *args, **options) for module in both)
        assert native == python
        return native

    return check


@pytest.fixture
def same_frame() -> Any:
    """Asserts that a frame reads the same in both twins, and gives what was read."""

    def check(both: tuple[ModuleType, ModuleType], body: bytes) -> tuple[str, Any]:
        native, python = (read_frame(module, body) for module in both)
        assert native == python
        return native

    return check
