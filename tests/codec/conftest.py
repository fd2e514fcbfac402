"""The twins of the MessagePack kernel behind one fixture, so each test body is written once: compiled, the reference, and what runs on the fallback, with and without the ormsgpack package."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from cloud_runtimes import codec

NATIVE = "cloud_runtimes._native._msgpack"
PYTHON = "cloud_runtimes._native.msgpack_py"
PEER = "cloud_runtimes._native.msgpack_peer"
TWINS = ("python", "python and ormsgpack", "python, ormsgpack blocked")


def load_native() -> ModuleType:
    """The compiled kernel; where it is not built a visible skip, or the failure itself under CLOUD_RUNTIMES_NATIVE=require."""
    try:
        return importlib.import_module(NATIVE)
    except ImportError as error:
        if os.environ.get("CLOUD_RUNTIMES_NATIVE") == "require":
            raise
        pytest.skip(f"the compiled kernel cannot be loaded: {error}")


@pytest.fixture(params=[pytest.param("native", marks=pytest.mark.native_only), *TWINS])
def impl(request: pytest.FixtureRequest) -> ModuleType:
    """One of the twins."""
    return load_native() if request.param == "native" else load_python(request.param)


@pytest.fixture(params=TWINS)
def twins(request: pytest.FixtureRequest) -> tuple[ModuleType, ModuleType]:
    """Two twins, the compiled one first."""
    return load_native(), load_python(request.param)


def load_python(name: str) -> ModuleType:
    if name == "python":
        return importlib.import_module(PYTHON)
    if name == "python and ormsgpack":
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            pytest.importorskip("ormsgpack", reason="ormsgpack has no wheel for this build")
        module = importlib.import_module(PEER)
        assert module.backend().startswith("ormsgpack ")
        return module
    return blocked()


def blocked() -> ModuleType:
    """The fallback's kernel, loaded anew where `import ormsgpack` fails."""
    spec = importlib.util.find_spec(PEER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ormsgpack", None)
        assert module.backend() == "Python (ormsgpack is not installed)"
    return module


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
