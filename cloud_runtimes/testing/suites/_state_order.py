"""Conformance of the order of an outbox (`StateDriver.oldest`), through the driver."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ..._core.arguments import HIDDEN, OUTBOX
from ...spi.operation import Method, Operation
from ...spi.state import StateWrite, StoredValue
from ..apis import Api
from ._base import Call, Suite

_OPERATION = Method("state", "suite", repeatable=False)


class Outbox:
    """Keys of an outbox, named by their ids."""

    def __init__(self, api: Api, driver: Any, name: str) -> None:
        self._api = api
        self._driver = driver
        self._prefix = f"{OUTBOX}{name}{HIDDEN}"

    def call(self, method: str, *arguments: Any) -> Any:
        return self._api.call(self._driver, method, Operation(_OPERATION, "suite", 30.0), *arguments)

    def key(self, id: str) -> str:
        return self._prefix + id

    def commit(self, *ids: str, deleted: Iterable[str] = (), beside: Iterable[StateWrite] = ()) -> None:
        """Write and delete ids in one commit, and something beside them."""
        writes = [*beside, *[StateWrite(self.key(id), id.encode(), "text/x-suite") for id in ids]]
        writes += [StateWrite(self.key(id), None) for id in deleted]
        assert not self.call("write", writes, True)

    def items(self, limit: int) -> list[tuple[str, StoredValue]]:
        return list(self.call("oldest", self._prefix, limit))

    def oldest(self, limit: int = 100) -> list[str]:
        """Return ids, each of which is the value too."""
        items = self.items(limit)
        ids = [value.data.decode() for _, value in items]
        assert [key for key, _ in items] == list(map(self.key, ids))
        return ids


class StateOrderTests(Suite):
    """Keys of an outbox come in the order of their commits, whatever their names."""

    service = "state"

    @pytest.fixture
    def driver(self, call: Call) -> Any:
        driver = call.driver()
        if not driver.has_order:
            pytest.skip("an order of hidden keys is not declared")
        return driver

    @pytest.fixture
    def outbox(self, api: Api, driver: Any) -> Outbox:
        return Outbox(api, driver, "bus")

    def test_an_outbox_is_in_the_order_of_commits(self, call: Call, outbox: Outbox) -> None:
        assert outbox.oldest() == []
        outbox.commit("m")
        outbox.commit("z", "a", "n", beside=[StateWrite("plain", b"1", "application/json")])
        outbox.commit("y", beside=[StateWrite("plain 2", b"1", "application/json", create=True)])
        outbox.commit("l", "k", beside=[StateWrite("plain 3", b"1", create=True), StateWrite("fenced", b"1", fence=3)])
        call("save", "plain", 2)
        outbox.commit("b")
        assert outbox.oldest() == ["m", "a", "n", "z", "y", "k", "l", "b"], "those of one commit by their names"
        assert outbox.oldest(5) == ["m", "a", "n", "z", "y"]
        assert outbox.oldest(3) == ["m", "a", "n"], "a commit is cut by the names of its keys"
        assert [outbox.oldest(limit) for limit in (1, 2)] == [["m"], ["m", "a"]]
        assert call("list_keys") == ["fenced", "plain", "plain 2", "plain 3"]

    def test_an_outbox_without_what_was_deleted(self, outbox: Outbox) -> None:
        outbox.commit("c")
        outbox.commit("a", "b")
        outbox.commit("d", deleted=["a", "never was"])
        assert outbox.oldest() == ["c", "b", "d"]
        outbox.commit(deleted=["d"])
        outbox.commit("a")
        assert outbox.oldest() == ["c", "b", "a"], "it was made again"
        outbox.commit(deleted=["a", "b", "c"])
        assert outbox.oldest() == []
        outbox.commit("b")
        assert outbox.oldest() == ["b"]

    def test_values_of_an_outbox(self, outbox: Outbox) -> None:
        outbox.commit("ü", "a/b *>.")
        items = outbox.items(2)
        assert [key for key, _ in items] == list(map(outbox.key, ["a/b *>.", "ü"]))
        for key, value in items:
            assert value == outbox.call("get", key, None)
            assert value.content_type == "text/x-suite"
            outbox.call("write", [StateWrite(key, None, etag=value.etag)], True)
        assert outbox.items(2) == []

    def test_outboxes_are_apart(self, call: Call, api: Api, driver: Any, outbox: Outbox) -> None:
        others = [
            Outbox(api, driver, name) for name in ("bu", "bus2", "bus with a very long name", "bus with a very long")
        ]
        for other in [*others, outbox]:
            other.commit("b")
        outbox.call("write", [StateWrite(f"{HIDDEN}inbox{HIDDEN}bus{HIDDEN}a", b"1")], True)
        call("save", "bus", 1)
        for other in [*others, outbox]:
            other.commit("a")
            assert other.oldest() == ["b", "a"]
        outbox.commit(deleted=["a", "b"])
        assert [other.oldest() for other in others] == [["b", "a"]] * len(others)
        assert outbox.oldest() == []

    def test_an_outbox_of_many(self, outbox: Outbox) -> None:
        count, together, page = 2500, 100, 70
        ids = [f"{number * 7919 % count:04}" for number in range(count)]
        commits = [ids[first : first + together] for first in range(0, count, together)]
        for some in commits:
            outbox.commit(*some)
        left = [id for some in commits for id in sorted(some)]
        assert outbox.oldest(count + 1) == left
        while left:
            oldest = outbox.oldest(page)
            assert oldest == left[:page], "a page may end within a commit"
            outbox.commit(deleted=oldest)
            left = left[page:]
            if len(left) == count - 20 * page:
                outbox.commit("late")
                left.append("late")
        assert outbox.oldest() == []
