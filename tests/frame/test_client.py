"""The client's own life: made lazily, asked what it can, waited for, closed once and at exit; and its native clients."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    ClosedError,
    ComponentNotFoundError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api

# -- closing ------------------------------------------------------------------


def test_close_twice(runtime: Any, api: Api) -> None:
    client = CloudRuntimesClient(runtime=runtime)
    assert client.state.get("store", "k") == 1
    api.call(client, "close", timeout=5.0)
    api.call(client, "close")
    client.close()
    assert len(runtime.closed) == 1
    assert 0 < runtime.closed[0] <= 5.0
    assert repr(client).endswith("closed>")


def test_close_without_a_call(api: Api, tmp_path: Path) -> None:
    client = CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}})
    api.call(client, "close")
    assert list(tmp_path.iterdir()) == [], "closing opened something"
    with pytest.raises(ClosedError):
        client.state.get("store", "k")
    with pytest.raises(ClosedError):
        client.supports("state.ttl")


def test_with(runtime: Any, api: Api) -> None:
    with pytest.raises(LookupError, match="mine"), api.opened(CloudRuntimesClient(runtime=runtime)) as client:
        assert api.call(client.state, "get", "store", "k") == 1
        raise LookupError("mine")
    assert len(runtime.closed) == 1


def test_bad_timeouts(scripted: CloudRuntimesClient, api: Api) -> None:
    for name in ("close", "wait_ready"):
        api.fails(InvalidArgumentError, match="timeout")(scripted, name, timeout=0)
    assert scripted.state.get("store", "k") == 1, "a refused close closes nothing"


def test_closing_flushes_publishers(home: Path) -> None:
    def make() -> CloudRuntimesClient:
        return CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test")

    client = make()
    publisher = client.pubsub.publisher("bus", "t", linger=60.0)
    for number in range(10):
        publisher.send(number)
    begin = time.monotonic()
    client.close()
    assert time.monotonic() - begin < 30.0, "it waited for the linger"
    with pytest.raises(ClosedError):
        publisher.send(10)
    with make() as reader, reader.pubsub.subscribe("bus", "t") as events:
        received = [events.receive(timeout=10.0) for _ in range(10)]
    assert [event.data for event in received if event is not None] == list(range(10))


@pytest.mark.promise("E3")
@pytest.mark.process
def test_a_forgotten_publisher_delivers_at_exit(home: Path) -> None:
    program = (
        "import sys\n"
        "from cloud_runtimes import CloudRuntimesClient\n"
        "client = CloudRuntimesClient(config={'capa': {'home': sys.argv[1]}}, app_id='test')\n"
        "publisher = client.pubsub.publisher('bus', 't', linger=60.0)\n"
        "for number in range(100):\n"
        "    publisher.send(number)\n"
        "print(publisher.stats().delivered)\n"
    )
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, str(home)], capture_output=True, text=True, check=True, timeout=50
    )
    assert time.monotonic() - begin < 40.0, "it waited for the linger"
    assert (done.stdout, done.stderr) == ("0\n", "")
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test") as client:
        with client.pubsub.subscribe("bus", "t") as events:
            received = [events.receive(timeout=10.0) for _ in range(100)]
            assert events.receive(timeout=0) is None
    assert [event.data for event in received if event is not None] == list(range(100))


def test_a_client_that_nobody_holds_goes_away(runtime: Any) -> None:
    client = CloudRuntimesClient(runtime=runtime)
    client.state.get("store", "k")
    gone = weakref.ref(client)
    del client
    with pytest.warns(ResourceWarning, match="was not closed: use it in a with block"):
        gc.collect()
    assert gone() is None, "what closes forgotten clients at exit keeps them alive"


# -- readiness ----------------------------------------------------------------


def test_wait_ready_tries_until_it_is(scripted: CloudRuntimesClient, runtime: Any, api: Api) -> None:
    runtime.readiness = [UnavailableError("starting"), UnavailableError("starting")]
    api.call(scripted, "wait_ready")
    assert runtime.readiness == []


def test_wait_ready_gives_up(scripted: CloudRuntimesClient, runtime: Any, api: Api) -> None:
    runtime.readiness = [UnavailableError(f"starting {number}") for number in range(1000)]
    begin = time.monotonic()
    error = api.fails(DeadlineExceededError, match=r"scripted is not ready after 0\.2 s: starting \d")(
        scripted, "wait_ready", timeout=0.2
    )
    assert time.monotonic() - begin < 5.0
    assert isinstance(error.__cause__, UnavailableError)
    assert 990 < len(runtime.readiness) < 1000, "it waits longer each time"


def test_wait_ready_raises_what_will_not_pass(scripted: CloudRuntimesClient, runtime: Any, api: Api) -> None:
    runtime.readiness = [PermissionDeniedError("never"), UnavailableError("not reached")]
    api.fails(PermissionDeniedError, match="never")(scripted, "wait_ready")
    assert len(runtime.readiness) == 1


def test_wait_ready_wraps_a_native_error(scripted: CloudRuntimesClient, runtime: Any, api: Api) -> None:
    runtime.readiness = [ZeroDivisionError("native")]
    error = api.fails(InternalError, match=r"scripted.*ZeroDivisionError: native")(scripted, "wait_ready")
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_wait_ready_of_a_closed_client(runtime: Any, api: Api) -> None:
    client = CloudRuntimesClient(runtime=runtime)
    client.close()
    api.fails(ClosedError)(client, "wait_ready")


def test_wait_ready_opens_the_embedded_store(client: CloudRuntimesClient, home: Path, api: Api) -> None:
    api.call(client, "wait_ready")
    assert (home / "cloud_runtimes.db").exists()


# -- what it can --------------------------------------------------------------


def test_supports(client: CloudRuntimesClient, home: Path) -> None:
    assert client.supports("state")
    assert client.supports("state.etag")
    assert client.supports("state.etag", "orders")
    assert client.supports("pubsub.delay", "bus")
    for feature in ("state.teleport", "telemetry.teleport", "secret.x", "", ".", "etag", "State.etag"):
        assert not client.supports(feature)
    assert not client.supports("state.etag", ""), "no component can have this name"
    assert not home.exists(), "supports() did I/O"


def test_supports_needs_all_of_the_declared(clean_environment: None) -> None:
    sqlite = {"component": "sqlite", "home": ":memory:client"}
    with CloudRuntimesClient(config={"state": {"a": sqlite, "b": {"component": "not-there"}}}) as client:
        assert client.supports("state.ttl", "a")
        assert not client.supports("state.ttl", "b")
        assert not client.supports("state.ttl")
        assert not client.supports("state.teleport", "c"), "undeclared"
        assert client.supports("state.ttl", "c")
        assert client.supports("pubsub.ttl", "a")


def test_services_are_made_once(scripted: CloudRuntimesClient) -> None:
    assert "state" not in vars(scripted)
    assert scripted.state is scripted.state


@pytest.mark.promise("E7")
def test_one_client_for_many_threads(client: CloudRuntimesClient) -> None:
    import threading

    barrier = threading.Barrier(8)
    services: list[Any] = []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            barrier.wait(10.0)
            services.append(client.state)
            client.state.save("store", f"k{number}", number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert failures == []
    assert len(set(map(id, services))) == 1
    assert client.state.list_keys("store") == [f"k{number}" for number in range(8)]


@pytest.mark.promise("E7")
def test_one_client_for_many_loops(client: CloudRuntimesClient) -> None:
    for number in range(3):
        asyncio.run(client.state.save_async("store", "k", number))
        assert asyncio.run(client.state.get_async("store", "k")) == number


Keep = Callable[[CloudRuntimesClient], CloudRuntimesClient]


def test_a_closed_client_leaves_another_alone(home: Path, closing: Keep) -> None:
    first = CloudRuntimesClient(config={"capa": {"home": str(home)}})
    second = closing(CloudRuntimesClient(config={"capa": {"home": str(home)}}))
    first.state.save("store", "k", 1)
    first.close()
    assert second.state.get("store", "k") == 1


# -- `client.native`: the vendor's client or connection behind a component


def test_sqlite(home: Path) -> None:
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}) as client:
        connection = client.native("state", "orders")  # before the first call, too
        client.state.save("orders", "k", 1)
        assert connection.execute("SELECT count(*) FROM state").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM state")
        connection.close()
        client.state.save("orders", "k", 2)
        assert client.state.get("orders", "k") == 2


def test_local_and_sqlalchemy(home: Path) -> None:
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}) as client:
        client.file.put_file("docs", "a", b"x")
        assert [path.name for path in client.native("file", "docs").iterdir() if path.is_file()] == ["a"]
        assert client.native("database", "shop").dialect.name == "sqlite"


@pytest.mark.parametrize("service", ["state", "file", "rpc", "lock"])
def test_nothing_of_a_vendor(service: str) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:native"}}) as client:
        with pytest.raises(UnsupportedError, match=f"{service} 'x' has no client"):
            client.native(service, "x")


def test_what_is_not_there(home: Path) -> None:
    config: dict[str, Any] = {"state": {"orders": {"component": "sqlite", "home": str(home)}}, "capa": {"strict": True}}
    with CloudRuntimesClient(config=config) as client:
        with pytest.raises(ComponentNotFoundError, match=r"add \[state.carts\]"):
            client.native("state", "carts")
        with pytest.raises(InvalidArgumentError, match="'stat' is no service; there are configuration"):
            client.native("stat", "orders")


def test_dir_lists_the_services() -> None:
    names = dir(CloudRuntimesClient())
    assert {"state", "pubsub", "telemetry", "close", "native"} <= set(names)
