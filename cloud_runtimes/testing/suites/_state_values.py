"""Conformance of a `StateDriver`: values and keys, one by one and in bulk."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest

from ...client import CloudRuntimesClient
from ...errors import BulkError, ConflictError, InvalidArgumentError, PayloadError
from ...state import StateItem
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, Suite, values

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
    def test_round_trip(self, call: Call, value: Any) -> None:
        call("save", "k", value)
        got = call("get", "k")
        assert got == value
        assert type(got) is type(value)

    @pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff" * 50, b'{"json": 1}', bytes(range(256)) * 16])
    def test_bytes_come_back_raw(self, call: Call, data: bytes) -> None:
        for given in (data, bytearray(data), memoryview(data)):
            call("save", "k", given)
            assert call("get", "k") == data
        item = call("get_item", "k")
        assert item.content_type == "application/octet-stream"

    def test_content_types(self, call: Call) -> None:
        call("save", "m", {"a": [1, b"\x00"]}, content_type="application/msgpack")
        assert call("get", "m") == {"a": [1, b"\x00"]}
        call("save", "t", "grüße", content_type="text/plain")
        assert call("get", "t") == "grüße"
        assert call("get", "t", type=bytes) == "grüße".encode()
        call("save", "x", "<é/>", content_type="application/xml")
        assert call("get", "x") == "<é/>"
        call("save", "j", {"x": 1}, content_type="application/vnd.test+json")
        assert call("get", "j") == {"x": 1}
        call("save", "p", b"%PDF", content_type="application/pdf")
        assert call("get", "p") == b"%PDF"
        assert call("get_item", "p").content_type in ("application/pdf", None)

    def test_json_type_is_the_same_given_or_not(self, call: Call) -> None:
        call("save", "a", {"v": 1})
        call("save", "b", {"v": 1}, content_type="application/json")
        assert call("get", "a") == call("get", "b") == {"v": 1}

    def test_typed(self, call: Call) -> None:
        call("save", "o", Order(7, ["a"]))
        assert call("get", "o", type=Order) == Order(7, ["a"])
        assert call("get", "o") == {"id": 7, "tags": ["a"], "note": None}
        call("save", "l", [{"sku": "s", "qty": 2}])
        assert call("get", "l", type=list[Line]) == [{"sku": "s", "qty": 2}]
        assert call("get_item", "o", type=Order).value == Order(7, ["a"])
        assert call("get_bulk", ["o"], type=Order)["o"].value == Order(7, ["a"])
        call("save", "bad", {"id": "seven", "tags": []})
        call.fails(PayloadError, match=r"\$\.id")("get", "bad", type=Order)
        caught = call.fails(BulkError)("get_bulk", ["o", "bad"], type=Order)
        assert list(caught.failed) == ["bad"]
        assert caught.result["o"].value == Order(7, ["a"])
        assert call("get", "absent", type=Order) is None

    def test_none_is_a_value(self, call: Call) -> None:
        assert call("get_item", "k") is None
        call("save", "k", None)
        assert call("get", "k") is None
        item = call("get_item", "k")
        assert item is not None
        assert item.value is None

    def test_large_value(self, call: Call) -> None:
        data = uuid.uuid4().bytes * 65_536  # 1 MiB
        call("save", "k", data)
        assert call("get", "k") == data

    def test_stores_are_apart(self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        other = harness.store("state")
        call("save", "k", 1)
        assert face.call(client.state, "get", other, "k") is None
        face.call(client.state, "save", other, "k", 2)
        assert call("get", "k") == 1

    def test_another_client_sees_it(self, call: Call, face: Face, store: str, harness: Harness) -> None:
        second = harness.client()
        call("save", "k", "v")
        assert face.call(second.state, "get", store, "k") == "v"

    # -- keys ---------------------------------------------------------------

    # fmt: off
    KEYS = (
        "k", "a b", "a/b", "a:b", "a|b", "a\\b", "100%", "100%25", "under_score", "*", "[a-z]?",
        "'; DROP TABLE state; --", '"quoted"', "line\r\nbreak", "\t", "é", "e\u0301", "漢字", "🎉", "K", "..", "../k",
        "%2e%2e", "\x01", "\x7f", "x" * 1024, "ü" * 512,
    )
    # fmt: on

    def test_keys_are_literal(self, call: Call) -> None:
        for number, key in enumerate(self.KEYS):
            call("save", key, number)
        for number, key in enumerate(self.KEYS):
            assert call("get", key) == number, repr(key)
        found = call("get_bulk", self.KEYS)
        assert {key: item.value for key, item in found.items()} == {key: i for i, key in enumerate(self.KEYS)}
        call("delete", "*")
        assert call("get", "*") is None
        assert call("get", "[a-z]?") is not None

    @pytest.mark.parametrize("key", ["", "x" * 1025, "ü" * 513, "a\0b", "a||b", "||", "\ud800", 7, None, b"k"])
    def test_bad_keys_are_refused(self, call: Call, key: Any) -> None:
        refused = call.fails(InvalidArgumentError, match="key")
        for method, *arguments in (("get", key), ("get_item", key), ("save", key, 1), ("delete", key)):
            refused(method, *arguments)
        refused("get_bulk", ["fine", key])
        refused("delete_bulk", [key])
        call.fails(BulkError)("save_bulk", {key: 1})

    # -- deleting -----------------------------------------------------------

    def test_delete(self, call: Call) -> None:
        call("delete", "never-written")
        call("save", "k", 1)
        call("delete", "k")
        assert call("get", "k") is None
        assert call("get_item", "k") is None
        call("delete", "k")
        call("save", "k", 2)
        assert call("get", "k") == 2

    # -- bulk ---------------------------------------------------------------

    def test_bulk(self, call: Call) -> None:
        items = {f"k{number}": {"n": number} for number in range(7)}
        call("save_bulk", items)
        found = call("get_bulk", [*items, "missing"])
        assert {key: item.value for key, item in found.items()} == items
        assert all(isinstance(item, StateItem) and item.key == key for key, item in found.items())
        call("delete_bulk", ["k0", "k1", "missing"])
        assert sorted(call("get_bulk", list(items))) == [f"k{number}" for number in range(2, 7)]
        assert call("get_bulk", []) == {}
        call("save_bulk", {})
        call("delete_bulk", [])

    def test_bulk_of_many(self, call: Call) -> None:
        items = {f"key-{number:04}": number for number in range(1200)}
        call("save_bulk", items)
        found = call("get_bulk", list(items))
        assert {key: item.value for key, item in found.items()} == items

    def test_bulk_tries_every_item(self, call: Call) -> None:
        caught = call.fails(BulkError)("save_bulk", {"good": 1, "bad": {1, 2}, "fine": 2})
        assert list(caught.failed) == ["bad"]
        assert isinstance(caught.failed["bad"], PayloadError)
        assert call("get", "good") == 1
        assert call("get", "fine") == 2
        call.fails(InvalidArgumentError, match="list")("get_bulk", "one-key")

    @requires("state.etag")
    def test_bulk_with_a_stale_etag(self, call: Call, harness: Harness) -> None:
        call("save_bulk", {"a": 1, "b": 1})
        good = call("get_item", "a").etag
        items = [StateItem(key="a", value=2, etag=good), StateItem(key="b", value=2, etag=harness.bad_etag)]
        caught = call.fails(BulkError)("save_bulk", items)
        assert list(caught.failed) == ["b"]
        assert isinstance(caught.failed["b"], ConflictError)
        assert caught.code == "ABORTED"
        assert call("get", "a") == 2
        assert call("get", "b") == 1

    # -- listing ------------------------------------------------------------

    @requires("state.list_keys")
    def test_list_keys(self, call: Call) -> None:
        keys = ["a", "a%", "a_b", "ab", "a\\", "b", "b\U0010ffff", "b\U0010ffffz", "ÿ", "\ud7ff", "\ue000", "🎉"]
        call("save_bulk", dict.fromkeys(keys, 1))
        in_order = sorted(keys, key=lambda key: key.encode())
        assert call("list_keys") == in_order
        for prefix in ("a", "a%", "a_", "a\\", "b", "b\U0010ffff", "\ud7ff", "z"):
            expected = [key for key in in_order if key.startswith(prefix)]
            assert call("list_keys", prefix) == expected, repr(prefix)
        page = call("list_keys", limit=5)
        assert page == in_order[:5]
        call("delete", page[2])
        assert call("list_keys", limit=100, after=page[-1]) == in_order[5:]
        assert call("list_keys", "a", after="a%") == [
            key for key in in_order if key.startswith("a") and key.encode() > b"a%" and key != page[2]
        ]
        for bad in ({"limit": 0}, {"limit": True}, {"after": ""}, {"prefix": "||"}):
            call.fails(InvalidArgumentError)("list_keys", **bad)

    @requires("state.list_keys")
    def test_list_many_keys(self, call: Call) -> None:
        keys = [f"{number:05}" for number in range(1025)]
        call("save_bulk", dict.fromkeys(keys, 0))
        assert call("list_keys") == keys
        found: list[str] = []
        while page := call("list_keys", limit=100, after=found[-1] if found else None):
            found += page
        assert found == keys
