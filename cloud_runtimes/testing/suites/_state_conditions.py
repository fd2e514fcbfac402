"""Conformance of a `StateDriver`: conditions, expiry, transactions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import ClosedError, ConflictError, InvalidArgumentError
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, Suite

__all__ = ["ConditionTests"]


class ConditionTests(Suite):
    """ETags, fencing and expiry; transactions apply whole or not at all."""

    # -- etags --------------------------------------------------------------

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
        call.fails(InvalidArgumentError, match="etag")("save", "k", 4, etag="")

    @requires("state.etag")
    def test_etag_is_new_after_every_write(self, call: Call) -> None:
        seen = set()
        for _ in range(20):
            call("save", "k", "same")
            seen.add(call("get_item", "k").etag)
            call("delete", "k")
        assert len(seen) == 20

    @requires("state.etag")
    def test_concurrent_compare_and_set(self, call: Call, client: CloudRuntimesClient, face: Face, store: str) -> None:
        call("save", "n", 0)
        for _ in range(5):
            item = call("get_item", "n")
            attempts = [(client.state, "save", (store, "n", item.value + 1), {"etag": item.etag})] * 8
            outcomes = face.together(attempts)
            assert sum(outcome is None for outcome in outcomes) == 1
            assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 7
        assert call("get", "n") == 5

    @requires("state.first_write")
    def test_first_write(self, call: Call, client: CloudRuntimesClient, face: Face, store: str) -> None:
        call("save", "k", 1, concurrency="first-write")
        call.fails(ConflictError, match="exists")("save", "k", 2, concurrency="first-write")
        assert call("get", "k") == 1
        call("save", "k", 3, concurrency="last-write")
        call("save", "k", 4)
        assert call("get", "k") == 4
        call("delete", "k")
        outcomes = face.together(
            [(client.state, "save", (store, "k", n), {"concurrency": "first-write"}) for n in range(6)]
        )
        assert sum(outcome is None for outcome in outcomes) == 1
        call.fails(InvalidArgumentError, match="concurrency")("save", "k", 1, concurrency="best-write")

    @requires("state.consistency")
    def test_consistency(self, call: Call) -> None:
        for consistency in ("strong", "eventual"):
            call("save", "k", consistency, consistency=consistency)
            assert call("get", "k", consistency=consistency) == consistency
        call.fails(InvalidArgumentError, match="consistency")("get", "k", consistency="weak")

    # -- expiry -------------------------------------------------------------

    @requires("state.ttl")
    def test_ttl(self, call: Call, harness: Harness) -> None:
        call("save", "k", 1, ttl=2)
        call("save", "d", 1, ttl=timedelta(hours=1))
        item = call("get_item", "k")
        assert item.value == 1
        if harness.tells_expiry:
            assert 0 < item.ttl <= 2
            assert abs((item.expires_at - datetime.now(UTC)).total_seconds() - 2) < 1.5
        else:
            assert item.ttl is None
        assert call("get_bulk", ["k"])["k"].expires_at == item.expires_at
        harness.advance(2.1)
        assert call("get", "k") is None
        assert call("get_item", "k") is None
        assert call("get_bulk", ["k", "d"]).keys() == {"d"}
        if not call.lacks("state.list_keys"):
            assert call("list_keys") == ["d"]

    @requires("state.ttl")
    def test_ttl_none_clears(self, call: Call, harness: Harness) -> None:
        call("save", "k", 1)
        assert call("get_item", "k").expires_at is None
        call("save", "k", 2, ttl=1)
        assert (call("get_item", "k").expires_at is not None) is harness.tells_expiry
        call("save", "k", 3)
        call("save", "m", 3, {"ttlInSeconds": "-1"})
        harness.advance(1.2)
        assert call("get", "k") == 3
        assert call("get_item", "k").expires_at is None
        assert call("get", "m") == 3

    @requires("state.ttl")
    def test_ttl_by_metadata(self, call: Call, harness: Harness) -> None:
        call("save", "k", 1, {"ttlInSeconds": "1"})
        call("save", "typed", 1, {"ttlInSeconds": "1"}, ttl=60)
        harness.advance(1.2)
        assert call("get", "k") is None
        assert call("get", "typed") == 1
        call.fails(InvalidArgumentError, match="ttlInSeconds")("save", "k", 1, {"ttlInSeconds": "foo"})

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), "5", True, timedelta(0)])
    def test_bad_ttl_is_refused(self, call: Call, ttl: Any) -> None:
        call.fails(InvalidArgumentError, match="ttl")("save", "k", 1, ttl=ttl)
        assert call("get_item", "k") is None

    @requires("state.ttl", "state.etag", "state.first_write")
    def test_what_expired_is_absent_for_conditions(self, call: Call, harness: Harness) -> None:
        call("save", "k", 1, ttl=1)
        etag = call("get_item", "k").etag
        harness.advance(1.2)
        call.fails(ConflictError)("save", "k", 2, etag=etag)
        call.fails(ConflictError)("delete", "k", etag=etag)
        call("save", "k", 3, concurrency="first-write")
        assert call("get", "k") == 3

    # -- transactions -------------------------------------------------------

    @requires("state.transaction")
    def test_transaction(self, call: Call) -> None:
        call("save", "gone", 1)
        with call.opened("transaction") as tx:
            tx.save("a", {"n": 1})
            tx.save("b", b"\x00")
            tx.delete("gone")
            tx.delete("never-was")
            assert call("get", "a") is None
        assert call("get", "a") == {"n": 1}
        assert call("get", "b") == b"\x00"
        assert call("get", "gone") is None
        with pytest.raises(ClosedError):
            tx.save("c", 1)
        with call.opened("transaction"):
            pass  # nothing to send

    @requires("state.transaction")
    def test_transaction_order(self, call: Call) -> None:
        call("save", "k1", 0)
        with call.opened("transaction") as tx:
            tx.delete("k1")
            tx.save("k2", 1)
            tx.delete("k2")
            tx.save("k3", 1)
            tx.save("k3", 2)
        assert [call("get", key) for key in ("k1", "k2", "k3")] == [None, None, 2]

    @requires("state.transaction")
    def test_an_exception_sends_nothing(self, call: Call) -> None:
        with pytest.raises(RuntimeError, match="mine"):
            with call.opened("transaction") as tx:
                tx.save("a", 1)
                raise RuntimeError("mine")
        assert call("get", "a") is None

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
        found = call("get_bulk", ["new", "d", "k", "late"])
        assert {key: item.value for key, item in found.items()} == {"d": 1, "k": 1}
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

    # -- fencing ------------------------------------------------------------

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
        for bad in (-1, 2**63, True, "7"):
            call.fails(InvalidArgumentError, match="fence")("save", "k", 1, fence=bad)
