"""The rows of the harness table as a fixture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.testing import Harness

__all__ = ["parameters", "rows", "short_list"]


def short_list(*tests: Callable[..., None]) -> pytest.MarkDecorator:
    """Return the mark of a row that runs these tests alone, and the others with ``--soak``."""
    return pytest.mark.short(*(test.__name__ for test in tests))


def parameters(
    names: Collection[str], second: Collection[str] = (), short: Collection[Callable[..., None]] = ()
) -> list[Any]:
    """Return the parameters of a fixture: one a row.

    Args:
        names: of all rows.
        second: rows that differ little from another one; they have a short list.
        short: the tests of that list.
    """
    assert {*second} <= {*names}
    return [pytest.param(name, marks=short_list(*short) if name in second else ()) for name in sorted(names)]


def rows(
    own: Mapping[str, Callable[..., Harness]],
    second: Collection[str] = (),
    short: Collection[Callable[..., None]] = (),
    **beside: Mapping[str, Callable[..., Harness]],
) -> Any:
    """Return the fixture ``harness`` of a suite: each row in turn, closed afterwards.

    Args:
        own: rows that are made in a folder.
        second: as of `parameters`.
        short: as of `parameters`.
        beside: name of a fixture → rows that are made on what it gives, as a sidecar for all tests of a module.
    """
    standing = {name: (on, make) for on, table in beside.items() for name, make in table.items()}

    @pytest.fixture(params=parameters({*own, *standing}, second, short))
    def harness(
        self: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        if request.param in standing:
            on, make = standing[request.param]
            opened = make(request.getfixturevalue(on))
        else:
            opened = own[request.param](monkeypatch, tmp_path)
        yield opened
        opened.close()

    return harness
