"""Lack of memory and of open files is an error of ours, wherever it comes; names that others give are forgotten in time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.os_errors import resource_exhausted
from cloud_runtimes.errors import InvalidArgumentError, ResourceExhaustedError
from cloud_runtimes.schedule.times import occurrences
from cloud_runtimes.testing import Api
from tests.support import Rounds


class Huge:
    """Encoding it takes more memory than there is."""

    def model_dump(self, mode: str) -> Any:
        raise MemoryError


class Unpacked:
    """So does making it."""

    def __init__(self, x: int) -> None:
        raise MemoryError

    @classmethod
    def model_validate(cls, value: Any) -> Any:
        return cls(value["x"])


CALLS: dict[str, tuple[str, str, tuple[Any, ...], dict[str, Any]]] = {
    "save": ("state", "save", ("s", "k", Huge()), {}),
    "save_bulk": ("state", "save_bulk", ("s", {"k": Huge()}), {}),
    "get": ("state", "get", ("s", "there"), {"type": Unpacked}),
    "get_item": ("state", "get_item", ("s", "there"), {"type": list[Unpacked] | Unpacked}),
    "publish": ("pubsub", "publish", ("bus", "t", {"a": [Huge()]}), {}),
    "publish_bulk": ("pubsub", "publish_bulk", ("bus", "t", [Huge()]), {}),
    "invoke": ("rpc", "invoke_method", ("app", "m", Huge()), {}),
    "job": ("schedule", "schedule_job", ("j",), {"due_time": 60.0, "data": Huge()}),
}


@pytest.mark.promise("C2")
@pytest.mark.parametrize("name", CALLS)
def test_out_of_memory(name: str, api: Api) -> None:
    service, method, arguments, options = CALLS[name]
    with CloudRuntimesClient(app_id="app", config={"capa": {"home": ":memory:"}}) as client:
        client.state.save("s", "there", {"x": 1})
        client.rpc.register_method("m", lambda data: data)
        error = api.fails(ResourceExhaustedError, "out of memory")(
            getattr(client, service), method, *arguments, **options
        )
    assert (error.service, error.operation) == (service, method)
    assert isinstance(error.__cause__, MemoryError)


@pytest.mark.promise("C2")
def test_out_of_memory_in_a_publisher() -> None:
    with CloudRuntimesClient(app_id="app", config={"capa": {"home": ":memory:"}}) as client:
        with client.pubsub.publisher("bus", "t") as publisher:
            for options in ({}, {"attributes": {"subject": "s"}}):
                with pytest.raises(ResourceExhaustedError, match="out of memory"):
                    publisher.send({"a": Huge()}, **options)
            publisher.send(1)


# -- A process that has too many files open is told so, whatever could not be opened: a module, a database, a socket

CHILD = """
import asyncio, json, os, resource, sys, tempfile
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError

def use(client):
    CALL

for free in range(0, 12, int(sys.argv[2])):
    if not os.fork():  # what is imported on first use is imported anew in each
        os.environ["CLOUD_RUNTIMES_HOME"] = tempfile.mkdtemp(dir=sys.argv[1])
        client = CloudRuntimesClient(app_id="few", timeout=10)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + free, hard))
        try:
            use(client)
            said = "done"
        except CloudRuntimesError as error:
            said = f"{type(error).__name__} {error.retryable} {'ulimit -n' in str(error)}"
        except BaseException as error:
            said = f"bare {type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if said != "done":
            use(client)  # it works once there are files again
        os.write(1, (json.dumps(said) + chr(10)).encode())
        os._exit(0)
    os.wait()
"""
OPENING = {
    "state": "client.state.save('store', 'k', 1)",
    "publish": "client.pubsub.publish('bus', 't', 1)",
    "subscribe": "client.pubsub.subscribe('bus', 't').close()",
    "configuration": "client.configuration.save_configuration('app', {'k': '1'})",
    "lock": "client.lock.try_lock('locks', 'r')",
    "file": "client.file.put_file('files', 'a', b'1')",
    "schedule": "client.schedule.list_jobs()",
    "secret": "client.secret",
    "telemetry": "client.telemetry.tracer('t')",
}


@pytest.mark.promise("C2")
@pytest.mark.process
@pytest.mark.parametrize("service", OPENING)
def test_too_many_open_files(tmp_path: Path, service: str, rounds: Rounds) -> None:
    step = rounds(2, 1)
    child = subprocess.run(
        [sys.executable, "-c", CHILD.replace("CALL", OPENING[service]), str(tmp_path), str(step)],
        capture_output=True,
        text=True,
        check=True,
    )
    said = [json.loads(line) for line in child.stdout.splitlines()]
    assert len(said) == 12 // step, child.stderr
    assert set(said) == {"done", "ResourceExhaustedError True True"}


def test_an_import_that_says_it_only_in_its_message() -> None:
    assert resource_exhausted(ImportError("/lib/x.so: cannot open shared object file: Too many open files")) is not None
    assert resource_exhausted(ImportError("No module named 'x'")) is None
    assert resource_exhausted(FileNotFoundError(2, "No such file or directory")) is None
    assert resource_exhausted(ValueError("Too many open files")) is None


# -- what a process remembers of names that others give, such as the callers of a sidecar


def test_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes._service.base.MAX_NAMES", 3)
    with CloudRuntimesClient(config={"capa": {"home": ":memory:names"}}) as client:
        for number in range(5):
            client.state.save(f"store{number}", "k", number)
        assert set(client.state._frame.drivers) == {"store2", "store3", "store4"}
        assert [client.state.get(f"store{number}", "k") for number in range(5)] == [*range(5)]
        assert len(client.state._frame.drivers) == 3


def test_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.components.sqlite.pubsub._MAX_TOPICS", 3)
    with CloudRuntimesClient(config={"capa": {"home": ":memory:topics"}}, app_id="a") as client:
        with client.pubsub.subscribe("bus", "topic0") as events:
            for number in [*range(5), 0]:
                client.pubsub.publish("bus", f"topic{number}", number)
            assert [events.receive(10).data, events.receive(10).data] == [0, 0]
        assert len(client.pubsub._frame.drivers["bus"]._topics) <= 3


def test_schedules() -> None:
    every = ",".join(map(str, range(60)))
    occurrences(f"{every} * * * *", "UTC")
    kept = occurrences.cache_info().currsize
    with pytest.raises(InvalidArgumentError, match=r"has 1,010 characters: 1,000 are taken"):
        occurrences("@every 10s".rjust(1010), "UTC")
    assert occurrences.cache_info().currsize == kept
