"""Conformance of a `ConfigurationDriver`, through the service."""

from __future__ import annotations

from typing import Any

from ...client import CloudRuntimesClient
from ...configuration import ConfigurationItem
from ...errors import ClosedError, InvalidArgumentError, UnsupportedError
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, one_each
from ._configuration import TWENTY, receive
from ._configuration_changes import ChangeTests
from ._configuration_items import ItemTests

__all__ = ["ConfigurationSuite"]


class ConfigurationSuite(ItemTests, ChangeTests):
    """Every case of Dapr's configuration conformance, and what it misses: coalescing, atomic saves, groups and labels, handlers, ends."""

    # -- ends and refusals --------------------------------------------------

    @requires("configuration.subscribe")
    def test_closing(self, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        sub = face.call(client.configuration, "subscribe_configuration", filled)
        assert len(receive(face, sub)) == 20
        face.call(sub, "close")
        face.call(sub, "close")
        assert face.call(sub, "receive", 5) is None
        face.call(sub, "wait")
        assert list(sub) == []

    @requires("configuration.subscribe")
    def test_the_client_closes_it(self, harness: Harness, face: Face, filled: str) -> None:
        client = harness.client()
        sub = face.call(client.configuration, "subscribe_configuration", filled)
        face.call(client, "close")
        assert face.call(sub, "receive", 5) is None
        face.call(sub, "wait")
        face.fails(ClosedError)(client.configuration, "get_configuration", filled)

    def test_bad_arguments(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        service = client.configuration
        for keys in ("key", [""], ["a||b"], ["\0"], ["x" * 1025], [5], ["\ud800"]):
            for method in (
                "get_configuration",
                "get_configuration_items",
                "delete_configuration",
                "subscribe_configuration",
            ):
                error = face.fails(InvalidArgumentError, match="key")(service, method, store, keys)
                assert (error.service, error.operation) == ("configuration", method)
        for bad in one_each(group=("", 5), label=("*", "\n"), timeout=(0,), metadata=({"a": 1},)):
            face.fails(InvalidArgumentError, match=next(iter(bad)))(service, "get_configuration", store, **bad)
        face.fails(InvalidArgumentError, match="handler must be callable")(
            service, "subscribe_configuration", store, (), "print"
        )
        item = ConfigurationItem
        for items in (
            {"a": 5},
            {"a": None},
            {"a": item("a", "b")},
            {"": "x"},
            {"a": "\ud800"},
            "a=b",
            [("a", "b")],
            [item("a", "b", deleted=True)],
            [item("a", "b", tags={"x": 1})],  # type: ignore[dict-item]
            [item("a", "b", metadata={"x": 1})],  # type: ignore[dict-item]
        ):
            face.fails(InvalidArgumentError)(service, "save_configuration", store, items)

    def test_no_value_stands_in_a_message(self, call: Call) -> None:
        for items in ({"a": ["sesame"]}, {"a": b"sesame"}, {"a": "sesame\ud800"}):
            caught = call.fails(InvalidArgumentError)("save_configuration", items)
            assert "sesame" not in str(caught)

    def test_what_is_not_declared_is_refused(self, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        item = ConfigurationItem("a", "1", tags={"t": "1"})
        uses: dict[str, list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = {
            "write": [("save_configuration", ({"a": "1"},), {}), ("delete_configuration", (["a"],), {})],
            "tags": [("save_configuration", ([item],), {})],
            "group": [("get_configuration", (), {"group": "g"}), ("subscribe_configuration", (), {"group": "g"})],
            "label": [("get_configuration_items", (), {"label": "l"}), ("subscribe_configuration", (), {"label": "l"})],
            "subscribe": [("subscribe_configuration", (), {})],
        }
        for feature, calls in uses.items():
            if self.lacks(client, f"configuration.{feature}", filled):
                for method, arguments, options in calls:
                    error = face.fails(UnsupportedError)(client.configuration, method, filled, *arguments, **options)
                    assert (error.component, error.operation) == (filled, method)
                    assert not error.maybe_applied
        assert face.call(client.configuration, "get_configuration", filled) == TWENTY
