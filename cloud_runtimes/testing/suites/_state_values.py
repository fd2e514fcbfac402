"""Conformance of a `StateDriver`: values and keys, one by one and in bulk."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest

from ...client import CloudRuntimesClient
from ...errors import BulkError, ConflictError, InvalidArgumentError, PayloadError
from ...state import StateItem
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite, values

__all__ = ["ValueTests"]


@dataclass
class Order:
    """A typed value."""

    id: int
    tags: list[str]
    note: str | None = None


class Line(TypedDict):
    """Another."""

    sku: str
    qty: int


class ValueTests(Suite):
    """What is saved comes back, under any key."""

    # -- values -------------------------------------------------------------

    @pytest.mark.parametrize("value", values(), ids=lambda value: repr(value)[:20])
    def test_round_trip(self, client: CloudRuntimesClient, face: Face, store: str, value: Any) -> None:
        face.call(client.state, "save", store, "k", value)
        got = face.call(client.state, "get", store, "k")
        assert got == value
        assert type(got) is type(value)

    @pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff" * 50, b'{"json": 1}', bytes(range(256)) * 16])
    def test_bytes_come_back_raw(self, client: CloudRuntimesClient, face: Face, store: str, data: bytes) -> None:
        for given in (data, bytearray(data), memoryview(data)):
            face.call(client.state, "save", store, "k", given)
            assert face.call(client.state, "get", store, "k") == data
        item = face.call(client.state, "get_item", store, "k")
        assert item.content_type == "application/octet-stream"

    def test_content_types(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "save", store, "m", {"a": [1, b"\x00"]}, content_type="application/msgpack")
        assert face.call(client.state, "get", store, "m") == {"a": [1, b"\x00"]}
        face.call(client.state, "save", store, "t", "grüße", content_type="text/plain")
        assert face.call(client.state, "get", store, "t") == "grüße"
        assert face.call(client.state, "get", store, "t", type=bytes) == "grüße".encode()
        face.call(client.state, "save", store, "x", "<é/>", content_type="application/xml")
        assert face.call(client.state, "get", store, "x") == "<é/>"
        face.call(client.state, "save", store, "j", {"x": 1}, content_type="application/vnd.test+json")
        assert face.call(client.state, "get", store, "j") == {"x": 1}
        face.call(client.state, "save", store, "p", b"%PDF", content_type="application/pdf")
        assert face.call(client.state, "get", store, "p") == b"%PDF"
        assert face.call(client.state, "get_item", store, "p").content_type in ("application/pdf", None)

    def test_json_type_is_the_same_given_or_not(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "save", store, "a", {"v": 1})
        face.call(client.state, "save", store, "b", {"v": 1}, content_type="application/json")
        assert face.call(client.state, "get", store, "a") == face.call(client.state, "get", store, "b") == {"v": 1}

    def test_typed(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "save", store, "o", Order(7, ["a"]))
        assert face.call(client.state, "get", store, "o", type=Order) == Order(7, ["a"])
        assert face.call(client.state, "get", store, "o") == {"id": 7, "tags": ["a"], "note": None}
        face.call(client.state, "save", store, "l", [{"sku": "s", "qty": 2}])
        assert face.call(client.state, "get", store, "l", type=list[Line]) == [{"sku": "s", "qty": 2}]
        assert face.call(client.state, "get_item", store, "o", type=Order).value == Order(7, ["a"])
        assert face.call(client.state, "get_bulk", store, ["o"], type=Order)["o"].value == Order(7, ["a"])
        face.call(client.state, "save", store, "bad", {"id": "seven", "tags": []})
        with pytest.raises(PayloadError, match=r"\$\.id"):
            face.call(client.state, "get", store, "bad", type=Order)
        with pytest.raises(BulkError) as caught:
            face.call(client.state, "get_bulk", store, ["o", "bad"], type=Order)
        assert list(caught.value.failed) == ["bad"]
        assert caught.value.result["o"].value == Order(7, ["a"])
        assert face.call(client.state, "get", store, "absent", type=Order) is None

    def test_none_is_a_value(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        assert face.call(client.state, "get_item", store, "k") is None
        face.call(client.state, "save", store, "k", None)
        assert face.call(client.state, "get", store, "k") is None
        item = face.call(client.state, "get_item", store, "k")
        assert item is not None
        assert item.value is None

    def test_large_value(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        data = uuid.uuid4().bytes * 65_536  # 1 MiB
        face.call(client.state, "save", store, "k", data)
        assert face.call(client.state, "get", store, "k") == data

    def test_stores_are_apart(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        other = harness.store("state")
        face.call(client.state, "save", store, "k", 1)
        assert face.call(client.state, "get", other, "k") is None
        face.call(client.state, "save", other, "k", 2)
        assert face.call(client.state, "get", store, "k") == 1

    def test_another_client_sees_it(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        second = harness.client()
        face.call(client.state, "save", store, "k", "v")
        assert face.call(second.state, "get", store, "k") == "v"

    # -- keys ---------------------------------------------------------------

    KEYS = (
        "k",
        "a b",
        "a/b",
        "a:b",
        "a|b",
        "a\\b",
        "100%",
        "100%25",
        "under_score",
        "*",
        "[a-z]?",
        "'; DROP TABLE state; --",
        '"quoted"',
        "line\r\nbreak",
        "\t",
        "é",
        "e\u0301",
        "漢字",
        "🎉",
        "K",
        "..",
        "../k",
        "%2e%2e",
        "\x01",
        "\x7f",
        "x" * 1024,
        "ü" * 512,
    )

    def test_keys_are_literal(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for number, key in enumerate(self.KEYS):
            face.call(client.state, "save", store, key, number)
        for number, key in enumerate(self.KEYS):
            assert face.call(client.state, "get", store, key) == number, repr(key)
        found = face.call(client.state, "get_bulk", store, self.KEYS)
        assert {key: item.value for key, item in found.items()} == {key: i for i, key in enumerate(self.KEYS)}
        face.call(client.state, "delete", store, "*")
        assert face.call(client.state, "get", store, "*") is None
        assert face.call(client.state, "get", store, "[a-z]?") is not None

    @pytest.mark.parametrize("key", ["", "x" * 1025, "ü" * 513, "a\0b", "a||b", "||", "\ud800", 7, None, b"k"])
    def test_bad_keys_are_refused(self, client: CloudRuntimesClient, face: Face, store: str, key: Any) -> None:
        calls: tuple[Callable[[], Any], ...] = (
            lambda: face.call(client.state, "get", store, key),
            lambda: face.call(client.state, "get_item", store, key),
            lambda: face.call(client.state, "get_bulk", store, ["fine", key]),
            lambda: face.call(client.state, "save", store, key, 1),
            lambda: face.call(client.state, "delete", store, key),
            lambda: face.call(client.state, "delete_bulk", store, [key]),
        )
        for call in calls:
            with pytest.raises(InvalidArgumentError, match="key"):
                call()
        with pytest.raises(BulkError):
            face.call(client.state, "save_bulk", store, {key: 1})

    # -- deleting -----------------------------------------------------------

    def test_delete(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "delete", store, "never-written")
        face.call(client.state, "save", store, "k", 1)
        face.call(client.state, "delete", store, "k")
        assert face.call(client.state, "get", store, "k") is None
        assert face.call(client.state, "get_item", store, "k") is None
        face.call(client.state, "delete", store, "k")
        face.call(client.state, "save", store, "k", 2)
        assert face.call(client.state, "get", store, "k") == 2

    # -- bulk ---------------------------------------------------------------

    def test_bulk(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        items = {f"k{number}": {"n": number} for number in range(7)}
        face.call(client.state, "save_bulk", store, items)
        found = face.call(client.state, "get_bulk", store, [*items, "missing"])
        assert {key: item.value for key, item in found.items()} == items
        assert all(isinstance(item, StateItem) and item.key == key for key, item in found.items())
        face.call(client.state, "delete_bulk", store, ["k0", "k1", "missing"])
        assert sorted(face.call(client.state, "get_bulk", store, list(items))) == [
            f"k{number}" for number in range(2, 7)
        ]
        assert face.call(client.state, "get_bulk", store, []) == {}
        face.call(client.state, "save_bulk", store, {})
        face.call(client.state, "delete_bulk", store, [])

    def test_bulk_of_many(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        items = {f"key-{number:04}": number for number in range(1200)}
        face.call(client.state, "save_bulk", store, items)
        found = face.call(client.state, "get_bulk", store, list(items))
        assert {key: item.value for key, item in found.items()} == items

    def test_bulk_tries_every_item(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with pytest.raises(BulkError) as caught:
            face.call(client.state, "save_bulk", store, {"good": 1, "bad": {1, 2}, "fine": 2})
        assert list(caught.value.failed) == ["bad"]
        assert isinstance(caught.value.failed["bad"], PayloadError)
        assert face.call(client.state, "get", store, "good") == 1
        assert face.call(client.state, "get", store, "fine") == 2
        with pytest.raises(InvalidArgumentError, match="list"):
            face.call(client.state, "get_bulk", store, "one-key")

    @requires("state.etag")
    def test_bulk_with_a_stale_etag(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        face.call(client.state, "save_bulk", store, {"a": 1, "b": 1})
        good = face.call(client.state, "get_item", store, "a").etag
        items = [StateItem(key="a", value=2, etag=good), StateItem(key="b", value=2, etag=harness.bad_etag)]
        with pytest.raises(BulkError) as caught:
            face.call(client.state, "save_bulk", store, items)
        assert list(caught.value.failed) == ["b"]
        assert isinstance(caught.value.failed["b"], ConflictError)
        assert caught.value.code == "ABORTED"
        assert face.call(client.state, "get", store, "a") == 2
        assert face.call(client.state, "get", store, "b") == 1

    # -- listing ------------------------------------------------------------

    @requires("state.list_keys")
    def test_list_keys(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        keys = ["a", "a%", "a_b", "ab", "a\\", "b", "b\U0010ffff", "b\U0010ffffz", "ÿ", "\ud7ff", "\ue000", "🎉"]
        face.call(client.state, "save_bulk", store, dict.fromkeys(keys, 1))
        in_order = sorted(keys, key=lambda key: key.encode())
        assert face.call(client.state, "list_keys", store) == in_order
        for prefix in ("a", "a%", "a_", "a\\", "b", "b\U0010ffff", "\ud7ff", "z"):
            expected = [key for key in in_order if key.startswith(prefix)]
            assert face.call(client.state, "list_keys", store, prefix) == expected, repr(prefix)
        page = face.call(client.state, "list_keys", store, limit=5)
        assert page == in_order[:5]
        face.call(client.state, "delete", store, page[2])
        assert face.call(client.state, "list_keys", store, limit=100, after=page[-1]) == in_order[5:]
        assert face.call(client.state, "list_keys", store, "a", after="a%") == [
            key for key in in_order if key.startswith("a") and key.encode() > b"a%" and key != page[2]
        ]
        for bad in ({"limit": 0}, {"limit": True}, {"after": ""}, {"prefix": "||"}):
            with pytest.raises(InvalidArgumentError):
                face.call(client.state, "list_keys", store, **bad)

    @requires("state.list_keys")
    def test_list_many_keys(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        keys = [f"{number:05}" for number in range(1025)]
        face.call(client.state, "save_bulk", store, dict.fromkeys(keys, 0))
        assert face.call(client.state, "list_keys", store) == keys
        found: list[str] = []
        while page := face.call(client.state, "list_keys", store, limit=100, after=found[-1] if found else None):
            found += page
        assert found == keys
