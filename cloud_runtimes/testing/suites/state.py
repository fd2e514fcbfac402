"""Conformance of a `StateDriver`, through the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import ClosedError, InvalidArgumentError, PayloadError, UnsupportedError
from ..faces import Face
from ..harness import Harness
from ._state_conditions import ConditionTests
from ._state_values import ValueTests

__all__ = ["StateSuite"]


class StateSuite(ValueTests, ConditionTests):
    """Every case of Dapr's state conformance, and those that it misses: expiry, rollback, concurrent compare-and-set, odd keys."""

    service = "state"

    # -- what is refused ----------------------------------------------------

    @pytest.mark.parametrize(
        "value", [{1, 2}, object(), float("nan"), {"x": [float("inf")]}, "\ud800", {1: "int key"}, 2**70]
    )
    def test_unencodable_values_are_refused(
        self, client: CloudRuntimesClient, face: Face, store: str, value: Any
    ) -> None:
        with pytest.raises(PayloadError):
            face.call(client.state, "save", store, "k", value)
        assert face.call(client.state, "get_item", store, "k") is None

    def test_bad_arguments_are_refused(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        save = client.state
        for arguments in (
            {"content_type": "no media type"},
            {"content_type": "text/plain\r\nX: y"},
            {"metadata": {"a": 1}},
            {"metadata": "text"},
            {"timeout": 0},
            {"timeout": -1},
            {"timeout": float("nan")},
            {"timeout": "5"},
            {"timeout": True},
        ):
            with pytest.raises(InvalidArgumentError):
                face.call(save, "save", store, "k", 1, **arguments)
        for name in ("", "a\nb", 7, None):
            with pytest.raises(InvalidArgumentError):
                face.call(save, "get", name, "k")
        with pytest.raises(TypeError):
            face.call(save, "get", store, "k", unknown=1)
        assert face.call(save, "get_item", store, "k") is None

    def test_undeclared_features_are_refused(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        uses: dict[str, Callable[[], Any]] = {
            "state.etag": lambda: face.call(client.state, "save", store, "k", 1, etag="x"),
            "state.first_write": lambda: face.call(client.state, "save", store, "k", 1, concurrency="first-write"),
            "state.ttl": lambda: face.call(client.state, "save", store, "k", 1, ttl=60),
            "state.fence": lambda: face.call(client.state, "save", store, "k", 1, fence=1),
            "state.consistency": lambda: face.call(client.state, "get", store, "k", consistency="strong"),
            "state.list_keys": lambda: face.call(client.state, "list_keys", store),
            "state.transaction": lambda: client.state.transaction(store),
        }
        for feature, use in uses.items():
            if self.lacks(client, feature, store):
                with pytest.raises(UnsupportedError):
                    use()

    def test_a_closed_client_refuses(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        assert face.call(client.state, "get", store, "k") is None
        other, client = client, harness.client()
        face.call(client.state, "save", store, "k", 1)
        face.call(client, "close")
        face.call(client, "close")
        with pytest.raises(ClosedError):
            face.call(client.state, "get", store, "k")
        with pytest.raises(ClosedError):
            face.call(client.state, "save", store, "k", 1)
        assert face.call(other.state, "get", store, "k") == 1
