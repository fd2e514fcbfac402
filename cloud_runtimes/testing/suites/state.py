"""Conformance of a `StateDriver`, through the service."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...errors import BulkError, ClosedError, ConflictError, PayloadError, UnsupportedError
from ...state import StateItem
from ..apis import Api
from ..harness import Harness, requires
from ._base import Broken, Call, values
from ._state_order import StateOrderTests
from ._transactions import OutboxTests


class StateSuite(OutboxTests, StateOrderTests):
    """Every case of Dapr's state conformance, and those that it misses: expiry, rollback, concurrent compare-and-set, odd keys."""

    service = "state"

    # -- values ---------------------------------------------------------------

    def test_round_trip(self, call: Call, subtests: pytest.Subtests) -> None:
        for number, value in enumerate(values()):
            with subtests.test(value=value):
                call("save", f"k{number}", value)
                got = call("get", f"k{number}")
                assert got == value
                assert type(got) is type(value)

    def test_bytes_come_back_raw(self, call: Call, subtests: pytest.Subtests) -> None:
        for number, data in enumerate((b"", b"x", b"\x00\xff" * 50, b'{"json": 1}', bytes(range(256)) * 16)):
            with subtests.test(data=data):
                for given in (data, bytearray(data), memoryview(data)):
                    call("save", f"k{number}", given)
                    assert call("get", f"k{number}") == data
                item = call("get_item", f"k{number}")
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

    def test_absent_deleted_and_none(self, call: Call) -> None:
        for _ in range(2):
            assert call("get_item", "k") is None
            call("delete", "k")
        call("save", "k", None)
        assert call("get", "k") is None
        assert call("get_item", "k").value is None, "none is a value"
        call("delete", "k")
        assert call("get", "k") is None
        assert call("get_item", "k") is None
        call("save", "k", 2)
        assert call("get", "k") == 2

    def test_large_value(self, call: Call) -> None:
        data = uuid.uuid4().bytes * 65_536  # 1 MiB
        call("save", "k", data)
        assert call("get", "k") == data

    def test_stores_and_clients(self, call: Call, api: Api, harness: Harness) -> None:
        other, second = call.on(store=harness.store("state")), harness.client()
        call("save", "k", 1)
        assert other("get", "k") is None, "stores are apart"
        other("save", "k", 2)
        assert call("get", "k") == 1
        assert call.on(second)("get", "k") == 1, "clients share"
        api.call(second, "close")
        api.call(second, "close")
        call.on(second).fails(ClosedError)("get", "k")
        call.on(second).fails(ClosedError)("save", "k", 3)
        assert call("get", "k") == 1

    def test_undeclared_features_are_refused(self, call: Call) -> None:
        uses: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
            "state.etag": ("save", ("k", 1), {"etag": "x"}),
            "state.first_write": ("save", ("k", 1), {"concurrency": "first-write"}),
            "state.ttl": ("save", ("k", 1), {"ttl": 60}),
            "state.fence": ("save", ("k", 1), {"fence": 1}),
            "state.consistency": ("get", ("k",), {"consistency": "strong"}),
            "state.list_keys": ("list_keys", (), {}),
        }
        for feature, (method, arguments, options) in uses.items():
            if call.lacks(feature):
                call.fails(UnsupportedError)(method, *arguments, **options)
        if call.lacks("state.transaction"):
            with pytest.raises(UnsupportedError):
                call.plain("transaction")

    # -- keys -----------------------------------------------------------------

    # fmt: off
    KEYS = (
        "k", "a b", "a/b", "a:b", "a|b", "a\\b", "100%", "100%25", "under_score", "*", "[a-z]?",
        "'; DROP TABLE state; --", '"quoted"', "line\r\nbreak", "\t", "é", "e\u0301", "漢字", "🎉", "K", "..", "../k",
        "%2e%2e", "\x01", "\x7f", "x" * 1024, "ü" * 512,
    )
    # fmt: on

    def test_keys_are_literal(self, call: Call) -> None:
        numbers = {key: number for number, key in enumerate(self.KEYS)}
        for key, number in numbers.items():
            call("save", key, number)
        for key, number in numbers.items():
            assert call("get", key) == number, repr(key)
        assert {key: item.value for key, item in call("get_bulk", self.KEYS).items()} == numbers
        call("delete", "*")
        assert call("get", "*") is None
        assert call("get", "[a-z]?") is not None

    # -- bulk -----------------------------------------------------------------

    def test_bulk(self, call: Call) -> None:
        items = {f"k{number}": {"n": number} for number in range(7)}
        call("save_bulk", items)
        result = call("get_bulk", [*items, "missing"])
        assert {key: item.value for key, item in result.items()} == items
        assert all(isinstance(item, StateItem) and item.key == key for key, item in result.items())
        call("delete_bulk", ["k0", "k1", "missing"])
        assert sorted(call("get_bulk", list(items))) == [f"k{number}" for number in range(2, 7)]
        assert call("get_bulk", []) == {}
        call("save_bulk", {})
        call("delete_bulk", [])

    def test_bulk_of_many(self, call: Call, harness: Harness) -> None:
        items = {f"key-{number:04}": number for number in range(harness.many)}
        call("save_bulk", items)
        result = call("get_bulk", list(items))
        assert {key: item.value for key, item in result.items()} == items

    def test_bulk_tries_every_item(self, call: Call) -> None:
        caught = call.fails(BulkError)("save_bulk", {"good": 1, "bad": 1j, "fine": 2})
        assert list(caught.failed) == ["bad"]
        assert isinstance(caught.failed["bad"], PayloadError)
        assert call("get", "good") == 1
        assert call("get", "fine") == 2

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

    # -- listing --------------------------------------------------------------

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

    @requires("state.list_keys")
    def test_list_many_keys(self, call: Call, harness: Harness) -> None:
        keys = [f"{number:05}" for number in range(min(1025, harness.many))]
        call("save_bulk", dict.fromkeys(keys, 0))
        assert call("list_keys") == keys
        listed: list[str] = []
        while page := call("list_keys", limit=100, after=listed[-1] if listed else None):
            listed += page
        assert listed == keys

    # -- conditions -----------------------------------------------------------

    @requires("state.etag")
    def test_etag(self, call: Call, harness: Harness) -> None:
        call("save", "k", 1)
        first = call("get_item", "k").etag
        assert first
        assert call("get_bulk", ["k"])["k"].etag == first
        for wrong in (harness.bad_etag, "not-one-of-yours", first + "0", "é"):
            call.fails(ConflictError, match="k")("save", "k", 2, etag=wrong)
            call.fails(ConflictError)("delete", "k", etag=wrong)
        assert call("get", "k") == 1
        call("save", "k", 2, etag=first)
        second = call("get_item", "k").etag
        assert second
        assert second != first
        call.fails(ConflictError)("save", "k", 3, etag=first)
        # whatever the concurrency
        for concurrency in ("first-write", "last-write"):
            call.fails(ConflictError)("save", "k", 3, etag=first, concurrency=concurrency)
        call("delete", "k", etag=second)
        assert call("get_item", "k") is None
        call.fails(ConflictError)("save", "k", 4, etag=second)
        call.fails(ConflictError)("delete", "k", etag=second)

    @requires("state.etag")
    def test_etag_is_new_after_every_write(self, call: Call) -> None:
        seen = set()
        for _ in range(20):
            call("save", "k", "same")
            seen.add(call("get_item", "k").etag)
            call("delete", "k")
        assert len(seen) == 20

    @requires("state.etag")
    def test_concurrent_compare_and_set(self, call: Call) -> None:
        call("save", "n", 0)
        for _ in range(5):
            item = call("get_item", "n")
            outcomes = call.together(*[("save", "n", item.value + 1)] * 8, etag=item.etag)
            assert sum(outcome is None for outcome in outcomes) == 1
            assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 7
        assert call("get", "n") == 5

    @requires("state.first_write")
    def test_first_write(self, call: Call) -> None:
        call("save", "k", 1, concurrency="first-write")
        call.fails(ConflictError, match="exists")("save", "k", 2, concurrency="first-write")
        assert call("get", "k") == 1
        call("save", "k", 3, concurrency="last-write")
        call("save", "k", 4)
        assert call("get", "k") == 4
        call("delete", "k")
        outcomes = call.together(*[("save", "k", n) for n in range(6)], concurrency="first-write")
        assert sum(outcome is None for outcome in outcomes) == 1

    @requires("state.consistency")
    def test_consistency(self, call: Call) -> None:
        for consistency in ("strong", "eventual"):
            call("save", "k", consistency, consistency=consistency)
            assert call("get", "k", consistency=consistency) == consistency

    @requires("state.fence")
    def test_fence(self, call: Call) -> None:
        call("save", "k", 1, fence=5)
        call("save", "k", 2, fence=5)
        call("save", "k", 3, fence=7)
        call.fails(ConflictError, match="fence")("save", "k", 4, fence=6)
        call.fails(ConflictError, match="fence")("delete", "k", fence=6)
        assert call("get", "k") == 3
        call("delete", "k", fence=8)
        call.fails(ConflictError, match="fence")("save", "k", 5, fence=7)
        call("save", "k", 6)  # without a fence nothing is checked
        call("save", "other", 1, fence=0)

    # -- expiry ---------------------------------------------------------------

    @staticmethod
    def expiring(call: Call, ttl: float) -> Any:
        """Save ``k`` for so long, and return it; again where a busy machine was slower than that."""
        for _ in range(20):
            call("save", "k", 1, ttl=ttl)
            if (item := call("get_item", "k")) is not None:
                return item
        raise AssertionError("it is never there")

    @requires("state.ttl")
    def test_ttl(self, call: Call, harness: Harness) -> None:
        call("save", "d", 1, ttl=timedelta(hours=1))
        assert call("get_bulk", ["d"])["d"].expires_at == call("get_item", "d").expires_at
        before = datetime.now(UTC)
        item = self.expiring(call, 2)
        assert item.value == 1
        if harness.tells_expiry:
            assert item.ttl <= 2
            assert before - timedelta(seconds=1.5) < item.expires_at - timedelta(seconds=2)
            assert item.expires_at - timedelta(seconds=2) < datetime.now(UTC) + timedelta(seconds=1.5)
        else:
            assert item.ttl is None
        harness.advance(2.1)
        assert call("get", "k") is None
        assert call("get_item", "k") is None
        assert call("get_bulk", ["k", "d"]).keys() == {"d"}
        if not call.lacks("state.list_keys"):
            assert call("list_keys") == ["d"]

    @requires("state.ttl")
    def test_what_expires_and_what_does_not(self, call: Call, harness: Harness) -> None:
        call("save", "k", 1)
        assert call("get_item", "k").expires_at is None
        call("save", "k", 2, ttl=60)
        assert (call("get_item", "k").expires_at is not None) is harness.tells_expiry
        call("save", "k", 2, ttl=1)
        call("save", "k", 3)  # a save without an expiry clears it
        call("save", "never", 3, {"ttlInSeconds": "-1"})
        call("save", "by metadata", 1, {"ttlInSeconds": "1"})
        call("save", "typed", 1, {"ttlInSeconds": "1"}, ttl=60)
        harness.advance(1.2)
        assert [call("get", key) for key in ("k", "never", "by metadata", "typed")] == [3, 3, None, 1]
        assert call("get_item", "k").expires_at is None

    @requires("state.ttl", "state.etag", "state.first_write")
    def test_what_expired_is_absent_for_conditions(self, call: Call, harness: Harness) -> None:
        etag = self.expiring(call, 1).etag
        harness.advance(1.2)
        call.fails(ConflictError)("save", "k", 2, etag=etag)
        call.fails(ConflictError)("delete", "k", etag=etag)
        call("save", "k", 3, concurrency="first-write")
        assert call("get", "k") == 3

    # -- transactions ---------------------------------------------------------

    @requires("state.transaction")
    def test_transaction(self, call: Call) -> None:
        call("save", "gone", 1)
        with call.opened("transaction") as tx:
            tx.save("a", {"n": 1})
            tx.save("b", b"\x00")
            for key in ("gone", "never-was"):
                tx.delete(key)
            for key, value in (("c", 1), ("d", 1), ("d", 2)):
                tx.save(key, value)
            tx.delete("c")
            assert call("get", "a") is None
        assert [call("get", key) for key in ("a", "b", "gone", "c", "d")] == [{"n": 1}, b"\x00", None, None, 2]
        with pytest.raises(ClosedError):
            tx.save("e", 1)
        with call.opened("transaction"):
            pass  # nothing to send
        with pytest.raises(Broken):
            with call.opened("transaction") as tx:
                tx.save("e", 1)
                raise Broken
        assert call("get", "e") is None

    @requires("state.transaction", "state.transaction_etag")
    def test_a_failed_transaction_rolls_back(self, call: Call, harness: Harness) -> None:
        call("save", "k", 1)
        call("save", "d", 1)
        with pytest.raises(ConflictError, match="k"):
            with call.opened("transaction") as tx:
                tx.save("new", 1)
                tx.delete("d")
                tx.save("k", 2, etag=harness.bad_etag)
                tx.save("late", 1)
        result = call("get_bulk", ["new", "d", "k", "late"])
        assert {key: item.value for key, item in result.items()} == {"d": 1, "k": 1}
        etag = call("get_item", "k").etag
        with call.opened("transaction") as tx:
            tx.save("k", 2, etag=etag)
            tx.save("once", 1, concurrency="first-write")
        assert call("get", "k") == 2
        with pytest.raises(ConflictError):
            with call.opened("transaction") as tx:
                tx.save("k", 3)
                tx.save("once", 2, concurrency="first-write")
        assert call("get", "k") == 2
