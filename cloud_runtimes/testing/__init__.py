"""For tests: conformance suites for anyone's component or runtime, and what they stand on.

>>> from cloud_runtimes.testing import Harness, StateSuite  # doctest: +SKIP
>>> class TestMine(StateSuite):
...     @pytest.fixture
...     def harness(self): ...

Needs pytest, which is not a dependency of the package.
"""

from .faces import AsyncFace, Face, SyncFace
from .harness import Harness, requires
from .suites.database import DatabaseSuite
from .suites.pubsub import PubSubSuite
from .suites.state import StateSuite

__all__ = ["AsyncFace", "DatabaseSuite", "Face", "Harness", "PubSubSuite", "StateSuite", "SyncFace", "requires"]
