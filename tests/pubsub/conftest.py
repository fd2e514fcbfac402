"""Both APIs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud_runtimes.testing import AsyncFace, Face, SyncFace


@pytest.fixture(params=[SyncFace, AsyncFace], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Both APIs in turn."""
    made: Face = request.param()
    yield made
    made.close()
