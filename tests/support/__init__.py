"""Shared helpers of several test folders: servers, fakes, faults, and the harnesses of the conformance suites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cloud_runtimes import CloudRuntimesClient

__all__ = ["PEM", "STRANGER", "Figure", "Make", "Rounds"]

Rounds = Callable[[int, int], int]
"""The fixture ``rounds``: the length of a proof."""
Figure = Callable[[str, str], None]
"""The fixture ``figure``: what was measured, and its value."""
Make = Callable[..., CloudRuntimesClient]
"""A fixture that makes clients."""

PEM = Path(__file__).with_name("localhost.pem")
"""A certificate of ``localhost`` and its key."""
STRANGER = PEM.with_name("stranger.pem")
"""A certificate that nobody knows, for another name, and its key."""
