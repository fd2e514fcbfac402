"""What the parts of the suite of a `FileDriver` share."""

from __future__ import annotations

__all__ = ["Broken"]


class Broken(Exception):
    """What a source, or a block, raises."""
