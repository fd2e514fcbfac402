"""A pytest plugin that is there once the package is installed: a client in memory, and a sidecar for whatever speaks Dapr.

It offers fixtures and the markers of the conformance suites, and imports nothing of the package until one is used. See ``docs/how-to/testing.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..client import CloudRuntimesClient
    from .clock import Clock
    from .events import RecordedEvents
    from .sidecar import RunningSidecar

__all__: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers of the conformance suites."""
    config.addinivalue_line("markers", "requires(*features): needs features that the component declares")
    config.addinivalue_line("markers", "timing: measures time, so nothing may run beside it")


@pytest.fixture
def cloud_runtimes_config() -> Mapping[str, Any]:
    """The configuration of `cloud_runtimes_client`; override it to declare components. Without ``[capa] home`` all is in memory."""
    return {}


@pytest.fixture
def cloud_runtimes_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of everything embedded, of all clients of the test: ``cloud_runtimes_clock.advance(3600)``."""
    from .. import registry
    from .clock import Clock

    clock = Clock()
    monkeypatch.setitem(registry.loaded, (registry.COMPONENTS, "sqlite"), clock.component)
    return clock


@pytest.fixture
def cloud_runtimes_client(
    cloud_runtimes_config: Mapping[str, Any], cloud_runtimes_clock: Clock
) -> Iterator[CloudRuntimesClient]:
    """A client in the process, on data in memory that no other test sees; closed afterwards."""
    from .sidecar import memory_client

    with memory_client(cloud_runtimes_config) as client:
        yield client


@pytest.fixture
def cloud_runtimes_events(
    cloud_runtimes_client: CloudRuntimesClient,
) -> Iterator[Callable[[str, str], RecordedEvents]]:
    """A function that records the events of a topic from its beginning: ``cloud_runtimes_events("bus", "orders").take()``."""
    from contextlib import ExitStack

    from .events import RecordedEvents

    with ExitStack() as stack:
        yield lambda pubsub_name, topic: stack.enter_context(RecordedEvents(cloud_runtimes_client, pubsub_name, topic))


@pytest.fixture
def cloud_runtimes_serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., RunningSidecar]]:
    """A function that starts a sidecar; see `cloud_runtimes.testing.sidecar.serve`. All are stopped afterwards.

    Without ``resources`` it stands on `cloud_runtimes_client`: a test sees there what the application under test has saved.
    """
    from contextlib import ExitStack

    from .sidecar import serve

    with ExitStack() as stack:

        def start(**arguments: Any) -> RunningSidecar:
            if arguments.get("resources") is None:
                arguments.setdefault("client", request.getfixturevalue("cloud_runtimes_client"))
            return stack.enter_context(serve(**arguments))

        yield start


@pytest.fixture
def cloud_runtimes_sidecar(cloud_runtimes_serve: Callable[..., RunningSidecar]) -> RunningSidecar:
    """A running sidecar without an application, on free ports, over `cloud_runtimes_client`."""
    return cloud_runtimes_serve()
