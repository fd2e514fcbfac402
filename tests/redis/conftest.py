"""A home on a server that speaks Redis' protocol, with a prefix of its own, and servers that a test may break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.harnesses.redis import RedisHome
from tests.support.homes import clients  # noqa: F401
from tests.support.leased_jobs import members  # noqa: F401
from tests.support.redis import Missing, RedisServer, serve


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kinds = ["valkey", "redis"] if metafunc.config.getoption("--soak") else ["valkey"]
    if "home" in metafunc.fixturenames:
        metafunc.parametrize("home", kinds, indirect=True)
    if "failing" in metafunc.fixturenames:
        metafunc.parametrize("kind", kinds)


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[RedisHome]:
    made = RedisHome(request.getfixturevalue(f"{request.param}_server"))
    yield made
    made.close()


@pytest.fixture
def served() -> Iterator[Callable[..., RedisServer]]:
    """Start a server of the test's own."""
    with ExitStack() as resources:

        def start(kind: str = "valkey", **options: object) -> RedisServer:
            try:
                return resources.enter_context(serve(kind, **options))
            except Missing as error:
                pytest.skip(str(error))

        yield start
