"""A home on a server that speaks Redis' protocol, with a prefix of its own, and servers that a test may break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harnesses.redis import RedisHome
from tests.support.homes import clients  # noqa: F401
from tests.support.leased_jobs import members  # noqa: F401
from tests.support.needs import served_by
from tests.support.redis import serve


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kinds = ["valkey", pytest.param("redis", marks=pytest.mark.soak)]
    if "home" in metafunc.fixturenames:
        metafunc.parametrize("home", kinds, indirect=True)
    if "failing" in metafunc.fixturenames:
        metafunc.parametrize("kind", kinds)


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[RedisHome]:
    harness = RedisHome(request.getfixturevalue(f"{request.param}_server"))
    yield harness
    harness.close()


served = served_by(serve)
