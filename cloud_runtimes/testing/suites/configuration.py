"""Conformance of a `ConfigurationDriver`, through the service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...configuration import ConfigurationItem, ConfigurationSubscription
from ...errors import ClosedError, InvalidArgumentError, UnsupportedError
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite

Items = dict[str, ConfigurationItem]
Values = dict[str, str | None]
Put = Callable[[Values], None]

QUIET = 0.2
"""Seconds in which nothing comes, where nothing may."""
TWENTY = {f"{name}{number}": f"{name}-{number}" for name in ("one.key", "two.key") for number in range(10)}


def values(items: Items | None) -> Values:
    """Return key → value, ``None``: deleted."""
    assert items is not None, "nothing came in time"
    for key, item in items.items():
        assert item.key == key
        assert not item.deleted or item.value == ""
    return {key: None if item.deleted else item.value for key, item in items.items()}


def receive(api: Api, sub: ConfigurationSubscription) -> Values:
    """Return what comes next."""
    return values(api.call(sub, "receive", 10))


def gather(api: Api, sub: ConfigurationSubscription, wanted: Values) -> Values:
    """Return what comes until these last values have; all of it merged."""
    values: Values = {}
    while any(values.get(key, "absent") != value for key, value in wanted.items()):
        values |= receive(api, sub)
    return values


def silent(api: Api, first: ConfigurationSubscription, *others: ConfigurationSubscription) -> None:
    """Nothing comes to any of them in the same time."""
    assert api.call(first, "receive", QUIET) is None
    for each in others:
        assert api.call(each, "receive", 0.01) is None


class ConfigurationSuite(Suite):
    """Every case of Dapr's configuration conformance, and what it misses: coalescing, atomic saves, groups and labels, ends."""

    service = "configuration"

    @pytest.fixture
    def put(self, harness: Harness, client: CloudRuntimesClient, store: str) -> Put:
        """Change values, whoever may."""
        return partial(harness.configure, client, store)

    @pytest.fixture
    def filled(self, put: Callable[[Any], None], store: str) -> str:
        """A store with twenty keys."""
        put(TWENTY)
        return store

    # -- reading --------------------------------------------------------------

    def test_get(self, call: Call, filled: str) -> None:
        assert call("get_configuration") == call("get_configuration", []) == TWENTY
        wanted = list(TWENTY)[:5]
        assert call("get_configuration", wanted) == {key: TWENTY[key] for key in wanted}
        assert call("get_configuration", keys=("one.key3",)) == {"one.key3": "one.key-3"}
        assert call("get_configuration", ["one.key3"] * 2) == {"one.key3": "one.key-3"}
        assert call("get_configuration", ["absent"]) == {}
        assert call("get_configuration", ["absent", "two.key1"]) == {"two.key1": "two.key-1"}

    def test_items(self, call: Call, filled: str) -> None:
        items = call("get_configuration_items", ["one.key1", "absent"])
        assert list(items) == ["one.key1"]
        item = items["one.key1"]
        assert (item.key, item.value, item.deleted) == ("one.key1", "one.key-1", False)
        assert (item.group, item.label, dict(item.tags)) == (None, None, {})
        assert len(call("get_configuration_items")) == 20

    def test_odd_values(self, call: Call, harness: Harness, put: Put) -> None:
        odd: Values = {"json": '{"a": 1}', "lines": "a\nb\tc", "text": "grüße 漢字 🎉", "true": "true", "n": "1.50"}
        put({**odd, "empty": ""})
        assert call("get_configuration") == odd | ({"empty": ""} if harness.empty_settings else {})

    def test_odd_keys(self, call: Call, harness: Harness, put: Put) -> None:
        odd: Values = {"a b": "1", "ключ": "2", "k'\";--%_*": "3", "K": "4", "k": "5", "x" * 1024: "6", "a:b": "7"}
        if not harness.odd_settings:
            for key in ("a b", "ключ", "k*"):
                with pytest.raises(InvalidArgumentError, match=key.replace("*", r"\*")):
                    call("get_configuration", [key])
            odd = {"K": "4", "k": "5", "x" * 512: "6", "a_b.c-d": "7"}
        if harness.slashes:
            odd["a/b"] = "8"
        else:
            with pytest.raises(UnsupportedError, match="a/b") as caught:
                put({"a/b": "8"})
            assert not caught.value.maybe_applied
        put(odd)
        assert call("get_configuration") == odd
        for key, value in odd.items():
            assert call("get_configuration", [key]) == {key: value}

    def test_stores_and_clients(self, call: Call, harness: Harness, client: CloudRuntimesClient, filled: str) -> None:
        other = harness.store("configuration")
        harness.configure(client, other, {"only": "here"})
        assert call.on(store=other)("get_configuration") == {"only": "here"}, "stores are apart"
        for each in (call, call.on(harness.client())):
            assert each("get_configuration") == TWENTY

    # -- writing --------------------------------------------------------------

    @requires("configuration.write")
    def test_save_and_delete(self, call: Call) -> None:
        assert call("get_configuration") == {}
        call("save_configuration", {"a": "1", "b": "2"})
        call("save_configuration", [ConfigurationItem("a", "3"), ConfigurationItem("c", "")])
        assert call("get_configuration") == {"a": "3", "b": "2", "c": ""}
        call("delete_configuration", ["a", "never", "c"])
        assert call("get_configuration") == {"b": "2"}
        call("delete_configuration", ["a"])
        call("save_configuration", {"a": "again"})
        call("save_configuration", {})
        call("save_configuration", [])
        call("delete_configuration", [])
        assert call("get_configuration") == {"a": "again", "b": "2"}

    @requires("configuration.write")
    def test_a_delete_takes_no_other(self, call: Call) -> None:
        others = {"time": "1", "timeouts": "2", "timeout.long": "3", "timeoutx": "4", "x.timeout": "5"}
        call("save_configuration", {**others, "timeout": "0", "timeout_ms": "6"})
        call("delete_configuration", ["timeout", "timeout_ms"])
        assert call("get_configuration") == others

    @requires("configuration.write")
    def test_the_last_save_counts(self, call: Call) -> None:
        call("save_configuration", {"a": "1"})
        items = call("get_configuration_items")
        call("save_configuration", {"a": "2"})
        call("save_configuration", items.values())  # though of an old version: a save is unconditional
        assert call("get_configuration") == {"a": "1"}
        call("save_configuration", [ConfigurationItem("a", "3"), ConfigurationItem("a", "4")])
        assert call("get_configuration") == {"a": "4"}

    @requires("configuration.write", "configuration.version")
    def test_versions_differ(self, call: Call) -> None:
        def version(key: str) -> Any:
            return call("get_configuration_items")[key].version

        seen = []
        for value in ("1", "2"):
            call("save_configuration", {"a": value, "b": value})
            seen.append(version("a"))
        # what is stored as it is already may count as a change, or as none
        call("save_configuration", {"a": "2"})
        again = version("a")
        call("delete_configuration", ["a"])
        before = version("b")
        call("save_configuration", {"a": "1"})
        seen.append(version("a"))
        assert all(isinstance(each, str) and each for each in seen)
        assert len(set(seen)) == 3
        assert again not in (seen[0], seen[2])
        assert version("b") == before

    @requires("configuration.write", "configuration.tags", "configuration.subscribe")
    def test_tags(self, call: Call, api: Api) -> None:
        item = ConfigurationItem("a", "1", tags={"owner": "ops", "ü": ""})
        call("save_configuration", [item])
        assert call("get_configuration_items")["a"].tags == item.tags
        with call.opened("subscribe_configuration") as sub:
            assert api.call(sub, "receive", 10)["a"].tags == item.tags
            call("save_configuration", {"a": "1"})
            assert api.call(sub, "receive", 10)["a"].tags == {}

    @requires("configuration.write", "configuration.subscribe")
    @pytest.mark.parametrize(
        "what",
        [pytest.param(each, marks=pytest.mark.requires(f"configuration.{each}")) for each in ("group", "label")],
    )
    def test_groups_and_labels_are_namespaces(self, call: Call, api: Api, what: str) -> None:
        blue: Any = {what: "blue"}
        with call.opened("subscribe_configuration") as plain, call.opened("subscribe_configuration", **blue) as other:
            assert receive(api, plain) == receive(api, other) == {}
            call("save_configuration", {"a": "plain"})
            assert receive(api, plain) == {"a": "plain"}
            both: Values = {"a": "blue", "b": "blue"}
            call("save_configuration", both, **blue)
            assert gather(api, other, both) == both
            silent(api, plain)
            assert call("get_configuration") == {"a": "plain"}
            assert call("get_configuration", ["a"], **blue) == {"a": "blue"}
            item = call("get_configuration_items", ["a"], **blue)["a"]
            assert getattr(item, what) == "blue"
            call("delete_configuration", ["a"], **blue)
            assert receive(api, other) == {"a": None}
            assert call("get_configuration") == {"a": "plain"}
            # an item's own goes with it
            call("save_configuration", [item, ConfigurationItem("c", "plain")])
            assert call("get_configuration", **blue) == both
            assert call("get_configuration") == {"a": "plain", "c": "plain"}
            for name in ("blue", "*", ""):
                given: Any = {what: name}
                refused = ConfigurationItem("d", "1", **given)
                call.fails(InvalidArgumentError, match=what)("save_configuration", [refused], **{what: "green"})

    @requires("configuration.write", "configuration.atomic", "configuration.subscribe")
    def test_a_save_is_one_change(self, call: Call, harness: Harness, api: Api) -> None:
        """Neither a reader nor a subscriber ever sees half of one."""
        keys = [f"k{number}" for number in range(50)]
        stop = threading.Event()
        halves: list[Any] = []
        writer = call.on(harness.client())

        def write() -> None:
            for number in range(40):
                writer.plain("save_configuration", dict.fromkeys(keys, str(number)))
            stop.set()

        thread = threading.Thread(target=write)
        with call.opened("subscribe_configuration") as sub:
            thread.start()
            while not stop.is_set():
                seen = call("get_configuration"), values(api.call(sub, "receive", 0.01) or {}), values(sub.current())
                halves += [each for each in seen if len(set(each.values())) > 1]
            thread.join()
            assert not halves
            assert api.until(lambda: set(values(sub.current()).values()) == {"39"})

    # -- subscribing ----------------------------------------------------------

    @requires("configuration.subscribe")
    def test_subset_all_and_everything(self, call: Call, put: Put, api: Api, filled: str) -> None:
        """Three subscribers: some keys, all keys by name, an empty list."""
        some = ["one.key0", "one.key1", "two.key0"]
        subs = [call("subscribe_configuration", keys) for keys in (some, list(TWENTY), [])]
        subset, listed, everything = subs
        # all current values first
        assert receive(api, subset) == {key: TWENTY[key] for key in some}
        assert receive(api, listed) == receive(api, everything) == TWENTY
        # an update: each gets exactly its own
        new: Values = {"one.key0": "new", "two.key9": "new"}
        put(new)
        assert gather(api, subset, {"one.key0": "new"}) == {"one.key0": "new"}
        assert gather(api, listed, new) == gather(api, everything, new) == new
        # added keys reach only the one that asked for everything
        put({"added": "1"})
        assert receive(api, everything) == {"added": "1"}
        silent(api, subset, listed)
        # a delete
        put({"one.key1": None})
        for sub in subs:
            assert receive(api, sub) == {"one.key1": None}
        silent(api, *subs)
        # unsubscribing: one after the other falls silent, the others still get theirs
        for number in range(3):
            api.call(subs[number], "close")
            wanted: Values = {"one.key0": f"round {number}", "one.key1": f"round {number}"}
            put(wanted)
            for later in subs[number + 1 :]:
                assert gather(api, later, wanted) == wanted
            for ended in subs[: number + 1]:
                assert api.call(ended, "receive", QUIET) is None

    @requires("configuration.subscribe")
    def test_a_key_that_is_not_there_yet(self, call: Call, put: Put, api: Api, harness: Harness, filled: str) -> None:
        with call.opened("subscribe_configuration", ["later"]) as sub:
            assert receive(api, sub) == {}, "the first are the current values, though there are none"
            for value in ("here", None):
                put({"later": value})
                assert receive(api, sub) == {"later": value}
            put({"later": ""})
            if harness.empty_settings:
                assert receive(api, sub) == {"later": ""}
            else:
                silent(api, sub)

    @requires("configuration.subscribe")
    def test_values_coalesce_and_the_last_arrives(self, call: Call, put: Put, api: Api, filled: str) -> None:
        with call.opened("subscribe_configuration", ["one.key0", "one.key1", "short"]) as sub:
            put({"one.key0": "new", "one.key1": None, "short": "lived"})
            assert api.until(lambda: values(sub.current()) == {"one.key0": "new", "short": "lived"})
            put({"short": None})
            assert api.until(lambda: "short" not in sub.current())
            assert receive(api, sub) == {"one.key0": "new"}, "changes before the first take are not told apart"
            silent(api, sub)
            for number in range(50):
                put({"one.key0": str(number)})
            assert gather(api, sub, {"one.key0": "49"}) == {"one.key0": "49"}
            silent(api, sub)

    @requires("configuration.subscribe")
    def test_current_and_closing(self, call: Call, put: Put, api: Api, filled: str) -> None:
        sub = call("subscribe_configuration")
        assert values(sub.current()) == receive(api, sub) == TWENTY, "filled on return"
        put({"one.key0": None, "more": "1"})
        after = {key: value for key, value in TWENTY.items() if key != "one.key0"} | {"more": "1"}
        assert api.until(lambda: values(sub.current()) == after)
        sub.current().clear()
        assert values(sub.current()) == after, "a copy"
        for _ in range(2):
            api.call(sub, "close")
        assert api.call(sub, "receive", 5) is None
        api.call(sub, "wait")
        assert list(sub) == []
        assert values(sub.current()) == after

    @requires("configuration.subscribe")
    def test_the_client_closes_it(self, call: Call, harness: Harness, api: Api, filled: str) -> None:
        client = harness.client()
        sub = call.on(client)("subscribe_configuration")
        api.call(client, "close")
        assert api.call(sub, "receive", 5) is None
        api.call(sub, "wait")
        call.on(client).fails(ClosedError)("get_configuration")

    # -- what is not there ----------------------------------------------------

    def test_undeclared_features_are_refused(self, call: Call, filled: str) -> None:
        item = ConfigurationItem("a", "1", tags={"t": "1"})
        uses: dict[str, list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = {
            "write": [("save_configuration", ({"a": "1"},), {}), ("delete_configuration", (["a"],), {})],
            "tags": [("save_configuration", ([item],), {})],
            "group": [("get_configuration", (), {"group": "g"}), ("subscribe_configuration", (), {"group": "g"})],
            "label": [("get_configuration_items", (), {"label": "l"}), ("subscribe_configuration", (), {"label": "l"})],
            "subscribe": [("subscribe_configuration", (), {})],
        }
        for feature, calls in uses.items():
            if call.lacks(f"configuration.{feature}"):
                for method, arguments, options in calls:
                    error = call.fails(UnsupportedError)(method, *arguments, **options)
                    assert (error.component, error.operation) == (filled, method)
                    assert not error.maybe_applied
        assert call("get_configuration") == TWENTY
