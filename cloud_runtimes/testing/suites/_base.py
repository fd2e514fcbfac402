"""Common parts of all suites: both APIs, the skip of undeclared features, and calls of the component under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ..apis import Api, AsyncApi, SyncApi
from ..harness import Harness

if TYPE_CHECKING:
    from ...client import CloudRuntimesClient


class Broken(Exception):
    """Exception that a test itself raises."""


class Call:
    """Calls methods of a service on the test's own component, by either API: ``call("save", "key", 1)``."""

    def __init__(self, api: Api, client: CloudRuntimesClient, service: str, *component: str) -> None:
        self._api = api
        self._client = client
        self._name = service
        self._component = component

    def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._api.call(self._service, method, *self._component, *arguments, **options)

    @property
    def _service(self) -> Any:
        return getattr(self._client, self._name)

    def on(self, client: CloudRuntimesClient | None = None, store: str | None = None) -> Call:
        """Return calls by another client, or on another component."""
        component = self._component if store is None else (store,)
        return Call(self._api, client or self._client, self._name, *component)

    def plain(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call the sync method, whichever API it is: for a handle that is not open yet, and in other threads."""
        return getattr(self._service, method)(*self._component, *arguments, **options)

    def opened(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a context manager for the block of what a method gives."""
        caller = self if hasattr(self._service, f"{method}_async") else self.plain
        return self._api.opened(caller(method, *arguments, **options))

    def fails(self, error: Any, match: str | None = None) -> Callable[..., Any]:
        """Return a call that must raise an error, and returns the error."""
        refused = self._api.fails(error, match)
        return lambda method, *arguments, **options: refused(
            self._service, method, *self._component, *arguments, **options
        )

    def together(self, *calls: tuple[Any, ...], **options: Any) -> list[Any]:
        """Make calls at once, each given as its method and arguments; results, or the exceptions raised."""
        return self._api.together(
            [(self._service, method, (*self._component, *arguments), options) for method, *arguments in calls]
        )

    def driver(self) -> Any:
        """Return the driver of the component."""
        from ...client import context_of

        return context_of(self._client).frame(self._name).driver(*self._component)

    def lacks(self, feature: str) -> bool:
        """Return whether a feature is not declared, so that using it must be refused."""
        return not self._client.supports(feature, *(self._component or ("default",)))


class Suite:
    """Base of the suites.

    A subclass gives the fixture ``harness``.
    """

    service: str

    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        """Override: yield a harness, then close it."""
        raise NotImplementedError("a suite needs a harness fixture")

    @pytest.fixture(params=["sync", "async"])
    def api(self, request: pytest.FixtureRequest) -> Iterator[Api]:
        """Each API in turn."""
        api: Api = SyncApi() if request.param == "sync" else AsyncApi()
        yield api
        api.close()

    @pytest.fixture
    def client(self, harness: Harness) -> CloudRuntimesClient:
        """A client on the component."""
        return harness.client()

    @pytest.fixture
    def store(self, harness: Harness) -> str:
        """A component's name of the test's own."""
        return harness.store(self.service)

    @pytest.fixture
    def call(self, client: CloudRuntimesClient, api: Api, store: str) -> Call:
        """The test's own component."""
        return Call(api, client, self.service, store)

    @pytest.fixture(autouse=True)
    def _declared(self, request: pytest.FixtureRequest, client: CloudRuntimesClient, store: str) -> None:
        for feature in (each for marker in request.node.iter_markers("requires") for each in marker.args):
            if not client.supports(feature, store):
                pytest.skip(f"{feature} is not declared")


def as_sent(harness: Harness, events: list[Any], key: Callable[[Any], Any] | None = None) -> list[Any]:
    """Return events of a bulk as they came, or where it has no order, sorted by their data."""
    return events if harness.bulk_order else sorted(events, key=key or (lambda event: event.data))


def values(*more: Any) -> list[Any]:
    """The values that every store must give back as they were."""
    # fmt: off
    return [
        1, 0, -(2**53) + 1, 2**63 - 1, True, False, None, "", "text", "123", '{"looks": "like JSON"}',
        "ünïcødé 漢字 🎉", 0.1, 1e300, [], {}, [1, "two", None, [3.5]],
        {"nested": {"list": [1, 2, {"deep": True}]}, "empty": ""}, *more,
    ]
    # fmt: on
