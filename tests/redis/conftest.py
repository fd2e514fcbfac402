"""A home on Valkey with a prefix of its own; with ``--soak`` on Redis too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harnesses.redis import RedisHome


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "home" in metafunc.fixturenames:
        kinds = ["valkey", "redis"] if metafunc.config.getoption("--soak") else ["valkey"]
        metafunc.parametrize("home", kinds, indirect=True)


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[RedisHome]:
    made = RedisHome(request.getfixturevalue(f"{request.param}_server"))
    yield made
    made.close()
