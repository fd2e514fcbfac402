"""Conformance of a `ConfigurationDriver`, through the service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...configuration import ConfigurationItem, ConfigurationSubscription
from ...errors import ClosedError, InvalidArgumentError, UnsupportedError
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite

__all__ = ["ConfigurationSuite"]

Items = dict[str, ConfigurationItem]

QUIET = 0.2
"""Seconds in which nothing comes, where nothing may."""
TWENTY = {f"{name}{number}": f"{name}-{number}" for name in ("one.key", "two.key") for number in range(10)}


def values(items: Items | None) -> dict[str, str | None]:
    """Return key → value, ``None``: deleted."""
    assert items is not None, "nothing came in time"
    for key, item in items.items():
        assert item.key == key
        assert not item.deleted or item.value == ""
    return {key: None if item.deleted else item.value for key, item in items.items()}


def receive(face: Face, sub: ConfigurationSubscription) -> dict[str, str | None]:
    """Return what comes next."""
    return values(face.call(sub, "receive", 10))


def gather(face: Face, sub: ConfigurationSubscription, wanted: dict[str, str | None]) -> dict[str, str | None]:
    """Return what comes until these last values have; all of it merged."""
    found: dict[str, str | None] = {}
    while any(found.get(key, "absent") != value for key, value in wanted.items()):
        found |= receive(face, sub)
    return found


def silent(face: Face, first: ConfigurationSubscription, *others: ConfigurationSubscription) -> None:
    """Nothing comes to any of them in the same time."""
    assert face.call(first, "receive", QUIET) is None
    for each in others:
        assert face.call(each, "receive", 0.01) is None


class ConfigurationSuite(Suite):
    """Every case of Dapr's configuration conformance, and what it misses: coalescing, atomic saves, groups and labels, handlers, ends."""

    service = "configuration"

    def put(self, harness: Harness, client: CloudRuntimesClient, store: str, **changed: str | None) -> None:
        """Change values, whoever may."""
        harness.configure(client, store, changed)

    @pytest.fixture
    def filled(self, harness: Harness, client: CloudRuntimesClient, store: str) -> str:
        """A store with twenty keys."""
        harness.configure(client, store, TWENTY)
        return store

    # -- reading ----------------------------------------------------------

    def test_get_by_keys(self, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        wanted = list(TWENTY)[:5]
        got = face.call(client.configuration, "get_configuration", filled, wanted)
        assert got == {key: TWENTY[key] for key in wanted}
        one = face.call(client.configuration, "get_configuration", filled, keys=("one.key3",))
        assert one == {"one.key3": "one.key-3"}
        twice = face.call(client.configuration, "get_configuration", filled, ["one.key3"] * 2)
        assert twice == one

    def test_get_without_keys_is_all(self, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        assert face.call(client.configuration, "get_configuration", filled) == TWENTY
        assert face.call(client.configuration, "get_configuration", filled, []) == TWENTY

    def test_absent_keys_are_left_out(self, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        assert face.call(client.configuration, "get_configuration", filled, ["absent"]) == {}
        got = face.call(client.configuration, "get_configuration", filled, ["absent", "two.key1"])
        assert got == {"two.key1": "two.key-1"}

    def test_items(self, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        items = face.call(client.configuration, "get_configuration_items", filled, ["one.key1", "absent"])
        assert list(items) == ["one.key1"]
        item = items["one.key1"]
        assert (item.key, item.value, item.group, item.label, item.deleted) == (
            "one.key1",
            "one.key-1",
            None,
            None,
            False,
        )
        assert dict(item.tags) == {}
        assert len(face.call(client.configuration, "get_configuration_items", filled)) == 20

    def test_odd_values(self, harness: Harness, client: CloudRuntimesClient, face: Face, store: str) -> None:
        odd = {
            "json": '{"a": 1}',
            "lines": "a\nb\tc",
            "text": "grüße 漢字 🎉",
            "true": "true",
            "number": "1.50",
        }
        harness.configure(client, store, {**odd, "empty": ""})
        empty = {"empty": ""} if harness.empty_settings else {}
        assert face.call(client.configuration, "get_configuration", store) == odd | empty

    def test_odd_keys(self, harness: Harness, client: CloudRuntimesClient, face: Face, store: str) -> None:
        odd = {"a b": "1", "ключ": "2", "k'\";--%_*": "3", "K": "4", "k": "5", "x" * 1024: "6", "a:b": "7"}
        if harness.slashes:
            odd["a/b"] = "8"
        else:
            with pytest.raises(UnsupportedError, match="a/b") as caught:
                harness.configure(client, store, {"a/b": "8"})
            assert not caught.value.maybe_applied
        harness.configure(client, store, odd)
        assert face.call(client.configuration, "get_configuration", store) == odd
        for key, value in odd.items():
            assert face.call(client.configuration, "get_configuration", store, [key]) == {key: value}

    def test_another_client_sees_it(self, harness: Harness, face: Face, filled: str) -> None:
        assert face.call(harness.client().configuration, "get_configuration", filled) == TWENTY

    def test_stores_are_apart(self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        other = harness.store("configuration")
        self.put(harness, client, other, only="here")
        assert face.call(client.configuration, "get_configuration", other) == {"only": "here"}
        assert face.call(client.configuration, "get_configuration", filled) == TWENTY

    # -- writing ----------------------------------------------------------

    @requires("configuration.write")
    def test_save_and_delete(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        assert face.call(client.configuration, "get_configuration", store) == {}
        face.call(client.configuration, "save_configuration", store, {"a": "1", "b": "2"})
        face.call(
            client.configuration, "save_configuration", store, [ConfigurationItem("a", "3"), ConfigurationItem("c", "")]
        )
        assert face.call(client.configuration, "get_configuration", store) == {"a": "3", "b": "2", "c": ""}
        face.call(client.configuration, "delete_configuration", store, ["a", "never", "c"])
        assert face.call(client.configuration, "get_configuration", store) == {"b": "2"}
        face.call(client.configuration, "delete_configuration", store, ["a"])
        face.call(client.configuration, "save_configuration", store, {"a": "again"})
        assert face.call(client.configuration, "get_configuration", store) == {"a": "again", "b": "2"}

    @requires("configuration.write")
    def test_a_delete_takes_no_other(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        others = {"time": "1", "timeouts": "2", "timeout.long": "3", "timeoutx": "4", "x.timeout": "5"}
        face.call(client.configuration, "save_configuration", store, {**others, "timeout": "0", "timeout_ms": "6"})
        face.call(client.configuration, "delete_configuration", store, ["timeout", "timeout_ms"])
        assert face.call(client.configuration, "get_configuration", store) == others

    @requires("configuration.write")
    def test_nothing_to_do(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.configuration, "save_configuration", store, {"a": "1"})
        face.call(client.configuration, "save_configuration", store, {})
        face.call(client.configuration, "save_configuration", store, [])
        face.call(client.configuration, "delete_configuration", store, [])
        assert face.call(client.configuration, "get_configuration", store) == {"a": "1"}

    @requires("configuration.write")
    def test_what_was_read_can_be_saved(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        """An old version does not hinder: a save is unconditional."""
        face.call(client.configuration, "save_configuration", store, {"a": "1"})
        items = face.call(client.configuration, "get_configuration_items", store)
        face.call(client.configuration, "save_configuration", store, {"a": "2"})
        face.call(client.configuration, "save_configuration", store, items.values())
        assert face.call(client.configuration, "get_configuration", store) == {"a": "1"}

    @requires("configuration.write")
    def test_the_last_of_one_key_counts(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        pair = [ConfigurationItem("a", "1"), ConfigurationItem("a", "2")]
        face.call(client.configuration, "save_configuration", store, pair)
        assert face.call(client.configuration, "get_configuration", store) == {"a": "2"}

    @requires("configuration.write", "configuration.version")
    def test_versions_differ(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        def version(key: str) -> Any:
            return face.call(client.configuration, "get_configuration_items", store)[key].version

        seen = []
        for value in ("1", "1", "2"):
            face.call(client.configuration, "save_configuration", store, {"a": value, "b": value})
            seen.append(version("a"))
        face.call(client.configuration, "delete_configuration", store, ["a"])
        before = version("b")
        face.call(client.configuration, "save_configuration", store, {"a": "1"})
        seen.append(version("a"))
        assert all(isinstance(each, str) and each for each in seen)
        assert len(set(seen)) == 4
        assert version("b") == before

    @requires("configuration.write", "configuration.tags")
    @requires("configuration.subscribe")
    def test_tags(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        item = ConfigurationItem("a", "1", tags={"owner": "ops", "ü": ""})
        face.call(client.configuration, "save_configuration", store, [item])
        assert face.call(client.configuration, "get_configuration_items", store)["a"].tags == item.tags
        with face.opened(face.call(client.configuration, "subscribe_configuration", store)) as sub:
            assert face.call(sub, "receive", 10)["a"].tags == item.tags
            face.call(client.configuration, "save_configuration", store, {"a": "1"})
            assert face.call(sub, "receive", 10)["a"].tags == {}

    @requires("configuration.write", "configuration.group")
    @requires("configuration.subscribe")
    def test_groups_are_namespaces(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        self.namespaces(client, face, store, "group")

    @requires("configuration.write", "configuration.label")
    @requires("configuration.subscribe")
    def test_labels_are_variants(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        self.namespaces(client, face, store, "label")

    def namespaces(self, client: CloudRuntimesClient, face: Face, store: str, what: str) -> None:
        """What holds of groups and labels alike."""
        service = client.configuration
        blue: Any = {what: "blue"}

        def named(name: str) -> ConfigurationItem:
            given: Any = {what: name}
            return ConfigurationItem("d", "1", **given)

        plain = face.call(service, "subscribe_configuration", store)
        other = face.call(service, "subscribe_configuration", store, **blue)
        with face.opened(plain), face.opened(other):
            assert receive(face, plain) == receive(face, other) == {}
            face.call(service, "save_configuration", store, {"a": "plain"})
            assert receive(face, plain) == {"a": "plain"}
            face.call(service, "save_configuration", store, {"a": "blue", "b": "blue"}, **blue)
            both: dict[str, str | None] = {"a": "blue", "b": "blue"}
            assert gather(face, other, both) == both
            silent(face, plain)
            assert face.call(service, "get_configuration", store) == {"a": "plain"}
            assert face.call(service, "get_configuration", store, ["a"], **blue) == {"a": "blue"}
            item = face.call(service, "get_configuration_items", store, ["a"], **blue)["a"]
            assert getattr(item, what) == "blue"
            face.call(service, "delete_configuration", store, ["a"], **blue)
            assert receive(face, other) == {"a": None}
            assert face.call(service, "get_configuration", store) == {"a": "plain"}
            # an item's own goes with it
            face.call(service, "save_configuration", store, [item, ConfigurationItem("c", "plain")])
            assert face.call(service, "get_configuration", store, **blue) == {"a": "blue", "b": "blue"}
            assert face.call(service, "get_configuration", store) == {"a": "plain", "c": "plain"}
            for refused in (item, named("*"), named("")):
                with pytest.raises(InvalidArgumentError, match=what):
                    face.call(service, "save_configuration", store, [refused], **{what: "green"})

    @requires("configuration.write", "configuration.atomic")
    @requires("configuration.subscribe")
    def test_a_save_is_one_change(self, harness: Harness, client: CloudRuntimesClient, face: Face, store: str) -> None:
        """Neither a reader nor a subscriber ever sees half of one."""
        keys = [f"k{number}" for number in range(50)]
        stop = threading.Event()
        halves: list[Any] = []
        writer = harness.client()

        def write() -> None:
            for number in range(40):
                writer.configuration.save_configuration(store, dict.fromkeys(keys, str(number)))
            stop.set()

        thread = threading.Thread(target=write)
        with face.opened(face.call(client.configuration, "subscribe_configuration", store)) as sub:
            thread.start()
            while not stop.is_set():
                got = face.call(client.configuration, "get_configuration", store)
                halves += [got] if len(set(got.values())) > 1 else []
                items = face.call(sub, "receive", 0.01)
                current = {item.value for item in sub.current().values()}
                halves += [items] if items and len(set(values(items).values())) > 1 else []
                halves += [current] if len(current) > 1 else []
            thread.join()
            assert not halves
            assert face.until(lambda: set(values(sub.current()).values()) == {"39"})

    # -- subscribing ------------------------------------------------------

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
                with pytest.raises(InvalidArgumentError, match="timeout"):
                    face.call(sub, "receive", bad)

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

    # -- handlers ---------------------------------------------------------

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
            with pytest.raises(InvalidArgumentError, match="has a handler"):
                face.call(sub, "receive", 0)
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
        with pytest.raises(ClosedError):
            face.call(client.configuration, "get_configuration", filled)

    def test_bad_arguments(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        service = client.configuration
        for keys in ("key", [""], ["a||b"], ["\0"], ["x" * 1025], [5], ["\ud800"]):
            for method in (
                "get_configuration",
                "get_configuration_items",
                "delete_configuration",
                "subscribe_configuration",
            ):
                with pytest.raises(InvalidArgumentError, match="key") as caught:
                    face.call(service, method, store, keys)
                assert (caught.value.service, caught.value.operation) == ("configuration", method)
        for bad in (
            {"group": ""},
            {"label": "*"},
            {"group": 5},
            {"label": "\n"},
            {"timeout": 0},
            {"metadata": {"a": 1}},
        ):
            with pytest.raises(InvalidArgumentError, match=next(iter(bad))):
                face.call(service, "get_configuration", store, **bad)
        with pytest.raises(InvalidArgumentError, match="handler must be callable"):
            face.call(service, "subscribe_configuration", store, (), "print")
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
            with pytest.raises(InvalidArgumentError):
                face.call(service, "save_configuration", store, items)

    def test_no_value_stands_in_a_message(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for items in ({"a": ["sesame"]}, {"a": b"sesame"}, {"a": "sesame\ud800"}):
            with pytest.raises(InvalidArgumentError) as caught:
                face.call(client.configuration, "save_configuration", store, items)
            assert "sesame" not in str(caught.value)

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
                    with pytest.raises(UnsupportedError) as caught:
                        face.call(client.configuration, method, filled, *arguments, **options)
                    assert (caught.value.component, caught.value.operation) == (filled, method)
                    assert not caught.value.maybe_applied
        assert face.call(client.configuration, "get_configuration", filled) == TWENTY
