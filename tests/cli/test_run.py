"""``run``: an application in workers that are mended and reloaded."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.cli._errors import exit_code
from cloud_runtimes.errors import InvalidArgumentError, PayloadError
from tests.support.ports import free_port
from tests.support.waiting import until

APPLICATION = """
import os
from cloud_runtimes import CloudRuntimesClient

client = CloudRuntimesClient()
VERSION = 1

@client.pubsub.subscription("bus", "orders")
def handle(order: int) -> None:
    client.state.save("handled", str(order), [os.getpid(), VERSION])

@client.rpc.method("process")
def process() -> int:
    return os.getpid()
"""

pytestmark = pytest.mark.process


class Shop:
    """The application, run by the command."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.module = folder / "shop.py"
        self.module.write_text(APPLICATION, encoding="utf-8")
        home = folder / "home"
        self.client = CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(home)}})
        environment = {**os.environ, "CLOUD_RUNTIMES_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "cloud_runtimes", "--app-id", "shop", "run", "shop:client", *options]
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stderr=log)
        self._sent = 0

    def handled(self) -> list[int]:
        """Publish an event and return which process handled it, and at which version of the module."""
        self._sent += 1
        self.client.pubsub.publish("bus", "orders", self._sent)
        end = time.monotonic() + 60
        while (value := self.client.state.get("handled", str(self._sent))) is None:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)
        result: list[int] = value
        return result

    def wait_for(self, text: str, times: int = 1) -> None:
        end = time.monotonic() + 60
        while len(re.findall(text, self.log.read_text())) < times:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    instance = Shop(tmp_path, *request.param)
    yield instance
    instance.close()


@pytest.mark.parametrize("shop", [["--workers", "2", "--reload"]], indirect=True)
def test_workers_are_mended_and_reloaded(shop: Shop) -> None:
    shop.wait_for("1 subscription", 2)
    pid, version = shop.handled()
    assert (pid != shop.process.pid, version) == (True, 1)
    os.kill(pid, signal.SIGKILL)
    shop.wait_for("a worker has ended with SIGKILL: another one begins")
    shop.wait_for("1 subscription", 3)
    for _ in range(5):
        assert shop.handled()[0] != pid
    shop.module.write_text(APPLICATION.replace("VERSION = 1", "VERSION = 2"), encoding="utf-8")
    shop.wait_for("shop.py has changed: reloading")
    shop.wait_for("1 subscription", 5)
    assert shop.handled()[1] == 2
    shop.module.write_text("this is no Python", encoding="utf-8")
    shop.wait_for("exit code 1: waiting for a change", 2)
    shop.module.write_text(APPLICATION.replace("VERSION = 1", "VERSION = 3"), encoding="utf-8")
    assert shop.handled()[1] == 3
    shop.process.terminate()
    assert shop.process.wait(60) == 143
    assert "Traceback" not in shop.log.read_text().partition("this is no Python")[0]


@pytest.mark.parametrize("shop", [["--workers", "2"]], indirect=True)
def test_a_signal_ends_all_workers(shop: Shop) -> None:
    shop.wait_for("1 subscription", 2)
    shop.process.send_signal(signal.SIGINT)
    assert shop.process.wait(60) == 130
    assert "Traceback" not in shop.log.read_text()


@pytest.mark.parametrize("began", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("shop", [["--workers", "2"]], indirect=True)
def test_workers_end_with_a_supervisor_that_is_killed(shop: Shop, began: bool) -> None:
    supervisor = shop.process.pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    workers: list[Path] = until(
        lambda: (paths := [Path("/proc", each) for each in children.read_text().split()]) and len(paths) == 2 and paths
    )
    if began:
        shop.wait_for("1 subscription", 2)
    shop.process.kill()
    until(lambda: not any(each.exists() for each in workers))
    assert "Traceback" not in shop.log.read_text()


def test_workers_share_a_port_that_is_given(tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    shop = Shop(tmp_path, "--workers", "2", "--port", str(port))
    configuration = {"capa": {"home": str(tmp_path / "home")}}
    try:
        shop.wait_for(f"shop at {address} with 1 method", 2)
        seen: set[int] = set()
        end = time.monotonic() + 60
        while len(seen) < 2:  # each client has a connection, which one of them takes
            assert time.monotonic() < end
            with CloudRuntimesClient(app_id="caller", config=configuration) as caller:
                seen.add(caller.rpc.invoke_method("shop", "process", type=int))
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
            assert answer.status == 204
        os.kill(seen.pop(), signal.SIGKILL)
        for _ in range(10):
            with CloudRuntimesClient(app_id="caller", config=configuration) as caller:
                assert caller.rpc.invoke_method("shop", "process", type=int) != shop.process.pid
        shop.wait_for("another one begins")
        shop.process.terminate()
        assert shop.process.wait(60) == 143
        with socket.create_server(("127.0.0.1", port)):
            pass
    finally:
        shop.close()


def test_wrong_applications_end_at_once(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from cloud_runtimes import CloudRuntimesClient\nclient = CloudRuntimesClient()\ndef make(): return 1\n"
    )
    for options, said in (
        (["shop:client"], "nothing is registered to run"),
        (["shop:client", "--workers", "2"], "nothing is registered to run"),
        (["shop:other", "--workers", "2"], "has no 'other'"),
        (["shop:make"], "give --factory if it returns one"),
        (["shop:make", "--factory", "--workers", "2"], "is int, not a CloudRuntimesClient"),
        (["shop:client", "--factory"], "leave out --factory"),
        (["shop:client", "--log-level", "loud"], "'loud' is not one of"),
    ):
        code, message = _refused(tmp_path, *options)
        assert (code, said in message) == (2, True), message
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, message = _refused(tmp_path, "shop:client", "--workers", "2", "--port", str(port))
        assert (code, f"127.0.0.1:{port} cannot be listened on" in message) == (5, True), message


def _refused(folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "cloud_runtimes", "run", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_bad_data_is_no_wrong_usage() -> None:
    assert exit_code(PayloadError("not ours")) == 1
    assert exit_code(InvalidArgumentError("yours")) == 2


SLOW = """
import asyncio
import time
from cloud_runtimes import CloudRuntimesClient

def make():
    client = CloudRuntimesClient(app_id="shop")

    @client.rpc.method("slow")
    def slow() -> None:
        print("begun", flush=True)
        time.sleep(300)

    @client.rpc.method("slow-async")
    async def sleep() -> None:
        print("begun", flush=True)
        await asyncio.sleep(300)

    return client
"""


@pytest.mark.parametrize(("method", "name"), [("slow", "slow"), ("slow-async", "sleep")])
def test_a_signal_that_waits_for_a_handler_says_so_and_a_second_one_ends_it(
    tmp_path: Path, method: str, name: str
) -> None:
    (tmp_path / "shop.py").write_text(SLOW, encoding="utf-8")
    environment = {**os.environ, "CLOUD_RUNTIMES_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "cloud_runtimes"]
    log = tmp_path / "log"
    with open(log, "wb") as stderr:
        process = subprocess.Popen(
            [*command, "run", "shop:make", "--factory"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    caller = None
    try:
        until(lambda: "2 methods" in log.read_text())
        caller = subprocess.Popen([*command, "invoke", "shop", method], env=environment, stderr=subprocess.DEVNULL)
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        until(lambda: f"waiting for running handlers to end: {name}; Ctrl-C again ends them" in log.read_text())
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        for each in (process, caller):
            if each is not None:
                each.kill()
                each.communicate()


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=["one", "two"])
def test_the_level_of_logs(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION + "\nimport logging; logging.getLogger('shop').debug('a detail')\n")
    (tmp_path / "noisy.py").write_text("import shop, logging\nmake = lambda: shop.client\n", encoding="utf-8")
    environment = {**os.environ, "CLOUD_RUNTIMES_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "cloud_runtimes", "run", "noisy:make", "--factory", "--log-level", "debug", *more]
    log = tmp_path / "log"
    with open(log, "wb") as stderr:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=stderr)
    try:
        until(lambda: " DEBUG " in log.read_text() and "1 subscription" in log.read_text())
    finally:
        process.terminate()
        process.wait(60)
