"""Conformance of a `ConfigurationDriver`: reading and writing."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...configuration import ConfigurationItem
from ...errors import InvalidArgumentError, UnsupportedError
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call
from ._configuration import TWENTY, ConfigurationCases, gather, receive, silent, values

__all__ = ["ItemTests"]


class ItemTests(ConfigurationCases):
    """Values, versions, tags; groups and labels; atomic saves."""

    # -- reading ------------------------------------------------------------

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

    def test_odd_values(self, call: Call, harness: Harness, client: CloudRuntimesClient, store: str) -> None:
        odd = {"json": '{"a": 1}', "lines": "a\nb\tc", "text": "grüße 漢字 🎉", "true": "true", "number": "1.50"}
        harness.configure(client, store, {**odd, "empty": ""})
        empty = {"empty": ""} if harness.empty_settings else {}
        assert call("get_configuration") == odd | empty

    def test_odd_keys(self, call: Call, harness: Harness, client: CloudRuntimesClient, store: str) -> None:
        odd = {"a b": "1", "ключ": "2", "k'\";--%_*": "3", "K": "4", "k": "5", "x" * 1024: "6", "a:b": "7"}
        if harness.slashes:
            odd["a/b"] = "8"
        else:
            with pytest.raises(UnsupportedError, match="a/b") as caught:
                harness.configure(client, store, {"a/b": "8"})
            assert not caught.value.maybe_applied
        harness.configure(client, store, odd)
        assert call("get_configuration") == odd
        for key, value in odd.items():
            assert call("get_configuration", [key]) == {key: value}

    def test_another_client_sees_it(self, harness: Harness, face: Face, filled: str) -> None:
        assert face.call(harness.client().configuration, "get_configuration", filled) == TWENTY

    def test_stores_are_apart(self, harness: Harness, client: CloudRuntimesClient, face: Face, filled: str) -> None:
        other = harness.store("configuration")
        self.put(harness, client, other, only="here")
        assert face.call(client.configuration, "get_configuration", other) == {"only": "here"}
        assert face.call(client.configuration, "get_configuration", filled) == TWENTY

    # -- writing ------------------------------------------------------------

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
        assert call("get_configuration") == {"a": "again", "b": "2"}

    @requires("configuration.write")
    def test_a_delete_takes_no_other(self, call: Call) -> None:
        others = {"time": "1", "timeouts": "2", "timeout.long": "3", "timeoutx": "4", "x.timeout": "5"}
        call("save_configuration", {**others, "timeout": "0", "timeout_ms": "6"})
        call("delete_configuration", ["timeout", "timeout_ms"])
        assert call("get_configuration") == others

    @requires("configuration.write")
    def test_nothing_to_do(self, call: Call) -> None:
        call("save_configuration", {"a": "1"})
        call("save_configuration", {})
        call("save_configuration", [])
        call("delete_configuration", [])
        assert call("get_configuration") == {"a": "1"}

    @requires("configuration.write")
    def test_what_was_read_can_be_saved(self, call: Call) -> None:
        """An old version does not hinder: a save is unconditional."""
        call("save_configuration", {"a": "1"})
        items = call("get_configuration_items")
        call("save_configuration", {"a": "2"})
        call("save_configuration", items.values())
        assert call("get_configuration") == {"a": "1"}

    @requires("configuration.write")
    def test_the_last_of_one_key_counts(self, call: Call) -> None:
        pair = [ConfigurationItem("a", "1"), ConfigurationItem("a", "2")]
        call("save_configuration", pair)
        assert call("get_configuration") == {"a": "2"}

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

    @requires("configuration.write", "configuration.tags")
    @requires("configuration.subscribe")
    def test_tags(self, call: Call, face: Face) -> None:
        item = ConfigurationItem("a", "1", tags={"owner": "ops", "ü": ""})
        call("save_configuration", [item])
        assert call("get_configuration_items")["a"].tags == item.tags
        with face.opened(call("subscribe_configuration")) as sub:
            assert face.call(sub, "receive", 10)["a"].tags == item.tags
            call("save_configuration", {"a": "1"})
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
                face.fails(InvalidArgumentError, match=what)(
                    service, "save_configuration", store, [refused], **{what: "green"}
                )

    @requires("configuration.write", "configuration.atomic")
    @requires("configuration.subscribe")
    def test_a_save_is_one_change(self, call: Call, harness: Harness, face: Face, store: str) -> None:
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
        with face.opened(call("subscribe_configuration")) as sub:
            thread.start()
            while not stop.is_set():
                got = call("get_configuration")
                halves += [got] if len(set(got.values())) > 1 else []
                items = face.call(sub, "receive", 0.01)
                current = {item.value for item in sub.current().values()}
                halves += [items] if items and len(set(values(items).values())) > 1 else []
                halves += [current] if len(current) > 1 else []
            thread.join()
            assert not halves
            assert face.until(lambda: set(values(sub.current()).values()) == {"39"})
