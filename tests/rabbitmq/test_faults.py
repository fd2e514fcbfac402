"""Producers, consumers and the server are killed, their network parted, the server harmed: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud_runtimes.errors import DeadlineExceededError, ResourceExhaustedError, UnavailableError
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support import Figure, Make, Rounds
from tests.support.fault_proxy import FaultProxy, Way
from tests.support.harnesses.rabbitmq import RabbitHome
from tests.support.loss import KILLS, come_and_go, dead, kill_all, outlast, slow, stall
from tests.support.needs import present
from tests.support.rabbitmq import RabbitServer, serve, stopped

GROUPS = {"groups": ["suite"]}
YOUNG = 4.0
"""Seconds after which a new queue of RabbitMQ 3.10 survives a SIGKILL of its server: it writes down later that the queue has a log."""


HOLDER = """
import json, sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": json.loads(sys.argv[1])}})
event = client.pubsub.subscribe("bus", "t", ack_wait=1).receive(20)
print(event.data, flush=True)
sys.stdin.read()
"""


@contextmanager
def blocked(server: RabbitServer, proxy: FaultProxy) -> Iterator[None]:
    """Have no memory."""
    alarm = f"{{resource_limit,memory,'{server.node}'}}"
    server.call("rabbit_alarm", "set_alarm", f"[{{{alarm},[]}}]")
    server.call("rabbit_alarm", "get_alarms")  # it is told in the order of calls
    yield
    server.call("rabbit_alarm", "clear_alarm", f"[{alarm}]")


@contextmanager
def hung(server: RabbitServer, proxy: FaultProxy) -> Iterator[None]:
    """Have it stand still."""
    with stopped(server):
        yield


HARMS = (
    (slow, DeadlineExceededError, "0.3 s"),
    (blocked, ResourceExhaustedError, "connection.blocked: low on memory.*watermark"),
    (hung, DeadlineExceededError, "0.3 s"),
    (dead, UnavailableError, "can be reached"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    """A server that tests may break; they leave it whole, since another takes long to start."""
    with present(serve()) as broker:
        yield broker


@pytest.mark.promise("A2")
def test_nothing_acknowledged_is_lost(
    server: RabbitServer, client: Make, rounds: Rounds, figure: Figure, tmp_path: Path
) -> None:
    with client(server.url) as app_client:
        app_client.pubsub.subscribe("bus", "t").close()
        # and where retries wait
        app_client.pubsub.publish("bus", "t", -1, delay=0.01)
    time.sleep(YOUNG)
    figure(f"{KILLS}, RabbitMQ", kill_all(server, rounds(1, 200), tmp_path, GROUPS, None))


@pytest.mark.promise("B1")
def test_publishers_outlast(server: RabbitServer, client: Make, rounds: Rounds) -> None:
    """A server that is slow, out of memory, hung or dead. In CI each harm is tried with one API."""
    with FaultProxy(server.port) as proxy:
        home = client(server.url.replace(str(server.port), str(proxy.port)))
        apis = [SyncApi(), AsyncApi()]
        for api in apis:
            home.pubsub.publish("bus", f"harmed-{api.name}", 0)
        time.sleep(YOUNG)
        for turn in range(rounds(1, 2)):
            for number, (does, kind, match) in enumerate(HARMS):
                outlast(home, apis[(turn + number) % 2], does(server, proxy), kind, match, None)
        for api in apis:
            api.close()


def test_a_publisher_outlasts_a_stall(server: RabbitServer, client: Make) -> None:
    stall(client(server.url), stopped(server))


def test_members_that_come_and_go_settle_all(home: RabbitHome, rounds: Rounds) -> None:
    come_and_go(home.home, rounds(1_000, 300_000), None)


@pytest.mark.promise("B5")
def test_a_connection_is_cut_amid_a_batch(home: RabbitHome, port: int, api: Api) -> None:
    """Acknowledged events arrive, whatever was sent again."""
    home.home["url"] = home.url.replace(str(port), "{}")
    with FaultProxy(port) as proxy:
        home.home["url"] = home.home["url"].format(proxy.port)
        client = home.client()
        seen: list[int] = []
        with api.opened(client.pubsub.publisher("bus", "t", batch_events=100)) as publisher:
            with api.opened(client.pubsub.subscribe("bus", "t", batch=50)) as sub:
                for number in range(2_000):
                    api.call(publisher, "send", number)
                    if number % 500 == 250:
                        proxy.break_all("reset")
                api.call(publisher, "flush", 30)
                assert publisher.stats().delivered == 2_000
                end = time.monotonic() + 20
                while len(set(seen)) < 2_000 and time.monotonic() < end:
                    batch = api.call(sub, "receive", 1)
                    if batch is not None:
                        seen += [event.data for event in batch]
                        batch.ack()
        assert set(seen) == set(range(2_000))


def test_an_event_on_its_way(home: RabbitHome, port: int, api: Api) -> None:
    """Whether it may have arrived is told: nobody saw its confirm."""
    with FaultProxy(port) as proxy:
        home.home["url"] = home.url.replace(str(port), str(proxy.port))
        client = home.client()
        api.call(client.pubsub, "publish", "bus", "t", 1)

        def cut() -> None:
            proxy.break_all("reset")
            proxy.gone()

        proxy.down = Way(lost=True)
        threading.Timer(0.3, cut).start()
        error = api.fails(UnavailableError, match="no server can be reached")(client.pubsub, "publish", "bus", "t", 2)
        assert error.maybe_applied
        fresh = home.client()
        assert not api.fails(UnavailableError)(fresh.pubsub, "publish", "bus", "u", 2).maybe_applied
        proxy.heal()
        proxy.back()
        api.call(client.pubsub, "publish", "bus", "t", 3)


def test_what_a_hung_member_held(home: RabbitHome) -> None:
    """A process that stands still keeps its connection, and not its events."""
    client = home.client()
    client.pubsub.publish("bus", "t", 7)
    command = [sys.executable, "-c", HOLDER, json.dumps(home.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "7\n"
            holder.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            with client.pubsub.subscribe("bus", "t") as sub:
                event = sub.receive(20)
                assert event is not None
                assert (event.data, event.delivery_count) == (7, 2)
                assert time.monotonic() - started < 10
                event.ack()
        finally:
            holder.kill()
