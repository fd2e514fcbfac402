"""For tests: conformance suites for anyone's component or runtime, and what they stand on.

>>> from cloud_runtimes.testing import Harness, StateSuite  # doctest: +SKIP
>>> class TestMine(StateSuite):
...     @pytest.fixture
...     def harness(self): ...

`SecretSuite` also needs the plugin of `cloud_runtimes.testing.canary`, which finds a secret that leaked anywhere in a run: ``pytest_plugins = ["cloud_runtimes.testing.canary"]``.

Needs pytest, which is not a dependency of the package.
"""

from .faces import AsyncFace, Face, SyncFace
from .harness import Harness, SecretHarness, requires
from .suites.configuration import ConfigurationSuite
from .suites.database import DatabaseSuite
from .suites.file import FileSuite
from .suites.lock import LockSuite
from .suites.pubsub import PubSubSuite
from .suites.rpc import RpcHarness, RpcSuite
from .suites.schedule import ScheduleSuite
from .suites.secret import SecretSuite
from .suites.state import StateSuite

__all__ = [
    "AsyncFace",
    "ConfigurationSuite",
    "DatabaseSuite",
    "Face",
    "FileSuite",
    "Harness",
    "LockSuite",
    "PubSubSuite",
    "RpcHarness",
    "RpcSuite",
    "ScheduleSuite",
    "SecretHarness",
    "SecretSuite",
    "StateSuite",
    "SyncFace",
    "requires",
]
