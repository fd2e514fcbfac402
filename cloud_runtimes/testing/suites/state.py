"""Conformance of a `StateDriver`, through the service."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

import pytest

from ...client import CloudRuntimesClient
from ...errors import BulkError, ClosedError, ConflictError, InvalidArgumentError, PayloadError, UnsupportedError
from ...state import StateItem
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite, values

__all__ = ["StateSuite"]


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


class StateSuite(Suite):
    """Every case of Dapr's state conformance, and those that it misses: expiry, rollback, concurrent compare-and-set, odd keys."""

    service = "state"

    # -- values -----------------------------------------------------------

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

    # -- keys -------------------------------------------------------------

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

    # -- deleting ---------------------------------------------------------

    def test_delete(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "delete", store, "never-written")
        face.call(client.state, "save", store, "k", 1)
        face.call(client.state, "delete", store, "k")
        assert face.call(client.state, "get", store, "k") is None
        assert face.call(client.state, "get_item", store, "k") is None
        face.call(client.state, "delete", store, "k")
        face.call(client.state, "save", store, "k", 2)
        assert face.call(client.state, "get", store, "k") == 2

    # -- bulk -------------------------------------------------------------

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

    # -- etags ------------------------------------------------------------

    @requires("state.etag")
    def test_etag(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.state, "save", store, "k", 1)
        first = face.call(client.state, "get_item", store, "k").etag
        assert first
        assert face.call(client.state, "get_bulk", store, ["k"])["k"].etag == first
        for wrong in (harness.bad_etag, "not-one-of-yours", first + "0", "é"):
            with pytest.raises(ConflictError, match="k"):
                face.call(client.state, "save", store, "k", 2, etag=wrong)
            with pytest.raises(ConflictError):
                face.call(client.state, "delete", store, "k", etag=wrong)
        assert face.call(client.state, "get", store, "k") == 1
        face.call(client.state, "save", store, "k", 2, etag=first)
        second = face.call(client.state, "get_item", store, "k").etag
        assert second
        assert second != first
        with pytest.raises(ConflictError):
            face.call(client.state, "save", store, "k", 3, etag=first)
        # whatever the concurrency
        for concurrency in ("first-write", "last-write"):
            with pytest.raises(ConflictError):
                face.call(client.state, "save", store, "k", 3, etag=first, concurrency=concurrency)
        face.call(client.state, "delete", store, "k", etag=second)
        assert face.call(client.state, "get_item", store, "k") is None
        with pytest.raises(ConflictError):
            face.call(client.state, "save", store, "k", 4, etag=second)
        with pytest.raises(ConflictError):
            face.call(client.state, "delete", store, "k", etag=second)
        with pytest.raises(InvalidArgumentError, match="etag"):
            face.call(client.state, "save", store, "k", 4, etag="")

    @requires("state.etag")
    def test_etag_is_new_after_every_write(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        seen = set()
        for _ in range(20):
            face.call(client.state, "save", store, "k", "same")
            seen.add(face.call(client.state, "get_item", store, "k").etag)
            face.call(client.state, "delete", store, "k")
        assert len(seen) == 20

    @requires("state.etag")
    def test_concurrent_compare_and_set(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "save", store, "n", 0)
        for _ in range(5):
            item = face.call(client.state, "get_item", store, "n")
            attempts = [(client.state, "save", (store, "n", item.value + 1), {"etag": item.etag})] * 8
            outcomes = face.together(attempts)
            assert sum(outcome is None for outcome in outcomes) == 1
            assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 7
        assert face.call(client.state, "get", store, "n") == 5

    @requires("state.first_write")
    def test_first_write(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "save", store, "k", 1, concurrency="first-write")
        with pytest.raises(ConflictError, match="exists"):
            face.call(client.state, "save", store, "k", 2, concurrency="first-write")
        assert face.call(client.state, "get", store, "k") == 1
        face.call(client.state, "save", store, "k", 3, concurrency="last-write")
        face.call(client.state, "save", store, "k", 4)
        assert face.call(client.state, "get", store, "k") == 4
        face.call(client.state, "delete", store, "k")
        outcomes = face.together(
            [(client.state, "save", (store, "k", n), {"concurrency": "first-write"}) for n in range(6)]
        )
        assert sum(outcome is None for outcome in outcomes) == 1
        with pytest.raises(InvalidArgumentError, match="concurrency"):
            face.call(client.state, "save", store, "k", 1, concurrency="best-write")

    @requires("state.consistency")
    def test_consistency(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for consistency in ("strong", "eventual"):
            face.call(client.state, "save", store, "k", consistency, consistency=consistency)
            assert face.call(client.state, "get", store, "k", consistency=consistency) == consistency
        with pytest.raises(InvalidArgumentError, match="consistency"):
            face.call(client.state, "get", store, "k", consistency="weak")

    # -- expiry -----------------------------------------------------------

    @requires("state.ttl")
    def test_ttl(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.state, "save", store, "k", 1, ttl=2)
        face.call(client.state, "save", store, "d", 1, ttl=timedelta(hours=1))
        item = face.call(client.state, "get_item", store, "k")
        assert item.value == 1
        if harness.tells_expiry:
            assert 0 < item.ttl <= 2
            assert abs((item.expires_at - datetime.now(UTC)).total_seconds() - 2) < 1.5
        else:
            assert item.ttl is None
        assert face.call(client.state, "get_bulk", store, ["k"])["k"].expires_at == item.expires_at
        harness.advance(2.1)
        assert face.call(client.state, "get", store, "k") is None
        assert face.call(client.state, "get_item", store, "k") is None
        assert face.call(client.state, "get_bulk", store, ["k", "d"]).keys() == {"d"}
        if client.supports("state.list_keys", store):
            assert face.call(client.state, "list_keys", store) == ["d"]

    @requires("state.ttl")
    def test_ttl_none_clears(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.state, "save", store, "k", 1)
        assert face.call(client.state, "get_item", store, "k").expires_at is None
        face.call(client.state, "save", store, "k", 2, ttl=1)
        assert (face.call(client.state, "get_item", store, "k").expires_at is not None) is harness.tells_expiry
        face.call(client.state, "save", store, "k", 3)
        face.call(client.state, "save", store, "m", 3, {"ttlInSeconds": "-1"})
        harness.advance(1.2)
        assert face.call(client.state, "get", store, "k") == 3
        assert face.call(client.state, "get_item", store, "k").expires_at is None
        assert face.call(client.state, "get", store, "m") == 3

    @requires("state.ttl")
    def test_ttl_by_metadata(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.state, "save", store, "k", 1, {"ttlInSeconds": "1"})
        face.call(client.state, "save", store, "typed", 1, {"ttlInSeconds": "1"}, ttl=60)
        harness.advance(1.2)
        assert face.call(client.state, "get", store, "k") is None
        assert face.call(client.state, "get", store, "typed") == 1
        with pytest.raises(InvalidArgumentError, match="ttlInSeconds"):
            face.call(client.state, "save", store, "k", 1, {"ttlInSeconds": "foo"})

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), "5", True, timedelta(0)])
    def test_bad_ttl_is_refused(self, client: CloudRuntimesClient, face: Face, store: str, ttl: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="ttl"):
            face.call(client.state, "save", store, "k", 1, ttl=ttl)
        assert face.call(client.state, "get_item", store, "k") is None

    @requires("state.ttl", "state.etag", "state.first_write")
    def test_what_expired_is_absent_for_conditions(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        face.call(client.state, "save", store, "k", 1, ttl=1)
        etag = face.call(client.state, "get_item", store, "k").etag
        harness.advance(1.2)
        with pytest.raises(ConflictError):
            face.call(client.state, "save", store, "k", 2, etag=etag)
        with pytest.raises(ConflictError):
            face.call(client.state, "delete", store, "k", etag=etag)
        face.call(client.state, "save", store, "k", 3, concurrency="first-write")
        assert face.call(client.state, "get", store, "k") == 3

    # -- transactions -----------------------------------------------------

    @requires("state.transaction")
    def test_transaction(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "save", store, "gone", 1)
        with face.opened(client.state.transaction(store)) as tx:
            tx.save("a", {"n": 1})
            tx.save("b", b"\x00")
            tx.delete("gone")
            tx.delete("never-was")
            assert face.call(client.state, "get", store, "a") is None
        assert face.call(client.state, "get", store, "a") == {"n": 1}
        assert face.call(client.state, "get", store, "b") == b"\x00"
        assert face.call(client.state, "get", store, "gone") is None
        with pytest.raises(ClosedError):
            tx.save("c", 1)
        with face.opened(client.state.transaction(store)):
            pass  # nothing to send

    @requires("state.transaction")
    def test_transaction_order(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "save", store, "k1", 0)
        with face.opened(client.state.transaction(store)) as tx:
            tx.delete("k1")
            tx.save("k2", 1)
            tx.delete("k2")
            tx.save("k3", 1)
            tx.save("k3", 2)
        assert [face.call(client.state, "get", store, key) for key in ("k1", "k2", "k3")] == [None, None, 2]

    @requires("state.transaction")
    def test_an_exception_sends_nothing(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with pytest.raises(RuntimeError, match="mine"):
            with face.opened(client.state.transaction(store)) as tx:
                tx.save("a", 1)
                raise RuntimeError("mine")
        assert face.call(client.state, "get", store, "a") is None

    @requires("state.transaction", "state.transaction_etag")
    def test_a_failed_transaction_rolls_back(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        face.call(client.state, "save", store, "k", 1)
        face.call(client.state, "save", store, "d", 1)
        with pytest.raises(ConflictError, match="k"):
            with face.opened(client.state.transaction(store)) as tx:
                tx.save("new", 1)
                tx.delete("d")
                tx.save("k", 2, etag=harness.bad_etag)
                tx.save("late", 1)
        found = face.call(client.state, "get_bulk", store, ["new", "d", "k", "late"])
        assert {key: item.value for key, item in found.items()} == {"d": 1, "k": 1}
        etag = face.call(client.state, "get_item", store, "k").etag
        with face.opened(client.state.transaction(store)) as tx:
            tx.save("k", 2, etag=etag)
            tx.save("once", 1, concurrency="first-write")
        assert face.call(client.state, "get", store, "k") == 2
        with pytest.raises(ConflictError):
            with face.opened(client.state.transaction(store)) as tx:
                tx.save("k", 3)
                tx.save("once", 2, concurrency="first-write")
        assert face.call(client.state, "get", store, "k") == 2

    # -- listing ----------------------------------------------------------

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

    # -- fencing ----------------------------------------------------------

    @requires("state.fence")
    def test_fence(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.state, "save", store, "k", 1, fence=5)
        face.call(client.state, "save", store, "k", 2, fence=5)
        face.call(client.state, "save", store, "k", 3, fence=7)
        with pytest.raises(ConflictError, match="fence"):
            face.call(client.state, "save", store, "k", 4, fence=6)
        with pytest.raises(ConflictError, match="fence"):
            face.call(client.state, "delete", store, "k", fence=6)
        assert face.call(client.state, "get", store, "k") == 3
        face.call(client.state, "delete", store, "k", fence=8)
        with pytest.raises(ConflictError, match="fence"):
            face.call(client.state, "save", store, "k", 5, fence=7)
        face.call(client.state, "save", store, "k", 6)  # without a fence nothing is checked
        face.call(client.state, "save", store, "other", 1, fence=0)
        for bad in (-1, 2**63, True, "7"):
            with pytest.raises(InvalidArgumentError, match="fence"):
                face.call(client.state, "save", store, "k", 1, fence=bad)

    # -- what is refused --------------------------------------------------

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
