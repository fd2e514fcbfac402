"""Behaviour of a subscription for its handler, for a loop and for a waiting caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes.configuration import ConfigurationItem, ConfigurationSubscription
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.suites._base import Call, Suite
from cloud_runtimes.testing.suites.configuration import QUIET, values
from tests.support.harnesses.embedded import MemoryHarness
from tests.support.harnesses.rows import rows

Items = dict[str, ConfigurationItem]
Values = dict[str, str | None]


class TestSubscriptions(Suite):
    service = "configuration"
    harness = rows({MemoryHarness.name: MemoryHarness})

    @pytest.fixture
    def put(self, call: Call) -> Callable[[dict[str, str]], None]:
        """A store with two keys; change them."""
        call("save_configuration", {"a": "1", "b": "2"})
        return lambda items: call.plain("save_configuration", items)

    def handled(self, call: Call, api: Api, body: Callable[[Items], Any], *keys: str) -> Any:
        """Subscribe with a handler of the API, as a block."""
        return call.opened("subscribe_configuration", keys, api.handler(body))

    def test_a_handler(self, call: Call, api: Api, put: Any) -> None:
        seen: list[Values] = []
        with self.handled(call, api, lambda items: seen.append(values(items)), "a") as sub:
            assert api.until(lambda: seen == [{"a": "1"}])
            put({"a": "new"})
            assert api.until(lambda: seen[1:] == [{"a": "new"}])
            call("delete_configuration", ["a"])
            assert api.until(lambda: seen[2:] == [{"a": None}])
            api.fails(InvalidArgumentError, match="has a handler")(sub, "receive", 0)
        put({"a": "after the end"})
        api.pause(QUIET)
        assert len(seen) == 3

    def test_an_async_handler_of_a_sync_subscribe(self, call: Call, put: Any) -> None:
        seen: list[tuple[Values, str]] = []
        came = threading.Event()

        async def handler(items: Items) -> None:
            seen.append((values(items), threading.current_thread().name))
            came.set()

        with call.plain("subscribe_configuration", ["a"], handler):
            assert came.wait(10)
            came.clear()
            put({"a": "new"})
            assert came.wait(10)
        assert seen == [({"a": "1"}, "cloud-runtimes-loop"), ({"a": "new"}, "cloud-runtimes-loop")]

    def test_a_handler_that_fails_gets_it_again(self, call: Call, api: Api, put: Any) -> None:
        seen: list[Values] = []

        def body(items: Items) -> None:
            seen.append(values(items))
            if len(seen) in (1, 2, 4):
                raise ValueError("not today")

        with self.handled(call, api, body, "a", "b"):
            assert api.until(lambda: len(seen) == 3)
            assert seen[0] == seen[1] == seen[2] == {"a": "1", "b": "2"}
            call("delete_configuration", ["b"])
            assert api.until(lambda: len(seen) == 5)
            assert seen[3] == seen[4] == {"b": None}
            api.pause(QUIET)
            assert len(seen) == 5

    def test_a_handler_may_close(self, call: Call, api: Api, put: Any) -> None:
        subscriptions: list[ConfigurationSubscription] = []
        seen: list[int] = []
        ready = threading.Event()

        def close(items: Items) -> None:
            ready.wait(10)
            seen.append(len(items))
            subscriptions[0].close()

        async def close_async(items: Items) -> None:
            while not ready.is_set():
                await asyncio.sleep(0.001)
            seen.append(len(items))
            await subscriptions[0].close_async()

        handler: Any = close if api.name == "sync" else close_async
        subscriptions.append(call("subscribe_configuration", (), handler, timeout=20))
        ready.set()
        api.call(subscriptions[0], "wait")
        assert api.until(lambda: seen == [2])
        api.call(subscriptions[0], "close", timeout=5)

    def test_iteration(self, call: Call, api: Api, put: Any) -> None:
        sub = call("subscribe_configuration", ["a"])
        (first,) = api.take(sub, 1)
        put({"a": "new"})
        (second,) = api.take(sub, 1)
        assert [values(first), values(second)] == [{"a": "1"}, {"a": "new"}]
        threading.Timer(0.1, sub.close).start()
        assert api.take(sub) == [], "a close ends it"
        api.call(sub, "wait")

    def test_closed_while_iterating(self, call: Call, api: Api, put: Any) -> None:
        sub = call("subscribe_configuration", ["a"])

        class Loop:
            def run(self) -> list[Values]:
                seen = []
                for items in sub:
                    seen.append(values(items))
                    sub.close()
                return seen

            async def run_async(self) -> list[Values]:
                seen = []
                async for items in sub:
                    seen.append(values(items))
                    await sub.close_async()
                return seen

        assert api.call(Loop(), "run") == [{"a": "1"}]
        api.call(sub, "wait")

    def test_receive_waits_no_longer_than_asked(self, call: Call, api: Api, put: Any) -> None:
        with call.opened("subscribe_configuration") as sub:
            assert values(api.call(sub, "receive", 10)) == {"a": "1", "b": "2"}
            assert api.call(sub, "receive", 0) is None
            assert api.call(sub, "receive", 0.05) is None
            for bad in (-1, float("nan"), "5", True):
                api.fails(InvalidArgumentError, match="timeout")(sub, "receive", bad)
