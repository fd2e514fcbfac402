"""What all suites share: the faces, the skip of what is not declared, and the test that nothing undeclared works in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ..faces import AsyncFace, Face, SyncFace
from ..harness import Harness

if TYPE_CHECKING:
    from ...client import CloudRuntimesClient

__all__ = ["Call", "Suite", "as_sent", "one_each", "values"]


class Call:
    """Calls methods of a service on the test's own component, by the API of the face: ``call("save", "key", 1)``."""

    def __init__(self, face: Face, client: CloudRuntimesClient, service: str, *component: str) -> None:
        self._face = face
        self._client = client
        self._service = getattr(client, service)
        self._component = component

    def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._face.call(self._service, method, *self._component, *arguments, **options)

    def opened(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a context manager for the block of a handle that a method makes."""
        return self._face.opened(getattr(self._service, method)(*self._component, *arguments, **options))

    def lacks(self, feature: str) -> bool:
        """Tell whether a feature is not declared, so that using it must be refused."""
        return not self._client.supports(feature, *(self._component or ("default",)))

    def fails(self, error: Any, match: str | None = None) -> Callable[..., Any]:
        """Return a call that must raise an error, and returns the error."""
        refused = self._face.fails(error, match)
        return lambda method, *arguments, **options: refused(
            self._service, method, *self._component, *arguments, **options
        )


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
    def face(self, request: pytest.FixtureRequest) -> Iterator[Face]:
        """Each body runs in both faces."""
        face: Face = SyncFace() if request.param == "sync" else AsyncFace()
        yield face
        face.close()

    @pytest.fixture
    def client(self, harness: Harness) -> CloudRuntimesClient:
        """A client on the component."""
        return harness.client()

    @pytest.fixture
    def store(self, harness: Harness) -> str:
        """A component's name of the test's own."""
        return harness.store(self.service)

    @pytest.fixture
    def call(self, client: CloudRuntimesClient, face: Face, store: str) -> Call:
        """The test's own component."""
        return Call(face, client, self.service, store)

    @pytest.fixture(autouse=True)
    def _declared(self, request: pytest.FixtureRequest, client: CloudRuntimesClient, store: str) -> None:
        for feature in (each for marker in request.node.iter_markers("requires") for each in marker.args):
            if not client.supports(feature, store):
                pytest.skip(f"{feature} is not declared")

    @staticmethod
    def lacks(client: CloudRuntimesClient, feature: str, store: str) -> bool:
        """Tell whether a feature is not declared, so that using it must be refused."""
        return not client.supports(feature, store)


def one_each(**options: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Return one argument at a time: ``one_each(a=(1, 2), b=(3,))`` is ``[{"a": 1}, {"a": 2}, {"b": 3}]``."""
    return [{name: value} for name, found in options.items() for value in found]


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
