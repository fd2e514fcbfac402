"""What several folders of tests share: servers, fakes, faults, and the harnesses of the conformance suites."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PEM", "STRANGER"]

PEM = Path(__file__).with_name("localhost.pem")
"""A certificate of ``localhost`` and its key."""
STRANGER = PEM.with_name("stranger.pem")
"""A certificate that nobody knows, for another name, and its key."""
