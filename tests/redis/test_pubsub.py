"""Pub/sub on Redis beyond the suite: who reads what, held events, trimming, and the behaviour of servers."""

from __future__ import annotations

import json
import logging
import signal
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.redis.resp import NOTHING, pack, reader
from cloud_runtimes.errors import DeadlineExceededError, UnavailableError, UnsupportedError
from cloud_runtimes.spi.pubsub import Settlement
from cloud_runtimes.testing import Api
from tests.support.harnesses.redis import RedisHome
from tests.support.members import SOON, answer, die, join, poll
from tests.support.redis import serve
from tests.support.waiting import Stopwatch, until


class Server:
    """Commands of another program."""

    def __init__(self, home: RedisHome) -> None:
        self.home = home

    def __call__(self, *words: Any) -> Any:
        replies = reader()
        with socket.create_connection(("127.0.0.1", self.home.server.port), 5) as connection:
            connection.sendall(pack([word if isinstance(word, bytes) else str(word) for word in words]))
            while (reply := replies.gets()) is NOTHING:
                replies.feed(connection.recv(1 << 20))
        return reply

    def key(self, *parts: str) -> str:
        return ":".join((f"{{{self.home.prefix}:pubsub:bus}}", *parts))

    def pending(self, group: str = "suite") -> int:
        return int(self("XPENDING", self.key("topic", "t"), group)[0])

    def members(self, group: str = "suite") -> int:
        return len(self("XINFO", "CONSUMERS", self.key("topic", "t"), group))

    def counter(self, what: str) -> int:
        return int(self("HGET", self.key("counters"), f"{what}:bus/t/suite") or 0)


@pytest.fixture
def server(home: RedisHome) -> Server:
    return Server(home)


def framed(home: RedisHome, **more: Any) -> CloudRuntimesClient:
    given = {"url": home.server.url, "prefix": home.prefix, "layout": "frame", **more}
    client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": given}})
    home._clients.append(client)
    return client


# -- who reads what -----------------------------------------------------------


def test_others_read_what_is_published(home: RedisHome, server: Server) -> None:
    home.client().pubsub.publish("bus", "t", {"n": 1})
    ((_, fields),) = server("XRANGE", server.key("topic", "t"), "-", "+")
    assert fields[0] == b"data"
    assert json.loads(fields[1])["specversion"] == "1.0"
    assert json.loads(fields[1])["data"] == {"n": 1}


def test_what_others_publish_is_read(home: RedisHome, server: Server) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": [1]}
    stream = server.key("topic", "t")
    server("XADD", stream, "*", "data", json.dumps(event))
    server("XADD", stream, "*", "data", b"\x00\xff")
    server("XADD", stream, "*", "temperature", "21", "unit", "C")
    server("XADD", stream, "*", "data", b"CRF\x01 and what is no frame")
    server("XADD", stream, "*", "data", json.dumps(event | {"id": "2"}))
    source = join(home.client())
    deliveries = poll(source)
    records = [each.record for each in deliveries]
    assert [record.payload for record in records] == [
        b"[1]", b"\x00\xff", b'{"temperature": "21", "unit": "C"}', b"CRF\x01 and what is no frame", b"[1]"
    ]  # fmt: skip
    assert [record.raw for record in records] == [False, True, True, True, False]
    assert (records[0].id, records[4].id) == ("1", "2")
    assert records[2].content_type == "application/json"
    source.close(answer(deliveries))
    until(lambda: server.pending() == 0)


@pytest.mark.parametrize("reader", ["event", "frame"])
def test_both_layouts_are_read(home: RedisHome, server: Server, reader: str) -> None:
    plain, packed = home.client(), framed(home)
    plain.pubsub.publish_bulk("bus", "t", [1, 2])
    packed.pubsub.publish_bulk("bus", "t", list(range(3, 1003)))
    plain.pubsub.publish("bus", "t", 1003)
    assert server("XLEN", server.key("topic", "t")) == 4
    with (plain if reader == "event" else packed).pubsub.subscribe("bus", "t", batch=100) as sub:
        got: list[int] = []
        while len(got) < 1003:
            batch = sub.receive(SOON)
            assert batch is not None
            assert len(batch) <= 100
            got += [event.data for event in batch]
            batch.ack()
    assert got == list(range(1, 1004))
    until(lambda: server.pending() == 0)


def test_a_new_group_replays_all(home: RedisHome) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", list(range(300)))
    for group in ("one", "a:b", "a%3Ab"):
        with client.pubsub.subscribe("bus", "t", group=group, batch=300) as sub:
            assert [event.data for event in sub.receive(SOON)] == list(range(300))


# -- what is held -------------------------------------------------------------


def test_a_frame_is_held_until_all_of_it_is_settled(home: RedisHome, server: Server) -> None:
    client = framed(home)
    client.pubsub.publish_bulk("bus", "t", list(range(5)))
    source = join(client)
    deliveries = poll(source)
    assert [each.record.payload for each in deliveries] == [b"0", b"1", b"2", b"3", b"4"]
    assert not poll(source, answer(deliveries[:1]), timeout=0.05)
    assert server.pending() == 1
    (again,) = poll(source, answer(deliveries[1:2], Settlement.RETRY, 0.0))
    assert (again.record.payload, again.deliveries) == (b"1", 2)
    assert server.pending() == 1
    assert not poll(source, answer(deliveries[2:3], Settlement.DROP), timeout=0.05)
    assert server.counter("dropped") == 1
    assert not poll(source, answer(deliveries[3:]), timeout=0.05)
    until(lambda: server.pending() == 0)
    # what was retried is an entry of its own, which goes once it is settled
    retry = server.key("retry", "suite", "t")
    assert server("XLEN", retry) == 1
    source.close(answer([again]))
    assert server("XLEN", retry) == 0


def test_a_member_that_leaves_gives_back_what_is_open(home: RedisHome, server: Server) -> None:
    client = framed(home)
    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    source = join(client)
    deliveries = poll(source, want=6)
    assert len(deliveries) == 6
    source.close([*answer(deliveries[:2]), *answer(deliveries[2:3], Settlement.RELEASE)])
    assert (server.pending(), server.members()) == (0, 0)
    source = join(client)
    deliveries = poll(source, want=10)
    deliveries += poll(source, want=10) if len(deliveries) < 8 else []
    assert [(int(each.record.payload), each.deliveries) for each in deliveries] == [
        (2, 2), *((number, 1) for number in range(3, 10))
    ]  # fmt: skip
    source.close(answer(deliveries))


def test_a_member_that_lives_keeps_what_it_holds(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", [1, 2])
    for lease in (0.6, 3.0, 12.0):
        one, two = (join(home.client(), ack_wait=lease, group=f"g{lease}") for _ in range(2))
        held, other = poll(one)
        end, kept = time.monotonic() + 2.5 * lease, True
        while kept and time.monotonic() < end:
            assert not poll(one, timeout=0.05)
            kept = not poll(two, timeout=0.05)
        if kept:
            assert not poll(one, answer([held, other]), timeout=0.05)
            until(lambda lease=lease: server.pending(f"g{lease}") == 0)  # type: ignore[misc]
        one.close(())
        two.close(())
        if kept:  # else a busy machine may have stood still for longer than that
            break
    assert kept


def test_what_a_dead_member_held_goes_to_another(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", list(range(600)))
    dead = join(client, ack_wait=0.5)
    assert len(poll(dead, want=500)) == 500
    die(dead)
    other = join(home.client(), ack_wait=0.5)
    got: list[Any] = []
    while len(got) < 600:
        deliveries = poll(other, answer(got[-256:]))
        assert deliveries, len(got)
        got += deliveries
    counts = {int(each.record.payload): each.deliveries for each in got}
    assert counts == {number: 2 if number < 500 else 1 for number in range(600)}
    other.close(answer(got[-256:]))
    until(lambda: server.pending() == 0)
    assert server.members() == 1, "the dead one is forgotten when it was idle for long"


def test_a_member_that_stalled_renews_only_what_it_still_has(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", [1, 2])
    one, two = join(client, ack_wait=30), join(home.client(), ack_wait=30)
    mine = poll(one)
    assert len(mine) == 2
    home.advance(31)
    taken, _ = theirs = poll(two)
    assert taken.deliveries == 2
    one._renewed -= 31  # type: ignore[attr-defined]  # its own clock went as fast
    assert not poll(one, answer(mine, Settlement.RETRY, 0.0), timeout=0.1), "void: they have gone"
    two.close(answer(theirs))
    until(lambda: server.pending() == 0)
    assert server("XLEN", server.key("retry", "suite", "t")) == 0
    one.close(())


def test_an_idle_member_makes_no_calls(home: RedisHome, server: Server) -> None:
    def calls() -> int:
        return int(
            dict(line.split(b":") for line in server("INFO", "stats").split() if b":" in line)[
                b"total_commands_processed"
            ]
        )

    with home.client().pubsub.subscribe("bus", "t") as sub:
        sub.receive(0.2)
        before = calls()
        assert sub.receive(1.5) is None
        assert calls() - before <= 2, "the second look at the number is one of them"
        other = home.client()
        with Stopwatch() as watch:
            other.pubsub.publish("bus", "t", 1)
            assert sub.receive(SOON).data == 1
            assert watch.seconds < 1


def test_settlements_do_not_wait_for_a_read(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish("bus", "t", 1)
    with client.pubsub.subscribe("bus", "t") as sub:
        event = sub.receive(SOON)
        time.sleep(0.2)  # the next read is at the server by now
        event.ack()
        until(lambda: server.pending() == 0)


# -- later --------------------------------------------------------------------


def test_delayed_events_wake_an_idle_member(home: RedisHome) -> None:
    client = home.client()
    with client.pubsub.subscribe("bus", "t", group="a:b%") as sub:
        sub.receive(0.1)
        started = time.monotonic()
        with Stopwatch() as watch:
            for number in range(3):
                client.pubsub.publish("bus", "t", number, delay=0.3 + 0.01 * number)  # of one millisecond none is first
            client.pubsub.publish("bus", "t", b"raw", delay=0.33, raw=True)
            assert [sub.receive(SOON).data for _ in range(4)] == [0, 1, 2, b"raw"]
            assert watch.seconds < 3
        assert time.monotonic() - started > 0.25


def test_what_was_due_before_a_group_began_is_not_its(home: RedisHome) -> None:
    client = home.client()
    client.pubsub.publish("bus", "t", "early", delay=5)
    home.advance(6)
    with client.pubsub.subscribe("bus", "t", start="latest") as sub:
        client.pubsub.publish("bus", "t", "new")
        assert sub.receive(SOON).data == "new"


def test_the_first_event_of_a_time_is_that_of_its_millisecond(home: RedisHome, server: Server) -> None:
    client = home.client()
    times = ("000000-0", "000999-0", "001000-0", "001000-1", "001001-0")
    for number, time_of in enumerate(times):
        server("XADD", server.key("topic", "t"), f"1000000{time_of}", "data", number)
    start = datetime.fromtimestamp(1_000_000_001, UTC)
    for later, first in ((timedelta(0), 2), (timedelta(microseconds=999), 2), (timedelta(milliseconds=1), 4)):
        with client.pubsub.subscribe("bus", "t", group=f"g{later}", start=start + later, raw=True) as sub:
            assert [sub.receive(SOON).data for _ in range(first, 5)] == [b"%d" % each for each in range(first, 5)]
            assert client.pubsub.lag("bus", "t", group=f"g{later}") == 5 - first


def test_the_lag_is_counted_where_the_server_does_not_know_it(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish("bus", "t", "before")
    time.sleep(0.01)
    start = datetime.now(UTC)
    client.pubsub.publish_bulk("bus", "t", list(range(250)))
    source = join(client, start=start)
    stream, (middle, _), *_ = (
        server.key("topic", "t"),
        *server("XREVRANGE", server.key("topic", "t"), "+", "-", "COUNT", 2)[1:],
    )
    assert server("XDEL", stream, middle) == 1
    (delivery,) = poll(source, want=1)
    assert dict(zip(*[iter(server("XINFO", "GROUPS", stream)[0])] * 2, strict=True))[b"lag"] is None
    assert client.pubsub.lag("bus", "t") == 249
    # what comes again counts, and what has a member look does not
    assert not poll(source, answer([delivery], Settlement.RETRY, 30.0), want=0, timeout=0.05)
    client.pubsub.publish("bus", "t", "later", delay=60)
    assert server("XLEN", server.key("retry", "suite", "t")) == 1
    assert client.pubsub.lag("bus", "t") == 249
    source.close(())


def test_a_dead_letter_tells_what_other_members_saw(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish("bus", "t", 1)
    for count in (1, 2):
        with client.pubsub.subscribe("bus", "t", dead_letter_topic="dead", max_deliveries=2) as sub:
            event = sub.receive(SOON)
            assert event.delivery_count == count
            event.retry(0)
            until(lambda: server.pending() == 0)
    with client.pubsub.subscribe("bus", "dead") as sub:
        letter = sub.receive(SOON)
    assert letter.topic == "t"
    assert letter.extensions["dlcount"] == 2
    assert letter.extensions["dlfirst"] < letter.extensions["dllast"]
    assert server.counter("dead_lettered") == 1


# -- what is trimmed ----------------------------------------------------------


def trimming(home: RedisHome) -> CloudRuntimesClient:
    return framed(home, layout="event", retention=10, group_expiry=100)


def test_nothing_is_trimmed_that_a_group_has_not_settled(home: RedisHome, server: Server) -> None:
    server("CONFIG", "SET", "stream-node-max-entries", 1)
    client = trimming(home)
    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    source = join(client)
    deliveries = poll(source)
    home.advance(50)
    trimming(home).pubsub.publish("bus", "t", 10)
    assert server("XLEN", server.key("topic", "t")) == 11
    assert not poll(source, answer(deliveries[:4]), want=0, timeout=0.01)
    trimming(home).pubsub.publish("bus", "t", 11)
    assert server("XLEN", server.key("topic", "t")) <= 12 - 4
    assert server("XLEN", server.key("topic", "t")) >= 12 - 5
    source.close(answer(deliveries[4:]))
    # a group that nobody asks for holds nothing
    home.advance(160)
    trimming(home).pubsub.publish("bus", "t", 12)
    assert server("XLEN", server.key("topic", "t")) == 1
    assert server("XINFO", "GROUPS", server.key("topic", "t")) == []
    assert server("EXISTS", server.key("retry", "suite", "t")) == 0
    server("CONFIG", "SET", "stream-node-max-entries", 100)


def test_trimming_keeps_up(home: RedisHome, server: Server, api: Api) -> None:
    """Where more has gone by than one call trims, each publish that follows trims some of it."""
    client = trimming(home)
    for _ in range(4):
        client.pubsub.publish_bulk("bus", "t", [0] * 10_000)
    home.advance(50)
    other = trimming(home)
    for _ in range(3):
        api.call(other.pubsub, "publish", "bus", "t", 1)
    assert server("XLEN", server.key("topic", "t")) <= 100 + 3  # the server trims whole nodes


@pytest.mark.parametrize("order", [None, "key"])
def test_dead_letters_are_trimmed(order: Any, home: RedisHome, server: Server) -> None:
    """Nobody publishes to their topic: members write to it."""
    server("CONFIG", "SET", "stream-node-max-entries", 1)
    client = trimming(home)
    client.pubsub.publish_bulk("bus", "t", [0] * 10)
    with client.pubsub.subscribe("bus", "t", lambda event: event.drop(), dead_letter_topic="dead", order=order):
        until(lambda: server("XLEN", server.key("topic", "dead")) == 10)
    home.advance(50)
    with trimming(home).pubsub.subscribe("bus", "t", dead_letter_topic="dead", order=order):
        until(lambda: server("XLEN", server.key("topic", "dead")) == 0)


def test_what_others_trim_is_counted_and_reported(
    home: RedisHome, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", list(range(5)))
    dead = join(client, ack_wait=0.3, group=home.prefix)
    assert len(poll(dead)) == 5
    die(dead)
    server("XTRIM", server.key("topic", "t"), "MAXLEN", 2)
    time.sleep(0.3)
    other = join(home.client(), ack_wait=0.3, group=home.prefix)
    with caplog.at_level(logging.WARNING):
        deliveries = poll(other)
    assert [each.record.payload for each in deliveries] == [b"3", b"4"]
    assert server("HGET", server.key("counters"), f"lost:bus/t/{home.prefix}") == b"3"
    assert "3 events were deleted" in caplog.text
    other.close(answer(deliveries))


# -- what a server may do -----------------------------------------------------


def test_a_group_that_has_gone_is_made_again(home: RedisHome, server: Server) -> None:
    client = home.client()
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish("bus", "t", 1)
        held = sub.receive(SOON)
        time.sleep(0.1)
        server("DEL", *server("KEYS", f"*{home.prefix}:*"))
        client.pubsub.publish("bus", "t", 2)
        event = sub.receive(SOON)
        assert event.data == 2
        held.ack()
        event.ack()
        until(lambda: server.pending() == 0)


def test_a_retry_in_a_group_that_has_gone_is_void(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish("bus", "t", 1)
    source = join(client)
    (held,) = poll(source)
    assert not poll(source, timeout=0.05)  # a read is at the server
    server("DEL", *server("KEYS", f"*{home.prefix}:*"))
    with pytest.raises(UnavailableError, match="made again"):
        poll(source, answer([held], Settlement.RETRY, 0.0))
    client.pubsub.publish("bus", "t", 2)
    deliveries = poll(source)
    assert [each.record.payload for each in deliveries] == [b"2"]
    source.close(answer(deliveries))
    until(lambda: server.pending() == 0)


def test_a_connection_that_is_cut_loses_nothing(home: RedisHome, server: Server) -> None:
    client = home.client()
    with client.pubsub.subscribe("bus", "t") as sub:
        for number in range(10):
            sub.receive(0.01)
            server("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            while True:
                try:
                    client.pubsub.publish("bus", "t", number)
                    break
                except Exception:
                    time.sleep(0.01)
            event = sub.receive(SOON)
            while event.data != number:
                event.ack()
                event = sub.receive(SOON)
            event.ack()
        until(lambda: server.pending() == 0)


def test_what_a_connection_did_not_bring_comes_by_the_next(home: RedisHome, server: Server) -> None:
    client = home.client()
    source: Any = join(client)
    assert not poll(source, timeout=0.5)  # it has connected by then, and asked
    # the answer to the read goes to a connection that is not looked at any more
    client.pubsub.publish("bus", "t", 1)
    until(lambda: server.pending() == 1)
    source._disconnect()
    deliveries = poll(source)
    assert [(each.record.payload, each.deliveries) for each in deliveries] == [(b"1", 1)]
    source.close(answer(deliveries))
    assert (server.pending(), server.members()) == (0, 0)


def test_scripts_that_a_server_forgot_are_sent_again(home: RedisHome, server: Server) -> None:
    client = home.client()
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish_bulk("bus", "t", [1, 2])
        one, two = sub.receive(SOON), sub.receive(SOON)
        server("SCRIPT", "FLUSH")
        one.retry(0)
        assert sub.receive(SOON).delivery_count == 2
        server("SCRIPT", "FLUSH")
        two.drop()
        until(lambda: server.counter("dropped") == 1)


def test_a_user_who_may_not_unblock_a_read(home: RedisHome, server: Server) -> None:
    user = home.prefix
    server("ACL", "SETUSER", user, "on", ">right", "~*", "&*", "+@all", "-client|unblock")
    url = home.server.url.replace("//", f"//{user}:right@")
    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": url, "prefix": user}}}) as client:
        client.pubsub.publish("bus", "t", 1)
        with client.pubsub.subscribe("bus", "t", ack_wait=1) as sub:
            event = sub.receive(SOON)
            time.sleep(0.1)
            event.retry(0.1)
            again = sub.receive(SOON)
            assert again.delivery_count == 2
            again.ack()
    until(lambda: server.pending() == 0)


def test_a_server_that_hangs() -> None:
    with serve("valkey") as server:
        assert server.process is not None
        config = {"capa": {"home": {"url": server.url}}}
        with CloudRuntimesClient(app_id="suite", config=config) as client:
            with client.pubsub.subscribe("bus", "t") as sub:
                client.pubsub.publish("bus", "t", 1)
                sub.receive(SOON).ack()
                server.process.send_signal(signal.SIGSTOP)
                timer = threading.Timer(0.6, server.process.send_signal, (signal.SIGCONT,))
                try:
                    with pytest.raises(DeadlineExceededError) as caught:
                        client.pubsub.publish("bus", "t", 2, timeout=0.3)
                finally:
                    timer.start()
                client.pubsub.publish("bus", "t", 3)
                got = {sub.receive(SOON).data}
                while 3 not in got:
                    got.add(sub.receive(SOON).data)
                # it had not left where the answer to what was acknowledged was still awaited
                assert got <= ({2, 3} if caught.value.maybe_applied else {3})


def test_a_server_that_evicts_any_key_is_refused() -> None:
    with serve("valkey", maxmemory="100mb", maxmemory_policy="allkeys-lru") as server:
        with CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": server.url}}}) as client:
            with pytest.raises(UnsupportedError, match="set noeviction"):
                client.pubsub.publish("bus", "t", 1)
            server.command("CONFIG", "SET", "maxmemory", "0")
            client.pubsub.publish("bus", "t", 1)
