"""A Layotto for tests, on the embedded runtime: all of its API that this project uses, with what is odd about it (`Quirks`).

It listens on a port of its own, or on one that is given, so that it can be started again in its place.
"""

from __future__ import annotations

from .quirks import Quirks
from .server import NONE, FakeLayotto

__all__ = ["NONE", "FakeLayotto", "Quirks"]
