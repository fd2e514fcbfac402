"""Conformance of a `StateDriver`: conditions, expiry, transactions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import ClosedError, ConflictError, InvalidArgumentError
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite

__all__ = ["ConditionTests"]


class ConditionTests(Suite):
    """ETags, fencing and expiry; transactions apply whole or not at all."""

    # -- etags --------------------------------------------------------------

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

    # -- expiry -------------------------------------------------------------

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

    # -- transactions -------------------------------------------------------

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

    # -- fencing ------------------------------------------------------------

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
