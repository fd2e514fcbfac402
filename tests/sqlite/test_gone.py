"""Files removed, replaced or emptied under a running process: the next call says so, no lock is held twice, and work goes on."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite.files import Watch
from cloud_runtimes.errors import InternalError, LeaseLostError, UnavailableError
from cloud_runtimes.testing.apis import Api, SyncApi
from tests.support.child import Start

DATABASE = "cloud_runtimes.db"


def remove(home: Path) -> None:
    shutil.rmtree(home)


def empty(home: Path) -> None:
    for each in home.rglob("*"):
        if not each.is_dir():
            each.unlink()


def move(home: Path) -> None:
    home.rename(home.with_name("moved"))


def put_another_in_its_place(home: Path) -> None:
    move(home)
    with CloudRuntimesClient(config={"capa": {"home": str(home.with_name("fresh"))}}) as client:
        client.state.save("store", "k", "another")
    home.with_name("fresh").rename(home)


def replace_the_database(home: Path) -> None:
    other = home.with_name("other")
    with CloudRuntimesClient(config={"capa": {"home": str(other)}}) as client:
        client.state.save("store", "k", "another")
    (other / DATABASE).rename(home / DATABASE)


def remove_the_log(home: Path) -> None:
    (home / f"{DATABASE}-wal").unlink()


def remove_the_log_and_its_index(home: Path) -> None:
    remove_the_log(home)
    (home / f"{DATABASE}-shm").unlink()


def remove_the_gate(home: Path) -> None:
    (home / f"{DATABASE}-gate").unlink()


LOSING = [remove, empty, move, put_another_in_its_place, replace_the_database]
KEEPING = [remove_the_log, remove_the_log_and_its_index, remove_the_gate]


def refused(api: Api, target: Any, method: str, *arguments: Any) -> UnavailableError:
    """Call what must be refused once; returns the refusal."""
    error = api.fails(UnavailableError, match=r"(removed|replaced) while .*cloud_runtimes\.db was in use")(
        target, method, *arguments
    )
    assert not error.maybe_applied
    return error


@pytest.mark.parametrize("lose", [*LOSING, *KEEPING])
def test_a_write_is_refused_and_the_next_one_holds(
    home: Path, client: CloudRuntimesClient, api: Api, lose: Callable[[Path], None]
) -> None:
    api.call(client.state, "save", "store", "k", "old")
    api.call(client.state, "save", "other", "k", "old")
    lose(home)
    refused(api, client.state, "save", "store", "k1", "refused")
    api.call(client.state, "save", "store", "k2", "kept")
    # whoever uses another store is told too, and nobody is told twice
    refused(api, client.state, "save", "other", "k1", "refused")
    api.call(client.state, "save", "other", "k2", "kept")
    client.close()
    with CloudRuntimesClient() as fresh:
        for store in ("store", "other"):
            assert fresh.state.get(store, "k1") is None
            assert fresh.state.get(store, "k2") == "kept"
        kept = {"put_another_in_its_place": "another", "replace_the_database": "another"}
        assert fresh.state.get("store", "k") == ("old" if lose in KEEPING else kept.get(lose.__name__))


@pytest.mark.parametrize("lose", LOSING)
def test_a_read_does_not_answer_from_files_that_are_gone(
    home: Path, client: CloudRuntimesClient, api: Api, lose: Callable[[Path], None]
) -> None:
    api.call(client.state, "save", "store", "k", "old")
    assert api.call(client.state, "get", "store", "k") == "old"
    lose(home)

    def is_refused() -> bool:  # readers look every few milliseconds
        try:
            api.call(client.state, "get", "store", "k")
        except UnavailableError:
            return True
        return False

    assert api.until(is_refused)
    another = lose in (put_another_in_its_place, replace_the_database)
    assert api.call(client.state, "get", "store", "k") == ("another" if another else None)


@pytest.mark.process
@pytest.mark.parametrize("lose", LOSING)
def test_no_lock_is_held_twice(
    home: Path, client: CloudRuntimesClient, start: Start, lose: Callable[[Path], None]
) -> None:
    lease = client.lock.try_lock("locks", "it", expiry=600)
    assert lease is not None
    assert lease.token is not None
    assert not lease.lost
    lose(home)
    other = start("take_lock", "locks", "it").line()
    assert other["token"] > lease.token, "who guards by tokens would refuse the new holder"
    assert lease.lost
    for call in (lease.check, lease.renew, lease.release):
        with pytest.raises(LeaseLostError):
            call()
    refused(SyncApi(), client.lock, "try_lock", "locks", "it")
    assert client.lock.try_lock("locks", "it") is None


def test_a_lease_outlives_the_store_that_it_came_from_no_longer_than_its_file(home: Path) -> None:
    with CloudRuntimesClient() as client:
        lease = client.lock.try_lock("locks", "it", expiry=600)
        assert lease is not None
    assert not lease.lost, "closing the client releases nothing"
    (home / DATABASE).unlink()
    assert lease.lost


@pytest.mark.parametrize("lose", [remove, empty, replace_the_database])
def test_subscriptions_and_publishers_go_on(
    home: Path, client: CloudRuntimesClient, caplog: pytest.LogCaptureFixture, lose: Callable[[Path], None]
) -> None:
    reports: list[Any] = []
    settings = client.configuration
    with (
        client.pubsub.subscribe("bus", "t", start="latest") as events,
        settings.subscribe_configuration("app") as changes,
        client.pubsub.publisher("bus", "t", linger=0.001, on_delivery=reports.append) as publisher,
    ):
        publisher.send("before")
        event = events.receive(10)
        assert event is not None
        assert event.data == "before"
        settings.save_configuration("app", {"k": "1"})
        while not (changed := changes.receive(10) or {}):
            pass
        assert changed["k"].value == "1"
        lose(home)
        event.ack()  # its claim is gone, which harms nobody
        publisher.send("after")
        publisher.flush(20)
        # a batch alone is refused and reported, one of several is tried again
        failed = [each for report in reports for each in report.failed]
        assert all(isinstance(each.error, UnavailableError) for each in failed)
        publisher.send("later")
        publisher.flush(20)
        got = []
        while not got or got[-1] != "later":
            event = events.receive(20)
            assert event is not None
            got.append(event.data)
            event.ack()
        assert got == ["later"] if failed else ["after", "later"]
        gone = changes.receive(20)
        assert gone is not None
        assert gone["k"].deleted
        with pytest.raises(UnavailableError):
            settings.save_configuration("app", {"k": "2"})
        settings.save_configuration("app", {"k": "2"})
        changed = changes.receive(20) or {}
        assert changed["k"].value == "2"
    stats = publisher.stats()
    assert stats.accepted == stats.delivered + stats.failed == 3
    assert [record for record in caplog.records if "it is opened anew" in record.message]


def test_a_transaction_is_refused_whole_when_the_home_goes_meanwhile(home: Path, client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)
    runtime: Any = client._context.runtime()
    driver: Any = runtime.driver("state", "store")
    apply = driver._apply

    def slowly(*arguments: Any) -> Any:
        result = apply(*arguments)
        shutil.rmtree(home)
        return result

    driver._apply = slowly
    client.state._frame.drivers["store"] = driver
    with pytest.raises(UnavailableError, match="was removed while"):
        with client.state.transaction("store") as tx:
            tx.save("a", 1)
            tx.save("b", 2)
    assert client.state.list_keys("store") == []


def test_threads_are_each_told_and_none_waits_for_ever(home: Path, client: CloudRuntimesClient) -> None:
    api = SyncApi()
    client.state.save("store", "k", 0)
    shutil.rmtree(home)
    calls = [(client.state, "save", ("store", f"k{number}", number), {}) for number in range(8)]
    results = api.together(calls)
    errors = [each for each in results if isinstance(each, BaseException)]
    assert errors
    assert all(isinstance(each, UnavailableError) for each in errors)
    assert len(client.state.list_keys("store")) == len(results) - len(errors)


def test_what_the_folder_holds_beside_them_does_not_matter(home: Path, client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)
    (home / "notes").write_text("mine")
    (home / "notes").rename(home / "letters")
    (home / "wake").mkdir(exist_ok=True)
    client.state.save("store", "k", 2)
    (home / "letters").unlink()
    assert client.state.get("store", "k") == 2


@pytest.mark.parametrize("at_once", [True, False], ids=["with the GIL", "without a C library"])
def test_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    if not at_once:
        monkeypatch.setitem(__import__("sys").modules, "ctypes", None)
    path = tmp_path / "home" / "db"
    path.parent.mkdir()
    for suffix in ("", "-turn", "-gate"):
        Path(f"{path}{suffix}").touch()
    watch = Watch(str(path))
    assert watch.look() is None
    os.utime(path.parent, ns=(0, 0))
    (path.parent / "beside").touch()
    assert watch.look() is None
    Path(f"{path}-wal").touch()  # begun by a stranger
    assert watch.look() == f"{path}-wal was replaced"
    Path(f"{path}-wal").unlink()
    assert watch.look() is None
    path.parent.rename(tmp_path / "moved")
    assert watch.look() == f"{path.parent} was removed"
    (tmp_path / "moved").rename(path.parent)
    assert watch.look() is None
    path.unlink()
    assert watch.look() == f"{path} was removed"


@pytest.mark.parametrize("read_only", [False, True])
def test_an_emptied_database_is_not_taken_as_new(home: Path, read_only: bool) -> None:
    with CloudRuntimesClient() as client:
        client.state.save("store", "k", 1)
    os.truncate(home / DATABASE, 0)
    if read_only:
        for each in home.glob(f"{DATABASE}*"):
            each.chmod(0o400)
    with CloudRuntimesClient() as client:
        for call in (lambda: client.state.get("store", "k"), lambda: client.state.save("store", "k", 2)):
            with pytest.raises(InternalError, match=r"0 bytes, but held a database.*delete it to start anew") as caught:
                call()
            assert caught.value.code == "DATA_LOSS"
        assert (home / DATABASE).stat().st_size == 0
        (home / DATABASE).unlink()
        if not read_only or os.geteuid() == 0:
            client.state.save("store", "k", 3)
            assert client.state.get("store", "k") == 3


def test_an_empty_file_that_never_was_a_database_becomes_one(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.touch()
    with CloudRuntimesClient(config={"state": {"store": {"component": "sqlite", "path": str(path)}}}) as client:
        client.state.save("store", "k", 1)
        assert client.state.get("store", "k") == 1


def test_a_database_that_was_never_finished_is_made_anew(home: Path) -> None:
    with CloudRuntimesClient() as client:
        client.state.save("store", "k", 1)
    (home / DATABASE).unlink()
    (home / DATABASE).touch()  # as a process leaves it that is killed while it makes one in the place of the last
    os.truncate(home / f"{DATABASE}-gate", 0)
    with CloudRuntimesClient() as client:
        client.state.save("store", "k", 2)
        assert client.state.get("store", "k") == 2


def test_its_files_are_private_in_a_folder_that_is_not(home: Path) -> None:
    pytest.importorskip("sqlalchemy")
    home.mkdir(mode=0o755)
    (home / "databases").mkdir(mode=0o755)
    with CloudRuntimesClient() as client:
        client.state.save("store", "k", 1)
        client.database.execute("mine", "CREATE TABLE t (x)")
        modes = {each: stat.S_IMODE(each.stat().st_mode) for each in home.rglob("*.db*")}
    assert {each.name for each in modes} >= {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}
    assert not {each: oct(mode) for each, mode in modes.items() if mode & 0o077}
