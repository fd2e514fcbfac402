"""The rows of the harness table as a fixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.testing import Harness

__all__ = ["rows"]


def rows(own: Mapping[str, Callable[..., Harness]], **beside: Mapping[str, Callable[..., Harness]]) -> Any:
    """Return the fixture ``harness`` of a suite: each row in turn, closed afterwards.

    Args:
        own: rows that are made in a folder.
        beside: name of a fixture → rows that are made on what it gives, as a sidecar for all tests of a module.
    """
    standing = {name: (on, make) for on, table in beside.items() for name, make in table.items()}

    @pytest.fixture(params=sorted({*own, *standing}))
    def harness(
        self: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        if request.param in standing:
            on, make = standing[request.param]
            made = make(request.getfixturevalue(on))
        else:
            made = own[request.param](monkeypatch, tmp_path)
        yield made
        made.close()

    return harness
