"""Conformance of a `ConfigurationDriver`: subscriptions and their handlers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ...client import CloudRuntimesClient
from ...configuration import ConfigurationSubscription
from ...errors import InvalidArgumentError
from ..faces import Face
from ..harness import Harness, requires
from ._configuration import QUIET, TWENTY, ConfigurationCases, Items, gather, receive, silent, values

__all__ = ["ChangeTests"]


class ChangeTests(ConfigurationCases):
    """What changes arrives, coalesced, in the end the last."""

    # -- subscribing --------------------------------------------------------

    @requires("configuration.subscribe")
    def test_subset_all_and_everything(
        self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str
    ) -> None:
        """Three subscribers: some keys, all keys by name, an empty list."""
        some = ["one.key0", "one.key1", "two.key0"]
        subs = [
            face.call(client.configuration, "subscribe_configuration", filled, keys)
            for keys in (some, list(TWENTY), [])
        ]
        subset, listed, everything = subs
        # all current values first
        assert receive(face, subset) == {key: TWENTY[key] for key in some}
        assert receive(face, listed) == TWENTY
        assert receive(face, everything) == TWENTY
        # an update: each gets exactly its own
        harness.configure(client, filled, {"one.key0": "new", "two.key9": "new"})
        assert gather(face, subset, {"one.key0": "new"}) == {"one.key0": "new"}
        assert gather(face, listed, {"one.key0": "new", "two.key9": "new"}) == {"one.key0": "new", "two.key9": "new"}
        assert gather(face, everything, {"two.key9": "new"}) == {"one.key0": "new", "two.key9": "new"}
        # added keys reach only the one that asked for everything
        harness.configure(client, filled, {"added": "1"})
        assert receive(face, everything) == {"added": "1"}
        silent(face, subset, listed)
        # a delete
        harness.configure(client, filled, {"one.key1": None})
        for sub in subs:
            assert receive(face, sub) == {"one.key1": None}
        silent(face, *subs)
        # unsubscribing: one after the other falls silent, the others still get theirs
        for number in range(3):
            face.call(subs[number], "close")
            harness.configure(client, filled, {"one.key0": f"round {number}", "one.key1": f"round {number}"})
            for later in subs[number + 1 :]:
                wanted = {"one.key0": f"round {number}", "one.key1": f"round {number}"}
                assert gather(face, later, dict(wanted)) == wanted
            for ended in subs[: number + 1]:
                assert face.call(ended, "receive", QUIET) is None

    @requires("configuration.subscribe")
    def test_a_key_that_is_not_there_yet(
        self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str
    ) -> None:
        with face.opened(face.call(client.configuration, "subscribe_configuration", filled, ["later"])) as sub:
            assert receive(face, sub) == {}, "the first are the current values, though there are none"
            self.put(harness, client, filled, later="here")
            assert receive(face, sub) == {"later": "here"}
            self.put(harness, client, filled, later=None)
            assert receive(face, sub) == {"later": None}
            self.put(harness, client, filled, later="")
            if harness.empty_settings:
                assert receive(face, sub) == {"later": ""}
            else:
                silent(face, sub)

    @requires("configuration.subscribe")
    def test_changes_before_the_first_take_are_not_told_apart(
        self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str
    ) -> None:
        keys = ["one.key0", "one.key1", "short"]
        with face.opened(face.call(client.configuration, "subscribe_configuration", filled, keys)) as sub:
            harness.configure(client, filled, {"one.key0": "new", "one.key1": None, "short": "lived"})
            assert face.until(lambda: values(sub.current()) == {"one.key0": "new", "short": "lived"})
            harness.configure(client, filled, {"short": None})
            assert face.until(lambda: "short" not in sub.current())
            assert receive(face, sub) == {"one.key0": "new"}
            silent(face, sub)

    @requires("configuration.subscribe")
    def test_values_coalesce_and_the_last_arrives(
        self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str
    ) -> None:
        with face.opened(face.call(client.configuration, "subscribe_configuration", filled, ["one.key0"])) as sub:
            receive(face, sub)
            for number in range(50):
                harness.configure(client, filled, {"one.key0": str(number)})
            assert gather(face, sub, {"one.key0": "49"}) == {"one.key0": "49"}
            silent(face, sub)

    @requires("configuration.subscribe")
    def test_current(self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        sub = face.call(client.configuration, "subscribe_configuration", filled)
        assert values(sub.current()) == TWENTY, "filled on return"
        harness.configure(client, filled, {"one.key0": None, "more": "1"})
        after = {key: value for key, value in TWENTY.items() if key != "one.key0"} | {"more": "1"}
        assert face.until(lambda: values(sub.current()) == after)
        sub.current().clear()
        assert values(sub.current()) == after, "a copy"
        face.call(sub, "close")
        assert values(sub.current()) == after

    @requires("configuration.subscribe")
    def test_receive_waits_no_longer_than_asked(self, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        with face.opened(face.call(client.configuration, "subscribe_configuration", filled)) as sub:
            assert len(receive(face, sub)) == 20
            assert face.call(sub, "receive", 0) is None
            assert face.call(sub, "receive", 0.05) is None
            for bad in (-1, float("nan"), "5", True):
                face.fails(InvalidArgumentError, match="timeout")(sub, "receive", bad)

    @requires("configuration.subscribe")
    def test_iteration(self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        sub = face.call(client.configuration, "subscribe_configuration", filled, ["one.key0"])
        seen = []
        if face.name == "sync":
            for items in sub:
                seen.append(items["one.key0"].value)
                if len(seen) == 2:
                    sub.close()
                else:
                    harness.configure(client, filled, {"one.key0": "new"})
        else:

            class Loop:
                async def run_async(self) -> None:
                    import asyncio

                    async for items in sub:
                        seen.append(items["one.key0"].value)
                        if len(seen) == 2:
                            await sub.close_async()
                        else:
                            await asyncio.to_thread(harness.configure, client, filled, {"one.key0": "new"})

            face.call(Loop(), "run")
        assert seen == ["one.key-0", "new"]
        face.call(sub, "wait")

    # -- handlers -----------------------------------------------------------

    def handled(
        self, client: CloudRuntimesClient, face: Face, store: str, body: Callable[[Items], Any], *keys: str
    ) -> Any:
        """Subscribe with a handler of the face, as a block."""
        return face.opened(face.call(client.configuration, "subscribe_configuration", store, keys, face.handler(body)))

    @requires("configuration.subscribe")
    def test_a_handler(self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        seen: list[dict[str, str | None]] = []
        with self.handled(client, face, filled, lambda items: seen.append(values(items)), "one.key0") as sub:
            assert face.until(lambda: seen == [{"one.key0": "one.key-0"}])
            self.put(harness, client, filled, **{"one.key0": "new"})
            assert face.until(lambda: seen[1:] == [{"one.key0": "new"}])
            self.put(harness, client, filled, **{"one.key0": None})
            assert face.until(lambda: seen[2:] == [{"one.key0": None}])
            face.fails(InvalidArgumentError, match="has a handler")(sub, "receive", 0)
        self.put(harness, client, filled, **{"one.key0": "after the end"})
        face.pause(QUIET)
        assert len(seen) == 3

    @requires("configuration.subscribe")
    def test_an_async_handler_of_a_sync_subscribe(
        self, harness: Harness, client: CloudRuntimesClient, filled: str
    ) -> None:
        seen: list[Any] = []
        where: set[str] = set()
        came = threading.Event()

        async def handler(items: Items) -> None:
            seen.append(values(items))
            where.add(threading.current_thread().name)
            came.set()

        with client.configuration.subscribe_configuration(filled, ["one.key0"], handler):
            assert came.wait(10)
            came.clear()
            self.put(harness, client, filled, **{"one.key0": "new"})
            assert came.wait(10)
        assert seen == [{"one.key0": "one.key-0"}, {"one.key0": "new"}]
        assert where == {"cloud-runtimes-loop"}

    @requires("configuration.subscribe")
    def test_a_handler_that_fails_gets_it_again(
        self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str
    ) -> None:
        seen: list[dict[str, str | None]] = []

        def body(items: Items) -> None:
            seen.append(values(items))
            if len(seen) in (1, 2, 4):
                raise ValueError("not today")

        with self.handled(client, face, filled, body, "one.key0", "one.key1"):
            assert face.until(lambda: len(seen) == 3)
            assert seen[0] == seen[1] == seen[2] == {"one.key0": "one.key-0", "one.key1": "one.key-1"}
            self.put(harness, client, filled, **{"one.key1": None})
            assert face.until(lambda: len(seen) == 5)
            assert seen[3] == seen[4] == {"one.key1": None}
            face.pause(QUIET)
            assert len(seen) == 5

    @requires("configuration.subscribe")
    def test_a_handler_may_close(self, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        made: list[ConfigurationSubscription] = []
        seen: list[int] = []
        ready = threading.Event()

        def close(items: Items) -> None:
            ready.wait(10)
            seen.append(len(items))
            made[0].close()

        async def close_async(items: Items) -> None:
            import asyncio

            while not ready.is_set():
                await asyncio.sleep(0.001)
            seen.append(len(items))
            await made[0].close_async()

        handler: Any = close if face.name == "sync" else close_async
        made.append(face.call(client.configuration, "subscribe_configuration", filled, (), handler, timeout=20))
        ready.set()
        face.call(made[0], "wait")
        assert face.until(lambda: seen == [20])
        face.call(made[0], "close", timeout=5)
