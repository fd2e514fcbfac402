"""Full and read-only disks, damaged and foreign files: a named error with the remedy, nothing half-written, recovery without restart."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.home import check_file_system
from cloud_runtimes.errors import (
    ClosedError,
    CloudRuntimesError,
    InternalError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnsupportedError,
)
from tests.support.child import Start
from tests.support.needs import needs_root
from tests.support.waiting import until


def client_at(path: Path, **settings: Any) -> CloudRuntimesClient:
    config = {
        "configuration": {"app": {"component": "sqlite", "path": str(path), **settings}},
        "state": {"store": {"component": "sqlite", "path": str(path), **settings}},
        "pubsub": {"bus": {"component": "sqlite", "path": str(path), **settings}},
    }
    return CloudRuntimesClient(config=config, app_id="trouble", timeout=5)


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.promise("C1")
@pytest.mark.root
@needs_root
def test_full_disk(small_disk: Path) -> None:
    path = small_disk / "db"
    with client_at(path) as client:
        saved = 0
        with pytest.raises(ResourceExhaustedError, match=r"full.*free space") as caught:
            while True:
                client.state.save("store", f"k{saved}", os.urandom(200_000))
                saved += 1
        assert caught.value.component == "store"
        assert saved > 5
        with pytest.raises(ResourceExhaustedError):
            client.pubsub.publish("bus", "t", os.urandom(1_000_000))
        with pytest.raises(ResourceExhaustedError):
            with client.state.transaction("store") as tx:
                tx.save("small", 1)
                tx.save("large", os.urandom(3_000_000))
        # what was acknowledged is there, what was refused is not
        assert client.state.get_item("store", f"k{saved}") is None
        assert client.state.get_item("store", "small") is None
        assert len(client.state.list_keys("store")) == saved
        assert len(client.state.get("store", "k0")) == 200_000
        # a publisher holds on until there is room again
        publisher = client.pubsub.publisher("bus", "t")
        for _ in range(10):
            publisher.send("x" * 100_000)
        for number in range(saved):
            try:
                client.state.delete("store", f"k{number}")
            except ResourceExhaustedError:
                subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
                client.state.delete("store", f"k{number}")
        subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
        publisher.flush(20)
        publisher.close()
        assert publisher.stats().delivered == 10
        client.state.save("store", "after", 1)
    assert integrity(path) == "ok"


@pytest.mark.promise("C3")
@pytest.mark.root
@needs_root
def test_read_only_disk(small_disk: Path) -> None:
    path = small_disk / "db"
    with client_at(path) as client:
        client.state.save("store", "k", {"kept": True})
        client.pubsub.publish("bus", "t", 1)
        client.configuration.save_configuration("app", {"k": "kept"})
    before = path.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with client_at(path) as client:
        assert client.state.get("store", "k") == {"kept": True}
        assert client.state.list_keys("store") == ["k"]
        assert client.configuration.get_configuration("app") == {"k": "kept"}
        with client.configuration.subscribe_configuration("app") as sub:
            assert [item.value for item in (sub.receive(5) or {}).values()] == ["kept"]
            assert sub.receive(0.5) is None
        for refused in (
            lambda: client.state.save("store", "k", 2),
            lambda: client.state.delete("store", "k"),
            lambda: client.pubsub.publish("bus", "t", 2),
            lambda: client.pubsub.subscribe("bus", "t"),
            lambda: client.configuration.save_configuration("app", {"k": "2"}),
            lambda: client.configuration.delete_configuration("app", ["k"]),
        ):
            with pytest.raises(PermissionDeniedError, match="CLOUD_RUNTIMES_HOME"):
                refused()
    assert path.read_bytes() == before
    with client_at(small_disk / "absent" / "db") as client:
        with pytest.raises(PermissionDeniedError, match="CLOUD_RUNTIMES_HOME"):
            client.state.save("store", "k", 1)


@pytest.mark.root
@needs_root
def test_a_disk_that_becomes_writable(small_disk: Path) -> None:
    path = small_disk / "db"
    with client_at(path) as client:
        client.state.save("store", "k", 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with client_at(path) as writes, client_at(path) as reads:
        assert writes.state.get("store", "k") == 1
        assert reads.state.get("store", "k") == 1
        with pytest.raises(PermissionDeniedError):
            writes.state.save("store", "k", 2)
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        writes.state.save("store", "k", 3)
        assert writes.state.get("store", "k") == 3
        assert reads.state.get("store", "k") == 3


@pytest.mark.root
@needs_root
def test_what_others_write_is_seen_once_the_disk_is_writable(small_disk: Path) -> None:
    path = small_disk / "db"
    with client_at(path) as client:
        client.state.save("store", "k", 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with client_at(path) as reads:
        assert reads.state.get("store", "k") == 1
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("UPDATE state SET value = CAST('2' AS BLOB)")
        connection.close()
        until(lambda: reads.state.get("store", "k") == 2)  # readers look every few milliseconds


@pytest.mark.root
@needs_root
def test_full_disk_at_the_first_start(small_disk: Path) -> None:
    with open(small_disk / "filler", "wb") as filler:
        try:
            while True:
                filler.write(bytes(65_536))
                filler.flush()
        except OSError:
            pass
    with client_at(small_disk / "db") as client:
        with pytest.raises(ResourceExhaustedError, match="full"):
            client.state.save("store", "k", 1)
        os.unlink(small_disk / "filler")
        client.state.save("store", "k", 1)
        assert client.state.get("store", "k") == 1


@pytest.mark.parametrize("content", [b"this is no database, but long enough to have a header" * 100, bytes(8192)])
def test_what_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "db"
    path.write_bytes(content)
    with client_at(path) as client:
        with pytest.raises(InternalError, match=r"damaged.*move it away") as caught:
            client.state.save("store", "k", 1)
        assert caught.value.code == "DATA_LOSS"
        assert isinstance(caught.value.__cause__, sqlite3.Error)
        with pytest.raises(InternalError):
            client.state.get("store", "k")
    assert path.read_bytes() == content


def test_a_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with client_at(path) as client:
        client.state.save_bulk("store", {f"k{number:04}": "x" * 500 for number in range(2000)})
    content = bytearray(path.read_bytes())
    content[40_000 : len(content) - 40_000] = os.urandom(len(content) - 80_000)
    path.write_bytes(content)
    with client_at(path) as client:
        with pytest.raises(InternalError, match="damaged") as caught:
            for number in range(2000):
                client.state.get("store", f"k{number:04}")
        assert caught.value.code == "DATA_LOSS"


def test_a_damaged_text_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with client_at(path) as client:
        client.state.save_bulk("store", {"k1": 1, "k2": 2})
        connection = sqlite3.connect(path)
        connection.execute("UPDATE state SET key = CAST(x'6bff' AS TEXT) WHERE key = 'k1'")
        connection.commit()
        connection.close()
        for _ in range(2):
            assert sorted(client.state.list_keys("store")) == ["k2", "k\ufffd"]
        assert client.state.get("store", "k2") == 2


def test_a_newer_file(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with client_at(path) as client:
        client.state.save("store", "k", 1)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with client_at(path) as client:
        with pytest.raises(UnsupportedError, match=r"newer release.*upgrade"):
            client.state.save("store", "k", 2)
        with pytest.raises(UnsupportedError, match="newer"):
            client.state.get("store", "k")
    assert path.read_bytes() == before


def test_a_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with client_at(path) as client:
        with pytest.raises(InvalidArgumentError, match="another program"):
            client.pubsub.publish("bus", "t", 1)
    assert path.read_bytes() == before


def test_a_folder_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("a file")
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}) as client:
        with pytest.raises(InvalidArgumentError, match=r"is a file.*CLOUD_RUNTIMES_HOME"):
            client.state.save("store", "k", 1)
    (tmp_path / "db").mkdir()
    with client_at(tmp_path / "db") as client:
        with pytest.raises(CloudRuntimesError, match="db"):
            client.state.save("store", "k", 1)


def test_the_home_is_private(home: Path, client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)
    with client.pubsub.subscribe("bus", "t") as sub:
        assert sub.receive(0.2) is None
        assert list((home / "wake").iterdir())
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "wake").stat().st_mode) == 0o700
        assert all(stat.S_IMODE(each.stat().st_mode) & 0o077 == 0 for each in (home / "wake").iterdir())
    assert (home / ".gitignore").read_text() == "*\n"


def test_network_file_systems_are_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"

    def line(number: int, point: Path | str, kind: str) -> str:
        escaped = str(point).replace(" ", "\\040")
        return f"{number} 1 0:{number} / {escaped} rw,relatime shared:1 - {kind} source rw\n"

    shared = tmp_path / "with space"
    nested = shared / "local"
    nested.mkdir(parents=True)
    mounts.write_text(line(1, "/", "ext4") + line(2, shared, "nfs4") + line(3, nested, "xfs"))
    with pytest.raises(UnsupportedError, match=r"nfs4.*CLOUD_RUNTIMES_HOME"):
        check_file_system(shared, str(mounts))
    check_file_system(nested, str(mounts))
    check_file_system(tmp_path, str(mounts))
    check_file_system(tmp_path, str(tmp_path / "absent"))
    mounts.write_text(line(1, "/", "ext4") + line(2, f"{tmp_path}/with", "nfs"))  # a prefix of the name is no parent
    check_file_system(shared, str(mounts))


def test_large_values_are_refused(client: CloudRuntimesClient) -> None:
    with pytest.raises(ResourceExhaustedError, match="max_value_bytes"):
        client.state.save("store", "k", bytes(20 * 1024 * 1024))
    with pytest.raises(ResourceExhaustedError, match="reference"):
        client.pubsub.publish("bus", "t", bytes(20 * 1024 * 1024))
    assert client.state.get_item("store", "k") is None


def test_the_log_has_a_limit(tmp_path: Path) -> None:
    with client_at(tmp_path / "db", max_bytes=1024 * 1024) as client:
        data = "x" * 100_000
        sent = 0
        with pytest.raises(ResourceExhaustedError, match="max_bytes"):
            while True:
                client.pubsub.publish("bus", "t", data)
                sent += 1
        assert 8 <= sent <= 10
        assert client.state.get("store", "k") is None
        client.state.save("store", "k", 1)  # the state is not the log
    with client_at(tmp_path / "other", max_bytes=1024 * 1024, when_full="drop_oldest") as client:
        for number in range(30):
            client.pubsub.publish("bus", "t", [number, data])
        with client.pubsub.subscribe("bus", "t") as sub:
            got = []
            while client.pubsub.lag("bus", "t"):
                if (event := sub.receive(0.3)) is not None:
                    got.append(event.data[0])
                    event.ack()
        assert got == list(range(30 - len(got), 30))
        assert 7 <= len(got) <= 10
    connection = sqlite3.connect(tmp_path / "other")
    dropped = connection.execute("SELECT value FROM counters WHERE name = 'dropped_oldest:bus'").fetchone()[0]
    connection.close()
    assert dropped + len(got) == 30


def test_a_relaxed_store_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch, client: CloudRuntimesClient) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_DURABILITY", "sometimes")
    with pytest.raises(InvalidArgumentError, match="full or relaxed"):
        client.state.save("store", "k", 1)
    monkeypatch.setenv("CLOUD_RUNTIMES_DURABILITY", "relaxed")
    client.state.save("store", "k", 1)
    assert client.state.get("store", "k") == 1


@pytest.mark.process
def test_a_stranger_without_manners(start: Start, client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 0)
    child = start("hold_lock", 0.5).ready()
    client.state.save("store", "k", 1)
    with client.pubsub.publisher("bus", "t") as publisher:
        publisher.send(1)
    assert child.line() == {"told": False}
    assert client.state.get("store", "k") == 1
    assert publisher.stats().delivered == 1


def test_closing_does_not_wait_for_a_sweep_that_waits_for_it(
    client: CloudRuntimesClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.state.save("store", "k", 1)
    runtime: Any = client._context.runtime()
    engine = runtime.driver("state", "store")._engine
    begun, refused = threading.Event(), threading.Event()

    def sweeper() -> bool:
        begun.set()
        while not engine._closed:
            time.sleep(0.001)
        while engine._readers.idle:
            engine._readers.idle.pop().close()
        try:
            engine.query(None, "SELECT 1")
        except ClosedError:
            refused.set()
            raise
        return False

    engine.sweepers.append(sweeper)
    assert begun.wait(30)  # the writer thread sweeps a second after its start
    begin = time.monotonic()
    client.close()
    assert refused.is_set()
    assert time.monotonic() - begin < 20  # of the 30 that closing has
    assert not caplog.records
