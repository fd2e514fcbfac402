"""Effects of NATS streams and servers on pub/sub: trimming, and the behaviour of servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from cloud_runtimes.components.nats.consumers import EventStream
from cloud_runtimes.components.nats.failures import NO_CONSUMER, ServerError
from cloud_runtimes.components.nats.streams import MAIN
from cloud_runtimes.errors import (
    DeadlineExceededError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from tests.support import Make, Rounds
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.nats import NatsHome
from tests.support.members import SOON, answer, collect, join, poll
from tests.support.nats import Serve
from tests.support.nats_other import Other, on
from tests.support.waiting import Stopwatch, until

# -- what is trimmed ----------------------------------------------------------


def test_nothing_is_trimmed_that_a_group_has_not_settled(home: NatsHome, other: Other) -> None:
    client = on(home, retention=0.2)
    driver: Any = client.pubsub._frame.driver("bus")

    def publish_later(topic: str = "t", **options: Any) -> None:
        time.sleep(0.25)
        driver._trim_at = 0.0
        client.pubsub.publish("bus", topic, 1, **options)

    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    source = join(client)
    deliveries = collect(source, 10)
    publish_later()
    assert other.stored() == 11
    assert not poll(source, answer(deliveries[:4]), want=0, timeout=0.1)
    publish_later()
    assert other.stored() == 12 - 4
    deliveries = deliveries[4:]
    while len(deliveries) < 8:
        deliveries += poll(source)
    source.close(answer(deliveries))
    publish_later()
    assert other.stored() == 1
    other.api("CONSUMER.DELETE", None, ".suite=t")
    publish_later("u", delay=500)
    assert other.stored() == 1
    publish_later()
    publish_later()
    # what is published later holds what is behind it
    assert other.stored() == 3
    assert other.stored(other.subject()) == 2


def test_a_group_that_nobody_asks_for_goes(home: NatsHome, other: Other) -> None:
    source = join(on(home, group_expiry=2))
    source.close(())
    names = {"suite=t", "suite=t=again"}
    assert set(other.api("CONSUMER.NAMES")["consumers"]) == names
    until(lambda: not other.api("CONSUMER.NAMES")["consumers"])


# -- what a server may do -----------------------------------------------------


def test_a_group_that_has_gone_is_made_again(home: NatsHome, other: Other, rounds: Rounds) -> None:
    """At once, while the server is still deleting it: the new one must not have its state, which holds back what was delivered."""
    client = home.client()
    for turn in range(rounds(1, 200)):
        topic = f"t{turn}"
        with client.pubsub.subscribe("bus", topic) as sub:
            client.pubsub.publish("bus", topic, 1)
            held = sub.receive(SOON)
            other.api("CONSUMER.DELETE", None, f".suite={topic}")
            client.pubsub.publish("bus", topic, 2)
            again, event = sub.receive(SOON), sub.receive(SOON)
            assert (again.data, event.data) == (1, 2)
            for each in (held, again, event):
                each.ack()
            until(lambda topic=topic: other.pending(f"suite={topic}") == 0)  # type: ignore[misc]


def test_a_stream_that_has_gone_is_made_again(home: NatsHome, other: Other, rounds: Rounds) -> None:
    """Not at once: one that is made while the server is still deleting the other never answers."""
    client = home.client()
    with client.pubsub.subscribe("bus", "t") as sub:
        for turn in range(rounds(1, 200)):
            client.pubsub.publish("bus", "t", turn)
            sub.receive(SOON).ack()
            other.api("STREAM.DELETE")
            client.pubsub.publish("bus", "t", -turn)
            event = sub.receive(SOON)
            assert event.data == -turn
            event.ack()
            until(lambda: other.pending() == 0)


def test_a_consumer_that_has_gone_says_so_late(home: NatsHome, other: Other) -> None:
    """When there is a new one: it answers each request that it had, and members keep what the new one delivered."""
    client = home.client()
    other.send(b"UNSUB 1\r\nSUB $JS.API.CONSUMER.MSG.NEXT.> 1\r\n")
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish("bus", "t", 1)
        held = sub.receive(SOON)
        head = b"NATS/1.0 409 Consumer Deleted\r\n\r\n"
        for asked in other.hear(2):
            other.send(b"HPUB %b %d %d\r\n%b\r\n" % (asked.reply, len(head), len(head), head))
        assert sub.receive(0.3) is None
        held.ack()
        client.pubsub.publish("bus", "t", 2)
        event = sub.receive(SOON)
        assert (event.data, event.delivery_count) == (2, 1)
        event.ack()
    assert client.pubsub.lag("bus", "t") == 0


def test_a_consumer_that_another_made_just_now_stays(
    home: NatsHome, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it has delivered, though nobody asks it for more at the moment."""
    client = home.client()
    join(client).close(())
    client.pubsub.publish("bus", "t", 1)
    other.pull("suite=t", 1)
    made = other.api("CONSUMER.INFO", None, ".suite=t")["created"]
    until(lambda: other.api("CONSUMER.INFO", None, ".suite=t")["num_waiting"] == 0)
    asked: list[str] = []
    real = EventStream.api

    def api(self: EventStream, verb: str, *arguments: Any, **options: Any) -> Any:
        if verb == "CONSUMER.INFO" and not asked:
            asked.append(verb)
            raise ServerError(NO_CONSUMER, "consumer not found")
        return (yield from real(self, verb, *arguments, **options))

    monkeypatch.setattr(EventStream, "api", api)
    with client.pubsub.subscribe("bus", "t") as sub:
        assert sub.receive(0.3) is None
        assert other.api("CONSUMER.INFO", None, ".suite=t")["created"] == made
    assert asked


def test_a_stream_that_is_not_to_be_made(home: NatsHome, other: Other, api: Api) -> None:
    client = on(home, ensure="check")
    api.fails(NotFoundError, match="there is no stream")(client.pubsub, "publish", "bus", "t", 1)
    subjects = {"name": other.stream, "subjects": [f"{home.prefix}.bus.>"]}
    assert "error" not in other.api("STREAM.CREATE", subjects)
    api.fails(UnsupportedError, match="lacks allow_direct, allow_msg_schedules")(
        client.pubsub, "publish", "bus", "t", 1
    )
    other.api("STREAM.UPDATE", {**subjects, "allow_direct": True, "allow_msg_schedules": True})
    api.call(client.pubsub, "publish", "bus", "t", 1)


def test_a_connection_that_is_cut_loses_nothing(home: NatsHome, other: Other) -> None:
    with FaultProxy(home.server.port) as proxy:
        client = on(home, url=f"nats://127.0.0.1:{proxy.port}")
        seen: set[int] = set()
        with client.pubsub.subscribe("bus", "t", ack_wait=0.5) as sub:
            for number in range(6):
                sub.receive(0.01)
                proxy.break_all("reset")
                client.pubsub.publish("bus", "t", number, timeout=SOON)
                while number not in seen:
                    event = sub.receive(SOON)
                    seen.add(event.data)
                    event.ack()
            until(lambda: other.pending() == 0)


def test_a_request_that_its_leader_lost(home: NatsHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection lives, and brings what the group's other consumer says. It is asked again."""
    for name in ("_HEARTBEAT", "_GRACE"):
        monkeypatch.setattr(f"cloud_runtimes.components.nats.member.{name}", 0.2)
    client = home.client()
    client.pubsub.publish("bus", "t", 1)
    source = join(client)
    request = source._request

    def lose(origin: int, count: int) -> None:
        request(origin, count)
        if origin == MAIN:
            source._out.pop()
            source._request = request

    source._request = lose
    with Stopwatch() as watch:
        with pytest.raises(UnavailableError, match="does not answer"):
            poll(source)
        assert watch.seconds < 2
    (delivery,) = poll(source)
    source.close(answer([delivery]))


def test_the_clock_is_known_while_a_stream_is_looked_for(home: NatsHome) -> None:
    """Other members of the process take in messages meanwhile."""
    client = home.client()
    client.pubsub.publish("bus", "t", 1)
    source = join(client)
    source._stream.forget()
    source.close(answer(poll(source)))


def test_a_server_that_restarts_and_hangs(served: Serve, client: Make) -> None:
    server = served(jetstream={"sync_interval": "always"}, ping_interval="500ms", ping_max=2)
    app_client = client(server.url)
    assert server.process is not None
    with app_client.pubsub.subscribe("bus", "t", ack_wait=1) as sub:
        app_client.pubsub.publish("bus", "t", 1)
        event = sub.receive(SOON)
        time.sleep(1.6)  # the server asks whether the client is there
        event.ack()
        server.kill()
        server.start()
        app_client.pubsub.publish("bus", "t", 2, timeout=SOON)
        got = set()
        while 2 not in got:
            event = sub.receive(SOON)
            got.add(event.data)
            event.ack()
        server.signal(signal.SIGSTOP)
        os.waitpid(server.process.pid, os.WUNTRACED)
        timer = threading.Timer(0.5, server.signal, (signal.SIGCONT,))
        try:
            with pytest.raises(DeadlineExceededError) as caught:
                app_client.pubsub.publish("bus", "t", 3, timeout=0.3)
        finally:
            timer.start()
        assert caught.value.maybe_applied
        app_client.pubsub.publish("bus", "t", 4, timeout=SOON)
        while 4 not in got:
            event = sub.receive(SOON)
            got.add(event.data)
            event.ack()
        assert got <= {1, 2, 3, 4}
        timer.join()


def test_who_may_do_what(served: Serve, client: Make, api: Api) -> None:
    def user(name: str, *denied: str) -> dict[str, Any]:
        return {"user": name, "password": "p", "permissions": {"publish": {"deny": list(denied)}}}

    users = [
        user("reader", "cr.bus.t.>"),
        user("deaf", "$JS.API.CONSUMER.MSG.NEXT.>"),
        user("writer", "$JS.API.CONSUMER.>"),
    ]
    server = served(authorization={"users": users})

    def pubsub(name: str) -> Any:
        return client(f"nats://{name}:p@127.0.0.1:{server.port}").pubsub

    api.call(pubsub("writer"), "publish", "bus", "t", 1)
    api.fails(PermissionDeniedError, match="may not")(pubsub("writer"), "subscribe", "bus", "t")
    api.fails(PermissionDeniedError, match="may not")(pubsub("reader"), "publish", "bus", "t", 1)
    sub = api.call(pubsub("reader"), "subscribe", "bus", "t")
    event = api.call(sub, "receive", SOON)
    assert event.data == 1
    event.ack()
    api.call(sub, "close")
    sub = api.call(pubsub("deaf"), "subscribe", "bus", "t")
    api.fails(PermissionDeniedError, match="may not")(sub, "receive", SOON)
    api.call(sub, "close")


MEMBER = """
import sys, time
from cloud_runtimes import CloudRuntimesClient
with CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": sys.argv[1], "prefix": sys.argv[2]}}}) as client:
    with client.pubsub.subscribe("bus", "t", max_in_flight=10) as sub:
        print("ready", flush=True)
        for event in sub:
            time.sleep(0.005)
            event.ack()
            print(event.data, flush=True)
"""


def test_two_processes_share(home: NatsHome) -> None:
    command = [sys.executable, "-c", MEMBER, home.server.url, home.prefix]
    members = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for member in members:
        assert member.stdout is not None
        assert member.stdout.readline() == "ready\n"
    got: list[list[int]] = [[], []]

    def read(mine: list[int], said: Any) -> None:
        for line in said:
            mine.append(int(line))

    readers = [
        threading.Thread(target=read, args=(mine, member.stdout)) for mine, member in zip(got, members, strict=True)
    ]
    for reader in readers:
        reader.start()
    home.client().pubsub.publish_bulk("bus", "t", list(range(200)))
    try:
        until(lambda: len(got[0]) + len(got[1]) >= 200)
    finally:
        for reader, member in zip(readers, members, strict=True):
            member.kill()
            reader.join()
            member.communicate()
    assert sorted(got[0] + got[1]) == list(range(200))
    assert min(map(len, got)) > 5
