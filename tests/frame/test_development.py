"""Development mode: each warning names the line, and comes once for it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core import logs
from cloud_runtimes._service import development
from cloud_runtimes.client import context_of
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def _development(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_DEV", "1")
    monkeypatch.setattr(logs, "_said", {})
    monkeypatch.setattr(development, "_topics", set())
    monkeypatch.setattr(development, "_GRACE", 0.1)


def test_a_sync_call_in_a_loop_is_told_once_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    async def program(client: CloudRuntimesClient) -> int:
        for _ in range(3):
            line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
            client.state.save("s", "k", 1)
        await client.state.save_async("s", "k", 2)
        return line

    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        client.state.save("s", "k", 0)
        line = asyncio.run(program(client))
    (message,) = [record.getMessage() for record in caplog.records if "await" in record.getMessage()]
    assert f"{__file__}:{line}: " in message
    assert "await save_async" in message


def test_a_blocked_loop_is_told_with_the_line(caplog: pytest.LogCaptureFixture) -> None:
    async def program(client: CloudRuntimesClient) -> None:
        await client.state.save_async("s", "k", 1)
        until = time.monotonic() + 10
        while "is blocked" not in caplog.text and time.monotonic() < until:
            await asyncio.sleep(0.05)
            time.sleep(0.4)

    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        asyncio.run(program(client))
    assert f"{__file__}:" in next(each.getMessage() for each in caplog.records if "is blocked" in each.getMessage())


def test_an_unknown_variable_is_told_with_the_near_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_HOEM", "x")
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME_FILE", "x")
    monkeypatch.setenv("CLOUD_RUNTIMES_SECRET_A_B", "x")
    for _ in range(2):
        CloudRuntimesClient(config={}).close()
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "CLOUD_RUNTIMES_HOEM is not read" in record.getMessage()
    assert "did you mean 'CLOUD_RUNTIMES_HOME'?" in record.getMessage()


def test_a_configuration_below_the_working_directory_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()  # the search ends here
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "cloud-runtimes.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLOUD_RUNTIMES_CONFIG", raising=False)
    CloudRuntimesClient(config={}).close()
    assert not caplog.records
    CloudRuntimesClient().close()
    assert "cloud-runtimes.toml is not read: the search goes upward" in caplog.text
    caplog.clear()
    monkeypatch.chdir(tmp_path / "shop")
    CloudRuntimesClient().close()
    assert not caplog.records


def drop(clients: list[CloudRuntimesClient]) -> None:
    clients.clear()
    gc.collect()


def test_a_client_that_nobody_closed_says_where_it_was_made(tmp_path: Path) -> None:
    clients = [CloudRuntimesClient(config={"capa": {"home": str(tmp_path)}})]  # a store in memory would outlive it
    clients[0].state.save("s", "k", 1)
    with pytest.warns(ResourceWarning, match=rf"made at {__file__}:\d+, was not closed: use it in a with block"):
        drop(clients)


def told(caplog: pytest.LogCaptureFixture, text: str) -> str:
    """Wait for a warning, and return it: there is one."""
    assert until(lambda: text in caplog.text), caplog.text
    (message,) = [each.getMessage() for each in caplog.records if text in each.getMessage()]
    return message


def test_an_event_that_nobody_answers_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        with client.pubsub.subscribe("bus", "orders", group="g", ack_wait=0.2) as events:
            client.pubsub.publish("bus", "orders", 1)
            for _ in range(3):
                event = events.receive(timeout=30)
                assert event is not None
        told(caplog, f"event {event.id} was received and not answered for 0.2 s")
        assert "call ack(), retry() or drop()" in caplog.text


def test_a_topic_that_nobody_gets_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        with client.pubsub.subscribe("bus", "orders", group="g"):
            for _ in range(2):
                line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
                client.pubsub.publish("bus", "order", 1)
            asyncio.run(client.pubsub.publish_async("bus", "logs", 1))
            client.pubsub.publish("bus", "orders", 1)
            message = told(caplog, "no group has subscribed to bus/order,")
            assert message.startswith(f"{__file__}:{line}: ")
            assert message.endswith("did you mean 'orders'?")
            assert "start='earliest'" in told(caplog, "no group has subscribed to bus/logs,")
            assert "to bus/orders" not in caplog.text


def test_a_subscription_to_an_empty_topic_with_a_near_one_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        client.pubsub.publish("bus", "orders", 1)
        with (
            client.pubsub.subscribe("bus", "order", group="g"),
            client.pubsub.subscribe("bus", "orders", group="g"),
            client.pubsub.subscribe("bus", "invoices", group="g"),
        ):
            assert told(caplog, "has no events").endswith("bus/order has no events: did you mean 'orders'?")


PROGRAM = """
import sys
from cloud_runtimes import CloudRuntimesClient

client = CloudRuntimesClient(app_id="shop", config={"capa": {"home": sys.argv[1]}})

@client.pubsub.subscription("bus", "orders")
def handle(order: int) -> None:
    print(%r)

with client.running():
    print("running", flush=True)
    sys.stdin.read()
"""


@pytest.mark.process
def test_other_code_in_a_process_of_the_same_name_is_told(tmp_path: Path) -> None:
    processes = []
    try:
        for name, text in (("one", "a"), ("same", "a"), ("other", "b")):
            path = tmp_path / f"{name}.py"
            path.write_text(PROGRAM % text, encoding="utf-8")
            command = [sys.executable, str(path), str(tmp_path / "home")]
            with open(tmp_path / f"{name}.log", "wb") as log:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            processes.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            until(lambda: len([*(tmp_path / "home" / "development").glob("*.json")]) == len(processes))
        assert until(lambda: (tmp_path / "other.log").read_text().count("with other code for pubsub") == 2)
        said = (tmp_path / "other.log").read_text()
        assert f"process {processes[0].pid} runs 'shop' too" in said
        assert "other code" not in (tmp_path / "same.log").read_text()
    finally:
        for process in processes:
            process.communicate()
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(tmp_path / "home")}}) as client:
        client.state.save("s", "k", 1)
        development.compare_processes(context_of(client))
    (left,) = (tmp_path / "home" / "development").glob("*.json")
    assert left.name == f"{os.getpid()}-shop.json"


def test_without_it_nothing_is_around_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_DEV", "0")
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        client.state.save("s", "k", 1)
        client.pubsub.publish("bus", "orders", 1)
        assert not development._topics
        assert context_of(client).frame("state").interceptors == ()
