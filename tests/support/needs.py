"""Needs of a test: its user, its file system and the programs of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import pytest

from examples.demo import flights
from tests.support.servers import Missing

__all__ = ["needs_attributes", "needs_flights", "needs_root", "present", "served_by"]

T = TypeVar("T")


def _flights() -> bool:
    try:
        flights.archive()
    except flights.MissingDataError:
        return False
    return True


needs_attributes = pytest.mark.skipif(not hasattr(os, "setxattr"), reason="not on this Python: attributes of files")
needs_flights = pytest.mark.skipif(
    not os.environ.get("CI") and not _flights(), reason="the flights of the demo are not here: make setup"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@contextmanager
def present(server: AbstractContextManager[T]) -> Iterator[T]:
    """Run a server, or skip the test where its program is missing."""
    with ExitStack() as resources:
        try:
            started = resources.enter_context(server)
        except Missing as error:
            pytest.skip(str(error))
        yield started


def served_by(serve: Callable[..., AbstractContextManager[Any]]) -> Any:
    """Return the fixture ``served``, by which a test starts servers of its own."""

    @pytest.fixture
    def served() -> Iterator[Callable[..., Any]]:
        with ExitStack() as resources:
            yield lambda *arguments, **options: resources.enter_context(present(serve(*arguments, **options)))

    return served
