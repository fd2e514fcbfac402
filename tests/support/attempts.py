"""How often a publisher's time ran out."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes.pubsub import _lanes


def attempts_that_ran_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note from now on how many bytes each attempt of publishers had that ran out of time."""
    noted: list[int] = []
    ran_out = _lanes.Window.ran_out

    def note(window: _lanes.Window, size: int, *arguments: Any, **options: Any) -> None:
        noted.append(size)
        ran_out(window, size, *arguments, **options)

    monkeypatch.setattr(_lanes.Window, "ran_out", note)
    return noted
