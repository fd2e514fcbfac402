"""``copy`` between a folder and PostgreSQL, both ways, on real data: nothing lost, nothing twice, whenever it was interrupted."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.schedule import TopicTarget
from tests.cli.conftest import Run
from tests.support import Rounds

BIG = bytes(range(256)) * 12_000
"""3 MiB: several chunks on PostgreSQL."""


@pytest.fixture(params=["to postgres", "to a folder"])
def ways(request: pytest.FixtureRequest, tmp_path: Path, postgres_database: str) -> tuple[str, str]:
    """Source and target."""
    folder = str(tmp_path / "folder")
    return (folder, postgres_database) if request.param == "to postgres" else (postgres_database, folder)


def _client(home: str) -> CloudRuntimesClient:
    return CloudRuntimesClient(config={"capa": {"home": home}}, app_id="shop")


def _fill(client: CloudRuntimesClient) -> None:
    """Put something of everything into a home."""
    state = client.state
    state.save("orders", "json", {"total": 12.5})
    state.save("orders", "binary", b"\x00\xff" * 100)
    state.save("orders", "text", "ü", content_type="text/plain")
    state.save("orders", "brief", 1, ttl=timedelta(hours=1))
    state.save("orders", "fenced", 1, fence=2**41)
    state.save("orders", "gone", 1, fence=2**41 + 1)
    state.delete("orders", "gone")
    state.save_bulk("many", {f"key-{number:05}": {"number": number} for number in range(1_100)})
    state.save_bulk("large", {f"key-{number}": BIG[: 1024 * 1024 + number] for number in range(5)})
    configuration = client.configuration
    configuration.save_configuration("app", {"host": "localhost", "port": "5432"})
    configuration.save_configuration("app", {"host": "other"}, group="east", label="canary")
    configuration.delete_configuration("app", ["port"])
    client.file.put_file("reports", "2026/a.bin", BIG, content_type="application/x-big", metadata={"owner": "ü"})
    client.file.put_file("reports", "empty", b"")
    client.schedule.schedule_job("nightly", schedule="0 3 * * *", data={"n": 1})
    client.schedule.schedule_job("once", due_time=datetime(2040, 1, 1, tzinfo=UTC), target=TopicTarget("bus", "orders"))
    client.admin.pause_job("once")
    client.schedule.run_now("nightly")
    _publish(client)


def _publish(client: CloudRuntimesClient) -> None:
    """Publish, and let groups settle some: of frames in part, with retries, dead letters, and what is still held."""
    pubsub = client.pubsub
    for first in range(0, 60, 20):
        pubsub.publish_bulk(
            "bus", "orders", [OutgoingEvent({"n": n}, key=f"k{n % 3}") for n in range(first, first + 20)]
        )
    with pubsub.subscribe("bus", "orders", group="all") as events:
        for _ in range(60):
            _next(events).ack()
    with pubsub.subscribe("bus", "orders", group="some", max_in_flight=25, dead_letter_topic="dead") as events:
        for number, event in enumerate([_next(events) for _ in range(25)]):
            if number % 3 == 0:
                event.ack()
            elif number % 3 == 1:
                event.drop() if number < 10 else event.retry(3_600 if number == 22 else 0)
    with pubsub.subscribe("bus", "orders", group="late", start="latest"):
        pass
    pubsub.publish_bulk("bus", "orders", [{"n": n} for n in range(60, 70)])
    with pubsub.subscribe("bus", "quiet", group="all"):
        pass
    pubsub.publish("bus", "orders", {"n": 99}, delay=3_600)
    pubsub.publish("other", "orders", b"raw", raw=True)


def _next(events: Any) -> Any:
    event = events.receive(timeout=10)
    assert event is not None
    return event


def _remaining(client: CloudRuntimesClient, group: str, count: int, topic: str = "orders") -> list[tuple[Any, ...]]:
    """Consume what a group has left, so many events: what names each one, and how often it came."""
    with client.pubsub.subscribe("bus", topic, group=group) as events:
        received = [_next(events) for _ in range(count)]
        for event in received:
            event.ack()
        assert events.receive(timeout=0.05) is None
    return sorted((event.data["n"], event.id, event.key, event.time, event.delivery_count) for event in received)


LEFT = {"all": 10, "some": 57, "late": 10, "new": 70}
"""Of topic ``orders`` after `_publish`, by group."""


def _same_left(one: CloudRuntimesClient, two: CloudRuntimesClient) -> None:
    for group, count in LEFT.items():
        assert _remaining(one, group, count) == _remaining(two, group, count)


def _picture(client: CloudRuntimesClient) -> dict[str, Any]:
    """All that can be read without consuming."""
    items: dict[str, Any] = {}
    for store in ("orders", "many", "large"):
        for item in client.state.get_bulk(store, client.state.list_keys(store), type=bytes).values():
            items[f"{store}/{item.key}"] = (item.value, item.content_type, item.etag, item.expires_at)
    return {
        "state": items,
        "configuration": [
            {key: (item.value, item.group, item.label, dict(item.tags)) for key, item in entries.items()}
            for entries in (
                client.configuration.get_configuration_items("app"),
                client.configuration.get_configuration_items("app", group="east", label="canary"),
            )
        ],
        "files": {
            info.name: (info.size, info.content_type, dict(info.metadata), client.file.get_file("reports", info.name))
            for info in client.file.list_files("reports")
        },
        "jobs": client.schedule.list_jobs(),
        # a run that waits says so only once it has waited for a while
        "runs": [
            dataclasses.replace(run, error=None) if str(run.error).startswith("no process has") else run
            for run in client.schedule.list_runs("nightly")
        ],
    }


def _rows(out: bytes) -> dict[str, list[int]]:
    """Return the table as service and name → items, written, missing, different."""
    rows = [line.split() for line in out.decode().splitlines()[1:]]
    return {" ".join(row[:2]): [int(cell.replace(",", "")) for cell in row[2:6]] for row in rows}


def test_everything_goes(cli: Run, ways: tuple[str, str]) -> None:
    source, target = ways
    with _client(source) as client:
        _fill(client)
        before = _picture(client)
    result = cli("copy", "--from", source, "--to", target)
    assert (result.code, result.err.count("error")) == (0, 0), result
    rows = _rows(result.out)
    assert rows["pubsub bus"] == [74, 74, 0, 0]  # with three dead letters, and one for later
    assert rows["state many"] == [1_100, 1_100, 0, 0]
    assert rows["state orders"] == [6, 6, 0, 0]
    again = cli("copy", "--from", source, "--to", target)
    assert again.code == 0
    assert {name: numbers[1] for name, numbers in _rows(again.out).items()} == dict.fromkeys(rows, 0)
    with _client(source) as one, _client(target) as two:
        assert _picture(two) == before
        _same_left(one, two)
        _remaining(two, "undertaker", 3, "dead")
        _check_writes(two)


def _check_writes(client: CloudRuntimesClient) -> None:
    """Later writes of an application work as if the data had always been there."""
    item = client.state.get_item("orders", "json")
    assert item is not None
    client.state.save("orders", "json", {"total": 13}, etag=item.etag)
    with pytest.raises(ConflictError):
        client.state.save("orders", "json", 1, etag=item.etag)
    for key in ("fenced", "gone"):
        with pytest.raises(ConflictError, match="fence"):
            client.state.save("orders", key, 1, fence=2**41 - 1)
    with client.lock.hold("locks", "x") as lease:  # tokens are higher than the fences that were copied
        assert lease.token is not None
        client.state.save("orders", "gone", 1, fence=lease.token)
    client.pubsub.publish("bus", "quiet", {"n": 0})
    _remaining(client, "all", 1, "quiet")


def test_what_is_published_later(cli: Run, ways: tuple[str, str]) -> None:
    source, target = ways
    with _client(source) as client:
        client.pubsub.publish("bus", "orders", {"n": 1})
        with client.pubsub.subscribe("bus", "orders", group="all") as events:
            _next(events).retry(0.5)
        client.pubsub.publish(
            "bus", "orders", {"n": 2}, delay=0.5
        )  # whoever consumes moves it into the log: nobody yet
    assert cli("copy", "--from", source, "--to", target).code == 0
    with _client(target) as client, client.pubsub.subscribe("bus", "orders", group="all") as events:
        received = [_next(events) for _ in range(2)]
        assert sorted((event.data["n"], event.delivery_count) for event in received) == [(1, 2), (2, 1)]


def test_a_group_with_an_order_goes_on_in_order(cli: Run, ways: tuple[str, str]) -> None:
    source, target = ways
    sent = [[f"k{key}", number] for number in range(40) for key in range(5)]
    with _client(source) as client:
        client.pubsub.publish_bulk("bus", "orders", [OutgoingEvent(data, data[0]) for data in sent])
        with client.pubsub.subscribe("bus", "orders", group="keyed", order="key", max_in_flight=30) as events:
            for _ in range(50):
                event = _next(events)
                if event.key != "k4":
                    event.ack()
        handled = client.pubsub.lag("bus", "orders", group="keyed")
    assert 100 < handled < 200
    assert cli("copy", "--from", source, "--to", target).code == 0
    with _client(target) as client, pytest.raises(ConflictError, match="has order"):
        client.pubsub.subscribe("bus", "orders", group="keyed")
    with _client(target) as client:
        assert client.pubsub.lag("bus", "orders", group="keyed") == handled
        client.pubsub.publish_bulk("bus", "orders", [OutgoingEvent([f"k{key}", 40], f"k{key}") for key in range(5)])
        with client.pubsub.subscribe("bus", "orders", group="keyed", order="key") as events:
            left: dict[str, list[int]] = {}
            for _ in range(handled + 5):
                event = _next(events)
                left.setdefault(event.key, []).append(event.data[1])
                event.ack()
        assert client.pubsub.lag("bus", "orders", group="keyed") == 0
    assert left["k4"] == [*range(41)]
    assert all(numbers == [*range(numbers[0], 41)] for numbers in left.values())


def test_there_and_back(cli: Run, tmp_path: Path, postgres_database: str) -> None:
    first, last = str(tmp_path / "first"), str(tmp_path / "last")
    with _client(first) as client:
        _fill(client)
        before = _picture(client)
    for source, target in ((first, postgres_database), (postgres_database, last)):
        assert cli("copy", "--from", source, "--to", target).code == 0
    # the last home knows what came from the first one, by whatever way
    rows = _rows(cli("copy", "--from", first, "--to", last).out)
    assert {name: numbers[1] for name, numbers in rows.items()} == dict.fromkeys(rows, 0)
    with _client(first) as one, _client(last) as two:
        assert _picture(two) == before
        _same_left(one, two)


_KILLED = """
import os, signal, sys
from cloud_runtimes.cli import main
from cloud_runtimes.components.{component} import portable
from cloud_runtimes.cli import _copying

left = int(sys.argv.pop(1))

def moment():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(steps):
    flow, rows = steps(), None
    try:
        while True:
            calls = flow.send(rows)
            moment()
            rows = yield calls
            moment()
    except StopIteration:
        return

write, read = portable.DatabaseTables.write, _copying.PortableFiles.read
portable.DatabaseTables.write = lambda self, op, steps: write(self, op, lambda: counted(steps))

def reading(self, name):
    for data in read(self, name):
        moment()
        yield data

_copying.PortableFiles.read = reading
sys.exit(main())
"""


@pytest.mark.process
def test_killed_in_the_middle(cli: Run, ways: tuple[str, str], rounds: Rounds) -> None:
    source, target = ways
    with _client(source) as client:
        _fill(client)
        before = _picture(client)
    script = _KILLED.format(component="postgres" if "://" in target else "sqlite")
    killed = 0
    for moment in itertools.count(3, rounds(26, 1)):  # each run comes further, to the one that comes to the end
        command = [sys.executable, "-c", script, str(moment), "copy", "--from", source, "--to", target]
        result = subprocess.run(command, capture_output=True, timeout=120)
        if result.returncode == 0:
            break
        assert result.returncode == -9, result.stderr
        killed += 1
    assert killed >= rounds(2, 8)
    with _client(source) as one, _client(target) as two:
        assert _picture(two) == before
        _same_left(one, two)


def test_the_target_is_left_as_it_is(cli: Run, ways: tuple[str, str]) -> None:
    source, target = ways
    for home, value in ((source, "old"), (target, "new")):
        with _client(home) as client:
            client.state.save("orders", "a", value)
            client.state.save("orders", "b", "same")
            client.file.put_file("reports", "a", value.encode())
    result = cli("copy", "--from", source, "--to", target)
    assert (result.code, "--overwrite" in result.err) == (1, True)
    assert _rows(result.out) == {"state orders": [2, 0, 0, 1], "file reports": [1, 0, 0, 1]}
    with _client(target) as client:
        assert client.state.get("orders", "a") == "new"
    assert cli("copy", "--from", source, "--to", target, "--overwrite").code == 0
    with _client(target) as client:
        assert (client.state.get("orders", "a"), client.file.get_file("reports", "a")) == ("old", b"old")


def test_events_do_not_go_between_others(cli: Run, ways: tuple[str, str]) -> None:
    source, target = ways
    for home in ways:
        with _client(home) as client:
            client.pubsub.publish("bus", "orders", {"n": 1})
            client.state.save("orders", home, 1)
    result = cli("copy", "--from", source, "--to", target)
    assert result.code == 4
    assert "'orders' of 'bus' has events of its own" in result.err
    with _client(target) as client:
        assert client.state.list_keys("orders") == [target]
        _remaining(client, "all", 1)


def test_what_consumers_did_since_is_not_undone(cli: Run, ways: tuple[str, str]) -> None:
    source, target = ways
    with _client(source) as client:
        _publish(client)
    assert cli("copy", "--from", source, "--to", target).code == 0
    with _client(target) as client:
        _remaining(client, "some", LEFT["some"])
        client.pubsub.publish("bus", "orders", {"n": 100})
    result = cli("copy", "--from", source, "--to", target)
    assert result.code == 1
    assert _rows(result.out)["pubsub bus"][1:3] == [0, 0]
    with _client(target) as client:
        assert _remaining(client, "some", 1)[0][0] == 100


def test_two_homes_into_one(cli: Run, ways: tuple[str, str], tmp_path: Path) -> None:
    """A group goes past frames of the second home, while it has not come to all of the first."""
    target = ways[1]
    for name, first in (("one", 100), ("two", 200)):
        with _client(f"{tmp_path}/{name}") as client:
            for begin in (first, first + 10):
                client.pubsub.publish_bulk("bus", "orders", [{"n": n} for n in range(begin, begin + 10)])
            with client.pubsub.subscribe("bus", "orders", group="all", max_in_flight=5) as events:
                for _ in range(5):
                    _next(events).ack()
        assert cli("copy", "--from", f"{tmp_path}/{name}", "--to", target).code == 0
    with _client(target) as client:
        assert [row[0] for row in _remaining(client, "all", 30)] == [*range(105, 120), *range(205, 220)]


def test_claims_that_no_cursor_has_passed(cli: Run, tmp_path: Path, postgres_database: str) -> None:
    """While somebody's transaction is open on PostgreSQL, what groups have settled stands in claims alone."""
    psycopg: Any = pytest.importorskip("psycopg")
    with psycopg.connect(postgres_database) as open_transaction, _client(postgres_database) as client:
        open_transaction.execute("SELECT pg_current_xact_id()")
        for begin in (0, 10, 20):
            client.pubsub.publish_bulk("bus", "orders", [{"n": n} for n in range(begin, begin + 10)])
        with client.pubsub.subscribe("bus", "orders", group="some", max_in_flight=15) as events:
            for _ in range(15):
                _next(events).ack()
        _remaining(client, "all", 30)
        assert cli("copy", "--from", postgres_database, "--to", f"{tmp_path}/target").code == 0
    with _client(f"{tmp_path}/target") as client:
        assert [row[0] for row in _remaining(client, "some", 15)] == [*range(15, 30)]
        _remaining(client, "all", 0)


def test_component_tables(cli: Run, tmp_path: Path, postgres_database: str) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text(
        f'[state.old]\ncomponent = "sqlite"\npath = "{tmp_path}/one.db"\n'
        f'[state.new]\ncomponent = "postgres"\nurl = "{postgres_database}"\nschema = "mine"\n'
        f'[pubsub.old]\ncomponent = "sqlite"\npath = "{tmp_path}/one.db"\n'
    )
    with CloudRuntimesClient(config=config) as client:
        client.state.save("old", "a", 1)
    result = cli("--config", str(config), "copy", "--from", "old", "--to", "new")
    assert result.code == 2  # there is no [pubsub.new]
    assert "[pubsub.new]" in result.err
    result = cli("--config", str(config), "copy", "--from", "old", "--to", "new", "--service", "state")
    assert (result.code, b"old \xe2\x86\x92 new" in result.out) == (0, True)
    with CloudRuntimesClient(config=config) as client:
        assert client.state.get("new", "a") == 1


def test_undeclared_names_are_copied_beside_declared_ones(cli: Run, tmp_path: Path) -> None:
    config, target = tmp_path / "cloud.toml", str(tmp_path / "copy")
    orders = f'[state.orders]\ncomponent = "sqlite"\npath = "{tmp_path}/orders.db"\n'
    config.write_text(f'[capa.homes]\nconfiguration = "other"\n{orders}')
    with CloudRuntimesClient(config=config) as client:
        for name in ("orders", "carts"):
            client.state.save(name, name, 1)
        client.configuration.save_configuration("app", {"a": "1"})
    result = cli("copy", "--from", f"config:{config}", "--to", target)
    rows = {"state orders": [1, 1, 0, 0], "state carts": [1, 1, 0, 0], "configuration app": [1, 1, 0, 0]}
    assert (result.code, _rows(result.out)) == (0, rows), result.err
    config.write_text(f"[capa]\nstrict = true\n{orders}")
    assert _rows(cli("copy", "--from", f"config:{config}", "--to", target).out) == {"state orders": [1, 0, 0, 0]}


def test_the_applications_home(
    cli: Run, home: Path, tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _client(str(home)) as client:
        client.state.save_bulk("orders", {"a": 1, "b": 2})
        client.state.save("other", "a", 1)
    monkeypatch.setenv("SERVER", postgres_database)
    result = cli("copy", "--to", "env:SERVER", "--name", "orders")
    assert (result.code, _rows(result.out)) == (0, {"state orders": [2, 2, 0, 0]})
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", postgres_database)
    assert _rows(cli("copy", "--from", str(home)).out) == {"state orders": [2, 0, 0, 0], "state other": [1, 1, 0, 0]}
    config = tmp_path / "laptop.toml"
    config.write_text(f'[capa]\nhome = "{tmp_path}/laptop"\n')
    assert cli("copy", "--to", f"config:{config}").code == 0
    with _client(f"{tmp_path}/laptop") as client:
        assert client.state.get_bulk("orders", ["a", "b"]).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--from or --to"),
        (["--from", "nowhere"], "no home"),
        (["--from", "."], "no home"),
        (["--from", ":memory:"], "ends with its process"),
        (["--from", "env:NOWHERE"], "no such variable"),
        (["--from", "home"], "are the same"),
        (["--to", "elsewhere", "--service", "lock"], "locks"),
        (["--to", "elsewhere", "--name", "nobody"], "'nobody'"),
        (["--to", "oracle://host/name"], "known"),
    ],
)
def test_refused(cli: Run, client: CloudRuntimesClient, argv: list[str], message: str) -> None:
    client.state.save("orders", "a", 1)
    result = cli("copy", *argv)
    assert (result.code, message in result.err) == (2, True), result
    assert not Path("elsewhere/cloud_runtimes.db").exists()
    assert not Path("nowhere").exists()


def test_nothing_to_copy(cli: Run, tmp_path: Path) -> None:
    with _client(f"{tmp_path}/one") as client:
        client.wait_ready()
    result = cli("copy", "--from", f"{tmp_path}/one", "--to", f"{tmp_path}/two")
    assert (result.code, "nothing" in result.err) == (3, True)
    assert not (tmp_path / "two").exists()


def test_passwords_are_not_shown(cli: Run, client: CloudRuntimesClient, postgres_url: str) -> None:
    client.state.save("orders", "a", 1)
    url = postgres_url.replace("postgres@", "postgres:hunter2@").rpartition("/")[0] + "/no_such_database"
    for argv in (("--to", url), ("--from", url), ("--to", url.replace("postgresql", "oracle"))):
        result = cli("copy", *argv)
        assert result.code != 0
        assert "env:NAME" in result.err
        assert "hunter2" not in result.err


def test_redriven_events_are_handled_first(cli: Run, ways: tuple[str, str]) -> None:
    source, target = ways
    with _client(source) as client:
        client.pubsub.subscribe("bus", "orders", group="all").close()
        client.pubsub.publish("bus", "dead", 1, attributes={"dltopic": "orders", "dlgroup": "all"})
        assert client.admin.redrive("bus", "dead").count == 1
        result = cli("copy", "--from", source, "--to", target)
        assert (result.code, "let these handle them first" in result.err) == (4, True)
        with client.pubsub.subscribe("bus", "orders", group="all") as events:
            event = _next(events)
            event.ack()
    assert cli("copy", "--from", source, "--to", target).code == 0
    with _client(target) as client:
        assert [topic.name for topic in client.admin.topics("bus")] == ["orders"]


def test_a_source_in_use_is_told(cli: Run, ways: tuple[str, str]) -> None:
    source, target = ways
    with _client(source) as client:
        client.pubsub.publish("bus", "orders", {"n": 1})
        with client.pubsub.subscribe("bus", "orders", group="all") as events:
            _next(events)
            assert "is in use" in cli("copy", "--from", source, "--to", target).err
