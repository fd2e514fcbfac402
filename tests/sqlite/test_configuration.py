"""Configuration on SQLite: what only this store can get wrong: versions, tombstones, other processes, crashes."""

from __future__ import annotations

import random
import socket
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite import SqliteComponent, SqliteSettings
from cloud_runtimes.components.sqlite.sweep import TOMBSTONE_MS, TOMBSTONES, sweep
from cloud_runtimes.configuration import ConfigurationItem, ConfigurationSubscription
from cloud_runtimes.errors import ResourceExhaustedError, UnavailableError
from cloud_runtimes.testing.apis import Api, AsyncApi, SyncApi
from tests.support import Figure, Rounds
from tests.support.child import Start
from tests.support.waiting import until


class Ahead:
    """Sets the store's wall clock forward."""

    ms = 0


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    clocks = Ahead()

    class Clocks(type(SqliteComponent.clocks)):  # type: ignore[misc]
        def wall_ms(self) -> int:
            return int(super().wall_ms()) + clocks.ms

    monkeypatch.setattr(SqliteComponent, "clocks", Clocks())
    return clocks


@pytest.fixture(params=["file", ":memory:swept"])
def store(request: pytest.FixtureRequest, home: Path, ahead: Ahead) -> Iterator[CloudRuntimesClient]:
    config = {"capa": {"home": str(home) if request.param == "file" else request.param}}
    with CloudRuntimesClient(config=config, app_id="test") as client:
        yield client


def engine(client: CloudRuntimesClient) -> Any:
    return client.configuration._frame.driver("app")._engine


def sweep_all(client: CloudRuntimesClient) -> None:
    while sweep(engine(client), TOMBSTONES, SqliteSettings()):
        client.configuration.save_configuration("other", {"k": "1"})  # the sweep's job came before


def rows(client: CloudRuntimesClient) -> int:
    return int(engine(client).query(None, "SELECT count(*) FROM configuration WHERE grp = '' AND store = 1")[0][0])


def values_of(items: dict[str, ConfigurationItem] | None) -> dict[str, str | None] | None:
    return None if items is None else {key: None if item.deleted else item.value for key, item in items.items()}


Told = dict[str, str | None]


def merged(sub: ConfigurationSubscription, enough: Callable[[Told], bool]) -> Told:
    """Return all that comes until it is enough, and nothing more does."""
    changes: Told = {}
    while (items := sub.receive(0.4 if enough(changes) else 30)) is not None:
        changes |= values_of(items) or {}
    return changes


def living(changes: Told) -> Told:
    """Return those that are not deleted."""
    return {key: value for key, value in changes.items() if value is not None}


def test_tombstones_go_after_a_while(store: CloudRuntimesClient, ahead: Ahead) -> None:
    service = store.configuration
    service.save_configuration("app", {f"k{number}": "1" for number in range(500)})
    service.delete_configuration("app", [f"k{number}" for number in range(450)])
    service.save_configuration("app", {"k0": "back"})
    sweep_all(store)
    assert rows(store) == 500
    ahead.ms = TOMBSTONE_MS + 1
    service.delete_configuration("app", ["k499"])  # a fresh one
    sweep_all(store)
    assert rows(store) == 51
    remaining = {f"k{number}": "1" for number in range(450, 499)} | {"k0": "back"}
    assert service.get_configuration("app") == remaining
    with service.subscribe_configuration("app") as sub:
        assert values_of(sub.receive(5)) == remaining


def test_a_delete_that_was_swept_before_it_was_seen(
    store: CloudRuntimesClient, ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscriber that was away (a stopped process, a laptop asleep) finds no tombstone, and hears of the delete all the same."""
    service = store.configuration
    service.save_configuration("app", {"a": "1", "b": "1", "c": "1"})
    with service.subscribe_configuration("app") as sub, service.subscribe_configuration("app", ["b"]) as one:
        assert values_of(sub.receive(5)) == {"a": "1", "b": "1", "c": "1"}
        assert values_of(one.receive(5)) == {"b": "1"}
        away = True
        for each in (sub, one):
            source = each._feed._source
            real = source.look

            def look(real: Any = real) -> Any:
                if away:
                    raise UnavailableError("asleep")
                return real()

            monkeypatch.setattr(source, "look", look)
        service.delete_configuration("app", ["a", "b"])
        ahead.ms = TOMBSTONE_MS + 1
        sweep_all(store)
        assert rows(store) == 1
        service.save_configuration("app", {"b": "back"})
        service.delete_configuration("app", ["b"])
        service.save_configuration("app", {"c": "2"})
        away = False
        for each, wanted in ((sub, {"a": None, "b": None, "c": "2"}), (one, {"b": None})):
            assert merged(each, lambda changes, wanted=wanted: changes == wanted) == wanted  # type: ignore[misc]


def test_sweeping_beside_living_subscribers(store: CloudRuntimesClient, ahead: Ahead) -> None:
    """However sweeps fall between changes and looks, what a subscriber has put together is what there is."""
    service = store.configuration
    random.seed(7)
    keys = [f"k{number}" for number in range(20)]
    with service.subscribe_configuration("app") as sub, service.subscribe_configuration("app", keys[:5]) as few:
        mine: dict[str, str | None] = {}
        for number in range(300):
            some = random.sample(keys, 3)
            if number % 3:
                service.save_configuration("app", dict.fromkeys(some, str(number)))
            else:
                service.delete_configuration("app", some)
            if number % 5 == 0:
                ahead.ms += TOMBSTONE_MS + 1
                sweep(engine(store), TOMBSTONES, SqliteSettings())
            if number % 7 == 0:
                mine |= values_of(sub.receive(0)) or {}
        there = service.get_configuration("app")
        mine |= merged(sub, lambda changes: living(mine | changes) == there)
        assert living(mine) == there
        some_there = service.get_configuration("app", keys[:5])
        assert living(merged(few, lambda changes: living(changes) == some_there)) == some_there
        assert {key: item.value for key, item in sub.current().items()} == there


def test_versions_count_per_store(client: CloudRuntimesClient) -> None:
    service = client.configuration
    service.save_configuration("app", {"a": "1", "b": "1"})
    service.save_configuration("app", {"a": "1"}, group="g")
    service.save_configuration("other", {"a": "1"})
    versions = [
        service.get_configuration_items("app")["b"].version,
        service.get_configuration_items("app", group="g")["a"].version,
        service.get_configuration_items("other")["a"].version,
    ]
    assert versions == ["2", "3", "1"]


def test_state_of_the_same_name_is_another_thing(client: CloudRuntimesClient) -> None:
    client.state.save("app", "k", 1)
    client.configuration.save_configuration("app", {"k": "one"})
    assert client.state.get("app", "k") == 1
    assert client.configuration.get_configuration("app") == {"k": "one"}
    client.configuration.delete_configuration("app", ["k"])
    assert client.state.list_keys("app") == ["k"]


def test_item_metadata_is_kept(client: CloudRuntimesClient) -> None:
    item = ConfigurationItem("k", "1", tags={"t": "1"}, metadata={"m": "2"})
    client.configuration.save_configuration("app", [item], metadata={"for": "the component"})
    assert client.configuration.get_configuration_items("app")["k"].metadata == {"m": "2"}


def test_many_keys(client: CloudRuntimesClient) -> None:
    values = {f"key.{number}": str(number) for number in range(40_000)}
    client.configuration.save_configuration("app", values)
    assert client.configuration.get_configuration("app") == values
    assert client.configuration.get_configuration("app", values) == values, "one moment, however many"
    with client.configuration.subscribe_configuration("app", list(values)) as sub:
        assert values_of(sub.receive(10)) == values
    client.configuration.delete_configuration("app", values)
    assert client.configuration.get_configuration("app") == {}


def test_a_value_that_is_too_large(home: Path) -> None:
    table = {"component": "sqlite", "home": str(home), "max_value_bytes": 100}
    with CloudRuntimesClient(config={"configuration": {"app": table}}) as client:
        client.configuration.save_configuration("app", {"k": "x" * 100})
        with pytest.raises(ResourceExhaustedError, match=r"'large' has 102 bytes.*max_value_bytes") as caught:
            client.configuration.save_configuration("app", {"k": "new", "large": "ü" * 51})
        assert not caught.value.maybe_applied
        assert client.configuration.get_configuration("app") == {"k": "x" * 100}, "all or nothing"


def test_an_older_copy_of_the_file(client: CloudRuntimesClient, home: Path) -> None:
    """Versions that went back: a subscriber takes what there is now."""
    service = client.configuration
    service.save_configuration("app", {"a": "1", "b": "1"})
    with service.subscribe_configuration("app") as sub:
        sub.receive(5)
        service.save_configuration("app", {"a": "2", "c": "2"})
        assert merged(sub, lambda changes: len(changes) == 2) == {"a": "2", "c": "2"}
        connection = sqlite3.connect(home / "cloud_runtimes.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM configuration WHERE key = 'c'")
        connection.execute("UPDATE configuration SET version = 1, value = '1' WHERE key = 'a'")
        connection.execute("UPDATE configuration_versions SET version = 2")
        connection.execute("COMMIT")
        connection.close()
        assert merged(sub, lambda changes: len(changes) == 2) == {"a": "1", "c": None}


def test_subscribing_writes_nothing(client: CloudRuntimesClient, home: Path) -> None:
    client.state.save("store", "k", 1)
    with client.configuration.subscribe_configuration("app", ["k"]) as sub:
        assert sub.receive(5) == {}
        connection = sqlite3.connect(home / "cloud_runtimes.db")
        assert connection.execute("SELECT count(*) FROM stores").fetchone() == (1,)
        connection.close()
        client.configuration.save_configuration("app", {"k": "1"})
        assert values_of(sub.receive(5)) == {"k": "1"}


def test_a_socket_that_cannot_be_made(client: CloudRuntimesClient, home: Path) -> None:
    """On a disk that cannot be written, say: then the process wakes its own waiters."""
    client.configuration.save_configuration("app", {"k": "0"})
    (home / "wake").write_text("no folder")
    with client.configuration.subscribe_configuration("app") as sub:
        sub.receive(5)
        client.configuration.save_configuration("app", {"k": "1"})
        assert values_of(sub.receive(5)) == {"k": "1"}


def test_no_sockets_left(
    client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For a while there are none: the subscription goes on by itself."""
    client.configuration.save_configuration("sockets", {"k": "0"})
    remaining = 5

    def scarce(real: Callable[..., Any]) -> Callable[..., Any]:
        def make(*arguments: Any, **options: Any) -> Any:
            nonlocal remaining
            if remaining:
                remaining -= 1
                raise OSError(24, "Too many open files")
            return real(*arguments, **options)

        return make

    for name in ("socket", "socketpair"):
        monkeypatch.setattr(socket, name, scarce(getattr(socket, name)))
    with client.configuration.subscribe_configuration("sockets") as sub:
        sub.receive(5)
        until(lambda: not remaining)
        monkeypatch.undo()
        client.configuration.save_configuration("sockets", {"k": "1"})
        assert values_of(sub.receive(5)) == {"k": "1"}
    assert any("ulimit -n" in record.message for record in caplog.records)


def test_a_closed_subscription_leaves_no_socket(client: CloudRuntimesClient, home: Path) -> None:
    for _ in range(3):
        with client.configuration.subscribe_configuration("app") as sub:
            sub.receive(5)
            until(lambda: len(list(home.glob("wake/*"))) == 1)
        assert not list(home.glob("wake/*"))


# -- other processes ----------------------------------------------------------


@pytest.mark.process
def test_two_hundred_saves_of_another_process(start: Start, client: CloudRuntimesClient) -> None:
    for _ in range(3):
        writer = start("configure", 200).ready()
        seen: list[int] = []
        with client.configuration.subscribe_configuration("app", ["k"]) as sub:
            writer.go()
            while not seen or seen[-1] != 199:
                items = sub.receive(20)
                assert items is not None, f"199 did not come, but {seen[-3:]}"
                seen += [int(item.value) for item in items.values()]
            assert sub.receive(0.3) is None
        assert writer.rest() == [{"done": True}]
        first = 1 if seen[0] == 199 else 0  # what the last round left
        assert seen[first:] == sorted(seen[first:])
        client.configuration.delete_configuration("app", ["k"])


@pytest.mark.process
@pytest.mark.timing
def test_a_change_is_heard_of_in_another_process(
    start: Start, client: CloudRuntimesClient, rounds: Rounds, figure: Figure
) -> None:
    count = rounds(100, 1000)
    client.configuration.save_configuration("app", {"k": "warm"})
    waiter = start("wait_for_configuration", count).ready()
    time.sleep(0.05)
    took = []
    for _ in range(count):
        sent = time.monotonic_ns()
        client.configuration.save_configuration("app", {"k": str(sent)})
        line = waiter.line()
        assert line["value"] == str(sent)
        took.append((line["at"] - sent) / 1e6)
        time.sleep(0.003)
    p99 = statistics.quantiles(took, n=100)[98]
    figure(
        "save of configuration to the value in hand in another process",
        f"median {statistics.median(took):.2f} ms, p99 {p99:.2f} ms, save (FULL) included",
    )
    assert statistics.median(took) <= 60, "by a notification, not by the look every 250 ms"


@pytest.mark.process
def test_an_idle_subscriber_costs_little(start: Start, rounds: Rounds, figure: Figure) -> None:
    line = start("idle_configuration", rounds(3, 20)).line()
    share = line["cpu"] / line["seconds"]
    figure("an idle subscriber of configuration", f"{share:.2%} of a core")
    assert share <= 0.03


@pytest.mark.process
def test_killed_writers(start: Start, client: CloudRuntimesClient, rounds: Rounds, figure: Figure) -> None:
    """Acknowledged saves are stored and reach the subscriber, and both keys come from the same save."""
    count = rounds(3, 20)
    acknowledged = 0
    with client.configuration.subscribe_configuration("app") as sub:
        for number in range(count):
            names = [f"{number}-{side}" for side in "ab"]
            writers = {name: start("configure_until_killed", name) for name in names}
            for writer in writers.values():
                writer.ready()
            time.sleep(random.uniform(0.1, 0.4))
            last = {
                name: max((line["acked"] for line in writer.kill()), default=-1) for name, writer in writers.items()
            }
            acknowledged += sum(last.values())
            there = client.configuration.get_configuration("app")
            until(lambda: {key: item.value for key, item in sub.current().items()} == there)  # noqa: B023
            for name, value in last.items():
                pair = [there.get(f"{name}.{side}") for side in "ab"]
                assert pair[0] == pair[1], "half of a save"
                if pair[0] is None:
                    assert value == -1 or value % 10 == 9, "a delete that was not asked for"
                else:
                    assert value <= int(pair[0]) <= value + 1
    (report,) = start("check").rest()
    assert report["integrity"] == "ok"
    figure(
        f"SIGKILL of two writers of configuration, {count} rounds", f"{acknowledged:,} saves acknowledged, none lost"
    )


@pytest.mark.parametrize("api", [SyncApi, AsyncApi], ids=["sync", "async"])
def test_saving_what_is_there_is_no_change(client: CloudRuntimesClient, api: type[Api]) -> None:
    own, service = api(), client.configuration
    same = ConfigurationItem("k", "1", tags={"a": "b"}, metadata={"m": "n"})
    own.call(service, "save_configuration", "app", [same, ConfigurationItem("other", "1")])
    before = own.call(service, "get_configuration_items", "app")
    with service.subscribe_configuration("app") as sub:
        assert sub.receive(10)
        own.call(service, "save_configuration", "app", [same, ConfigurationItem("other", "1")])
        assert own.call(service, "get_configuration_items", "app") == before
        for changed in (
            {"value": "2"},
            {"value": "2", "tags": {"a": "c"}},
            {"value": "2", "metadata": {"m": "o"}},
            {"value": "2"},
        ):
            own.call(service, "save_configuration", "app", [ConfigurationItem("k", **changed), before["other"]])  # type: ignore[arg-type]
            got = sub.receive(10)
            assert got is not None
            assert list(got) == ["k"], "what did not change was handed out"
            assert int(got["k"].version or 0) > int(before["k"].version or 0)
        own.call(service, "delete_configuration", "app", ["k"])
        own.call(service, "save_configuration", "app", {"k": "2"})  # as it was before the delete
        assert own.call(service, "get_configuration", "app", ["k"]) == {"k": "2"}
    own.close()
