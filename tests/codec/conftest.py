"""The twins of the MessagePack kernel behind one fixture, so each test body is written once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from cloud_runtimes import codec

NATIVE = "cloud_runtimes._native._msgpack"
PYTHON = "cloud_runtimes._native.msgpack_py"


def load_native() -> ModuleType:
    """The compiled kernel; where it is not built a visible skip, or the failure itself under CLOUD_RUNTIMES_NATIVE=require."""
    try:
        return importlib.import_module(NATIVE)
    except ImportError as error:
        if os.environ.get("CLOUD_RUNTIMES_NATIVE") == "require":
            raise
        pytest.skip(f"the compiled kernel cannot be loaded: {error}")


@pytest.fixture(params=[pytest.param("native", marks=pytest.mark.native_only), "python"])
def impl(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the twins in turn."""
    return load_native() if request.param == "native" else importlib.import_module(PYTHON)


@pytest.fixture
def twins() -> tuple[ModuleType, ModuleType]:
    """Both twins, the compiled one first."""
    return load_native(), importlib.import_module(PYTHON)


@contextmanager
def codec_limits(*more: ModuleType, **given: int) -> Iterator[None]:
    """`codec.limits` for a while, in the kernels that are in use and in others that a test loaded."""
    before = codec.limits()
    try:
        now = codec.limits(**given)
        for module in more:
            module.set_limits(*now)
        yield
    finally:
        codec.limits(**before._asdict())
        for module in more:
            module.set_limits(*before)
