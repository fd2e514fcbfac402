"""``copy`` of state and configuration between a folder and Redis or NATS, both ways."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError
from cloud_runtimes.schedule import Retry, TopicTarget
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.state import StateWrite
from tests.cli.conftest import Run
from tests.cli.test_copy import _rows
from tests.support.harnesses.nats import NatsHome
from tests.support.harnesses.redis import DaprHome, ValkeyHome

_WRITE = Method("state", "test", repeatable=True)
BOTH = ("--service", "state", "--service", "configuration")


@pytest.fixture(params=["valkey", "nats"])
def far(request: pytest.FixtureRequest) -> Iterator[Any]:
    make: Any = {"valkey": ValkeyHome, "nats": NatsHome}[request.param]
    home = make(request.getfixturevalue(f"{request.param}_server"))
    yield home
    home.close()


def _side(tmp_path: Path, home: Any) -> str:
    """Return the side of a command: URL and prefix in a file."""
    settings = {"url": getattr(home, "url", home.server.url), "prefix": home.prefix}
    layout = getattr(home, "layout", None)
    settings |= {"layout": layout} if layout else {}
    file = tmp_path / f"{home.name}.toml"
    file.write_text("[capa.home]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    return f"config:{file}"


def _fill(client: CloudRuntimesClient) -> None:
    client.state.save("orders", "json", {"total": 12.5})
    client.state.save("orders", "binary", b"\x00\xff" * 100)
    client.state.save("orders", "text ü", "ü", content_type="text/plain")
    client.state.save("orders", "brief", 1, ttl=timedelta(hours=1))
    client.state.save("orders", "fenced", 1, fence=1000)
    client.state.save("orders", "gone", 1, fence=1001)
    client.state.delete("orders", "gone")
    client.state.save_bulk("many }:*", {f"key-{number:05}": {"number": number} for number in range(1_100)})
    client.state.save_bulk("large", {f"key-{number}": bytes(1024 * 1024 + number) for number in range(5)})
    client.configuration.save_configuration("app", {"host": "localhost", "port": "5432"})
    client.configuration.save_configuration("app", {"host": "other"}, group="east", label="canary")
    client.configuration.delete_configuration("app", ["port"])


def _picture(client: CloudRuntimesClient) -> dict[str, Any]:
    contents: dict[str, Any] = {}
    for store in ("orders", "many }:*", "large"):
        for key, item in client.state.get_bulk(store, client.state.list_keys(store), type=bytes).items():
            contents[f"{store}/{key}"] = (item.value, item.content_type, item.expires_at is not None)
    for scope in ({}, {"group": "east", "label": "canary"}):
        for key, one in client.configuration.get_configuration_items("app", **scope).items():
            contents[f"app/{scope}/{key}"] = (one.value, one.group, one.label)
    return contents


def _check_writes(client: CloudRuntimesClient) -> None:
    for key in ("fenced", "gone"):
        with pytest.raises(ConflictError, match="fence"):
            client.state.save("orders", key, 1, fence=999)
    with client.lock.hold("locks", "x") as lease:  # tokens are higher than the fences that were copied
        assert lease.token is not None
        client.state.save("orders", "gone", 1, fence=lease.token)


def test_there_and_back(cli: Run, tmp_path: Path, far: Any) -> None:
    folder, side, back = str(tmp_path / "folder"), _side(tmp_path, far), str(tmp_path / "back")
    with CloudRuntimesClient(config={"capa": {"home": folder}}, app_id="shop") as client:
        _fill(client)
        before = _picture(client)
    assert len(before) == 5 + 1_100 + 5 + 2
    result = cli("copy", "--from", folder, "--to", side)  # nothing else is there, so all of it goes
    assert (result.code, result.err.count("error")) == (0, 0), result
    rows = _rows(result.out.replace(b"many }:*", b"many"))
    assert rows == {
        "configuration app": [2, 2, 0, 0],
        "state large": [5, 5, 0, 0],
        "state many": [1_100, 1_100, 0, 0],
        "state orders": [6, 6, 0, 0],
    }
    again = cli("copy", "--from", folder, "--to", side)
    assert {row[1] for row in _rows(again.out.replace(b"many }:*", b"many")).values()} == {0}
    client = far.client(app_id="shop")
    assert _picture(client) == before
    client._context.runtime().driver("state", "orders").write(Operation(_WRITE, "orders", 5.0), [StateWrite("||outbox||bus||1", b"1")], True)  # type: ignore[attr-defined]
    result = cli("copy", "--from", side, "--to", back, *BOTH)
    assert result.code == 0, result
    assert _rows(result.out.replace(b"many }:*", b"many"))["state orders"] == [6, 6, 0, 0], "an outbox stays"
    with CloudRuntimesClient(config={"capa": {"home": back}}, app_id="shop") as other:
        assert _picture(other) == before
        _check_writes(other)
    _check_writes(client)


def test_what_is_there_is_left(cli: Run, tmp_path: Path, far: Any) -> None:
    folder, side = str(tmp_path / "folder"), _side(tmp_path, far)
    with CloudRuntimesClient(config={"capa": {"home": folder}}, app_id="shop") as client:
        client.state.save_bulk("orders", {"a": 1, "b": 2})
        client.state.save("orders", "a", 1, fence=7)
    there = far.client(app_id="shop")
    there.state.save("orders", "a", 5, fence=9)
    result = cli("copy", "--from", folder, "--to", side)
    assert (result.code, _rows(result.out)["state orders"]) == (1, [2, 1, 0, 1])
    assert there.state.get("orders", "a") == 5
    result = cli("copy", "--from", folder, "--to", side, "--overwrite")
    assert there.state.get("orders", "a") == 1
    assert (result.code, _rows(result.out)["state orders"][3]) == (1, 1), "its fence stays the higher one"
    with pytest.raises(ConflictError, match="fence 9"):
        there.state.save("orders", "a", 6, fence=8)


def test_jobs_go_to_redis_and_back(cli: Run, tmp_path: Path, valkey_server: Any) -> None:
    home = ValkeyHome(valkey_server)
    folder, side, back = str(tmp_path / "folder"), _side(tmp_path, home), str(tmp_path / "back")
    with CloudRuntimesClient(config={"capa": {"home": folder}}, app_id="shop") as client:
        jobs = client.schedule
        jobs.schedule_job("nightly", schedule="0 3 * * *", data={"n": 1}, timezone="Europe/Paris")
        jobs.schedule_job("once", due_time=datetime(2040, 1, 1, tzinfo=UTC), target=TopicTarget("bus", "orders"))
        jobs.schedule_job("bytes", schedule="@daily", data=b"\x00\xff", failure_policy=Retry(attempts=5, interval=2))
        done = threading.Event()

        @jobs.job("done")
        def handler(data: Any) -> None:
            done.set()

        jobs.schedule_job("done", schedule="@daily")
        jobs.run_now("done")
        with jobs.running():
            assert done.wait(10)
            while any(run.ended_at is None for run in jobs.list_runs("done")):
                time.sleep(0.01)
        jobs.run_now("nightly")  # which nobody runs here
        before = (jobs.list_jobs(), [jobs.list_runs(name) for name in ("nightly", "done")])
    for _ in range(2):
        result = cli("copy", "--from", folder, "--to", side, "--overwrite")
        assert (result.code, _rows(result.out)["schedule shop"][2:]) == (0, [0, 0]), result
    far = home.client(app_id="shop").schedule
    assert (far.list_jobs(), [far.list_runs(name) for name in ("nightly", "done")]) == before
    result = cli("copy", "--from", side, "--to", back, "--service", "schedule")
    assert (result.code, _rows(result.out)) == (0, {"schedule shop": [4, 4, 0, 0]}), result
    with CloudRuntimesClient(config={"capa": {"home": back}}, app_id="shop") as client:
        jobs = client.schedule
        assert (jobs.list_jobs(), [jobs.list_runs(name) for name in ("nightly", "done")]) == before
    # what was open runs at once, and occurrences go on
    ran = threading.Event()

    @far.job("nightly")
    def nightly(data: Any) -> None:
        ran.set()

    with far.running():
        assert ran.wait(10)
    far.delete_job("once")
    assert [job.name for job in far.list_jobs()] == ["bytes", "done", "nightly"]
    home.close()


def test_what_does_not_move_is_refused_before_anything_is_written(cli: Run, tmp_path: Path, far: Any) -> None:
    folder, side = str(tmp_path / "folder"), _side(tmp_path, far)
    with CloudRuntimesClient(config={"capa": {"home": folder}}, app_id="shop") as client:
        client.state.save("orders", "a", 1)
        client.pubsub.publish("bus", "orders", 1)
        for step in ((), ("--service", "pubsub")):
            result = cli("copy", "--from", folder, "--to", side, *step)
            assert result.code != 0
            assert "pubsub" in result.err
            assert "--service" in result.err
    assert far.client(app_id="shop").state.get("orders", "a") is None


def test_tokens_of_redis_are_no_fences_on_nats(cli: Run, tmp_path: Path, valkey_server: Any, nats_server: Any) -> None:
    homes = [ValkeyHome(valkey_server), NatsHome(nats_server)]
    one, two = (home.client(app_id="shop") for home in homes)
    with one.lock.hold("locks", "x") as lease:
        one.state.save("orders", "a", 1, fence=lease.token)
    result = cli("copy", "--from", _side(tmp_path, homes[0]), "--to", _side(tmp_path, homes[1]), *BOTH)
    assert result.code != 0
    assert "higher than tokens" in result.err
    assert two.state.get("orders", "a") is None
    for home in homes:
        home.close()


def test_daprs_layout_is_not_copied(cli: Run, tmp_path: Path, valkey_server: Any) -> None:
    home = DaprHome(valkey_server)
    result = cli("copy", "--from", _side(tmp_path, home), "--to", str(tmp_path / "folder"), *BOTH)
    assert result.code != 0
    assert "Dapr's layout" in result.err
    home.close()
