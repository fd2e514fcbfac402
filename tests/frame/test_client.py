"""The client's own life: made lazily, asked what it can, waited for, closed once, and closed at exit where it was forgotten."""

from __future__ import annotations

import asyncio
import gc
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
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnavailableError,
)

APIS = pytest.mark.parametrize("api", ["sync", "async"])


def own(client: CloudRuntimesClient, api: str, name: str, **options: Any) -> None:
    """Call one of the client's own methods."""
    if api == "sync":
        getattr(client, name)(**options)
    else:
        asyncio.run(_awaited(client, name, options))


async def _awaited(client: CloudRuntimesClient, name: str, options: dict[str, Any]) -> None:
    await getattr(client, f"{name}_async")(**options)


# -- closing ------------------------------------------------------------------


@APIS
def test_close_twice(runtime: Any, api: str) -> None:
    client = CloudRuntimesClient(runtime=runtime)
    assert client.state.get("store", "k") == 1
    own(client, api, "close", timeout=5.0)
    own(client, api, "close")
    client.close()
    assert len(runtime.closed) == 1
    assert 0 < runtime.closed[0] <= 5.0
    assert repr(client).endswith("closed>")


@APIS
def test_close_without_a_call(api: str, tmp_path: Path) -> None:
    client = CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}})
    own(client, api, "close")
    assert list(tmp_path.iterdir()) == [], "closing opened something"
    with pytest.raises(ClosedError):
        client.state.get("store", "k")
    with pytest.raises(ClosedError):
        client.supports("state.ttl")


@APIS
def test_with(runtime: Any, api: str) -> None:
    async def run() -> None:
        async with CloudRuntimesClient(runtime=runtime) as client:
            assert await client.state.get_async("store", "k") == 1
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        if api == "async":
            asyncio.run(run())
        else:
            with CloudRuntimesClient(runtime=runtime) as client:
                assert client.state.get("store", "k") == 1
                raise LookupError("mine")
    assert len(runtime.closed) == 1


@APIS
def test_bad_timeouts(scripted: CloudRuntimesClient, api: str) -> None:
    for name in ("close", "wait_ready"):
        with pytest.raises(InvalidArgumentError, match="timeout"):
            own(scripted, api, name, timeout=0)
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
        found = [events.receive(timeout=10.0) for _ in range(10)]
    assert [event.data for event in found if event is not None] == list(range(10))


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
            found = [events.receive(timeout=10.0) for _ in range(100)]
            assert events.receive(timeout=0) is None
    assert [event.data for event in found if event is not None] == list(range(100))


def test_a_client_that_nobody_holds_goes_away(runtime: Any) -> None:
    client = CloudRuntimesClient(runtime=runtime)
    client.state.get("store", "k")
    gone = weakref.ref(client)
    del client
    with pytest.warns(ResourceWarning, match="was not closed: use it in a with block"):
        gc.collect()
    assert gone() is None, "what closes forgotten clients at exit keeps them alive"


# -- readiness ----------------------------------------------------------------


@APIS
def test_wait_ready_tries_until_it_is(scripted: CloudRuntimesClient, runtime: Any, api: str) -> None:
    runtime.readiness = [UnavailableError("starting"), UnavailableError("starting")]
    own(scripted, api, "wait_ready")
    assert runtime.readiness == []


@APIS
def test_wait_ready_gives_up(scripted: CloudRuntimesClient, runtime: Any, api: str) -> None:
    runtime.readiness = [UnavailableError(f"starting {number}") for number in range(1000)]
    begin = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"scripted is not ready after 0\.2 s: starting \d") as caught:
        own(scripted, api, "wait_ready", timeout=0.2)
    assert time.monotonic() - begin < 5.0
    assert isinstance(caught.value.__cause__, UnavailableError)
    assert 990 < len(runtime.readiness) < 1000, "it waits longer each time"


@APIS
def test_wait_ready_raises_what_will_not_pass(scripted: CloudRuntimesClient, runtime: Any, api: str) -> None:
    runtime.readiness = [PermissionDeniedError("never"), UnavailableError("not reached")]
    with pytest.raises(PermissionDeniedError, match="never"):
        own(scripted, api, "wait_ready")
    assert len(runtime.readiness) == 1


@APIS
def test_wait_ready_wraps_a_native_error(scripted: CloudRuntimesClient, runtime: Any, api: str) -> None:
    runtime.readiness = [ZeroDivisionError("native")]
    with pytest.raises(InternalError, match=r"scripted.*ZeroDivisionError: native") as caught:
        own(scripted, api, "wait_ready")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@APIS
def test_wait_ready_of_a_closed_client(runtime: Any, api: str) -> None:
    client = CloudRuntimesClient(runtime=runtime)
    client.close()
    with pytest.raises(ClosedError):
        own(client, api, "wait_ready")


@APIS
def test_wait_ready_opens_the_embedded_store(client: CloudRuntimesClient, home: Path, api: str) -> None:
    own(client, api, "wait_ready")
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
