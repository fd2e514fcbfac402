"""What a test needs of its user and its file system."""

from __future__ import annotations

import os

import pytest

__all__ = ["needs_attributes", "needs_root"]

needs_attributes = pytest.mark.skipif(not hasattr(os, "setxattr"), reason="not on this Python: attributes of files")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
