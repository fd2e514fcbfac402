"""For tests: conformance suites for anyone's component or runtime, and what they stand on.

>>> from cloud_runtimes.testing import Harness, StateSuite  # doctest: +SKIP
>>> class TestMine(StateSuite):
...     @pytest.fixture
...     def harness(self): ...

`SecretSuite` also needs the plugin of `cloud_runtimes.testing.canary`, which finds a secret that leaked anywhere in a run: ``pytest_plugins = ["cloud_runtimes.testing.canary"]``.

Fixtures for users of the package, a client in memory and a sidecar, are in `cloud_runtimes.testing.plugin`, which pytest finds by itself; so importing this loads nothing.

Needs pytest 9 or newer, the extra ``testing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .apis import Api, AsyncApi, SyncApi
    from .clock import Clock
    from .events import RecordedEvents
    from .harness import Harness, SecretHarness, requires
    from .sidecar import RunningSidecar, memory_client, serve
    from .suites.admin import AdminSuite
    from .suites.configuration import ConfigurationSuite
    from .suites.database import DatabaseSuite
    from .suites.file import FileSuite
    from .suites.lock import LockSuite
    from .suites.operations import OperationsSuite
    from .suites.pubsub import PubSubSuite
    from .suites.rpc import RpcHarness, RpcSuite
    from .suites.schedule import ScheduleSuite
    from .suites.secret import SecretSuite
    from .suites.state import StateSuite

__all__ = [
    "AdminSuite",
    "Api",
    "AsyncApi",
    "Clock",
    "ConfigurationSuite",
    "DatabaseSuite",
    "FileSuite",
    "Harness",
    "LockSuite",
    "OperationsSuite",
    "PubSubSuite",
    "RecordedEvents",
    "RpcHarness",
    "RpcSuite",
    "RunningSidecar",
    "ScheduleSuite",
    "SecretHarness",
    "SecretSuite",
    "StateSuite",
    "SyncApi",
    "memory_client",
    "requires",
    "serve",
]

_MODULES: Final = {
    "apis": ("Api", "AsyncApi", "SyncApi"),
    "clock": ("Clock",),
    "events": ("RecordedEvents",),
    "harness": ("Harness", "SecretHarness", "requires"),
    "sidecar": ("RunningSidecar", "memory_client", "serve"),
    "suites.rpc": ("RpcHarness",),
}
_LAZY: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        module = _LAZY.get(name) or f"suites.{name.removesuffix('Suite').lower()}"
        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
