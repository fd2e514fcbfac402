"""Fixtures that the packaging tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.builds import ROOT, built, environment


@pytest.fixture(scope="session")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pure wheel."""
    return built(ROOT, tmp_path_factory.mktemp("pure") / "dist", environment("pure"))
