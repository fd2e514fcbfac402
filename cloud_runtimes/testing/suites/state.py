"""Conformance of a `StateDriver`, through the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import ClosedError, InvalidArgumentError, PayloadError, UnsupportedError
from ..faces import Face
from ..harness import Harness
from ._base import Call, one_each
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
    def test_unencodable_values_are_refused(self, call: Call, value: Any) -> None:
        call.fails(PayloadError)("save", "k", value)
        assert call("get_item", "k") is None

    def test_bad_arguments_are_refused(self, call: Call, client: CloudRuntimesClient, face: Face) -> None:
        texts = one_each(content_type=("no media type", "text/plain\r\nX: y"), metadata=({"a": 1}, "text"))
        for arguments in (*texts, *one_each(timeout=(0, -1, float("nan"), "5", True))):
            call.fails(InvalidArgumentError)("save", "k", 1, **arguments)
        for name in ("", "a\nb", 7, None):
            face.fails(InvalidArgumentError)(client.state, "get", name, "k")
        call.fails(TypeError)("get", "k", unknown=1)
        assert call("get_item", "k") is None

    def test_undeclared_features_are_refused(self, call: Call, client: CloudRuntimesClient, store: str) -> None:
        uses: dict[str, Callable[[], Any]] = {
            "state.etag": lambda: call("save", "k", 1, etag="x"),
            "state.first_write": lambda: call("save", "k", 1, concurrency="first-write"),
            "state.ttl": lambda: call("save", "k", 1, ttl=60),
            "state.fence": lambda: call("save", "k", 1, fence=1),
            "state.consistency": lambda: call("get", "k", consistency="strong"),
            "state.list_keys": lambda: call("list_keys"),
            "state.transaction": lambda: client.state.transaction(store),
        }
        for feature, use in uses.items():
            if call.lacks(feature):
                with pytest.raises(UnsupportedError):
                    use()

    def test_a_closed_client_refuses(self, call: Call, face: Face, store: str, harness: Harness) -> None:
        assert call("get", "k") is None
        second = harness.client()
        face.call(second.state, "save", store, "k", 1)
        face.call(second, "close")
        face.call(second, "close")
        face.fails(ClosedError)(second.state, "get", store, "k")
        face.fails(ClosedError)(second.state, "save", store, "k", 1)
        assert call("get", "k") == 1
