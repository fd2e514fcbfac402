"""Outboxes and spools: what waits, what is forwarded, what a broker refuses, and what is told of it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import context_of
from cloud_runtimes.errors import (
    ClosedError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.pubsub import SpoolStats, relays
from cloud_runtimes.pubsub.relay_operations import drop, refused_events, send_again, statuses
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.spi.pubsub import OutgoingBatch
from cloud_runtimes.testing import Api
from tests.support.pairs import pair
from tests.support.waiting import until

SOON = 30.0
Make = Callable[..., CloudRuntimesClient]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make clients of one home, whose pub/sub component ``bus`` is another home; ``table`` adds to its table."""
    clients: list[CloudRuntimesClient] = []

    def make(pubsub: dict[str, Any] | None = None, **table: Any) -> CloudRuntimesClient:
        bus = {"component": "sqlite", "home": str(tmp_path / "broker"), **table}
        config = {"capa": {"home": str(tmp_path / "home")}, "pubsub": {"bus": bus} if pubsub is None else pubsub}
        clients.append(CloudRuntimesClient(app_id="shop", config=config))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


class Broker:
    """Stands before the publishing of a real driver: refuses what `refuse` names an error for."""

    def __init__(self, client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
        driver: Any = context_of(client).frame("pubsub").driver("bus")
        self.refuse: Callable[[Any], Exception | None] = lambda record: None
        target = driver.spool.target if driver.spool is not None else driver
        self._publish = target.publish
        monkeypatch.setattr(target, "publish", self.publish)

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Any:
        failed = {index: error for index, record in enumerate(batch) if (error := self.refuse(record)) is not None}
        if away := [error for error in failed.values() if isinstance(error, UnavailableError)]:
            raise away[0]
        taken = [record for index, record in enumerate(batch) if index not in failed]
        if taken:
            self._publish(op, OutgoingBatch.of(batch.topic, taken))
        return failed


def relays_of(client: CloudRuntimesClient) -> Any:
    return getattr(context_of(client).frame("pubsub"), "relays")  # noqa: B009


def received(sub: Any, count: int) -> list[Any]:
    data = []
    for _ in range(count):
        event = sub.receive(SOON)
        assert event is not None, data
        data.append(event.data)
        event.ack()
    assert sub.receive(0.2) is None
    return data


@pytest.mark.parametrize("spool", [False, True])
def test_what_is_refused_for_good_is_set_aside(
    spool: bool, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = make(spool=spool)
    broker = Broker(client, monkeypatch)
    broker.refuse = lambda record: PermissionDeniedError("not yours") if record.key == "bad" else None

    def publish(number: int, key: str) -> None:
        with client.state.transaction("orders") as tx:
            tx.publish("bus", "t", number, key=key)

    with client.pubsub.subscribe("bus", "t") as sub, caplog.at_level(logging.WARNING):
        for number in range(6):
            publish(number, "bad" if number % 3 == 1 else "good")
        assert received(sub, 4) == [0, 2, 3, 5]
        relays = relays_of(client)
        until(lambda: [status.refused.events for status in statuses(relays)] == [2])
        (status,) = statuses(relays)
        assert status.waiting.events == 0
        assert status.taken
        letters = list(refused_events(relays, status.relay))
        assert [json.loads(letter.payload) for letter in letters] == [1, 4]
        assert {(letter.extensions["dlreason"], letter.extensions["dlerror"]) for letter in letters} == {
            ("refused", "PermissionDeniedError: not yours")
        }
        assert "refused event" in caplog.text
        broker.refuse = lambda record: None
        assert send_again(relays, status.relay) == 2
        relays.resume()
        assert received(sub, 2) == [1, 4]
        event = letters[0]
        until(lambda: statuses(relays)[:1] in ([], [status]) or statuses(relays)[0].refused.events == 0)
        assert "dlreason" in event.extensions


def test_a_broker_that_is_away_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make()
    broker = Broker(client, monkeypatch)
    broker.refuse = lambda record: UnavailableError("away", retryable=True)
    with client.pubsub.subscribe("bus", "t") as sub:
        for number in range(20):
            with client.state.transaction("orders") as tx:
                tx.publish("bus", "t", number, key="k")
        assert sub.receive(0.5) is None
        broker.refuse = lambda record: None
        assert received(sub, 20) == list(range(20))


def test_one_frame_holds_the_events_of_a_transaction(make: Make, api: Api) -> None:
    client = make()
    with client.pubsub.subscribe("bus", "t") as sub, client.pubsub.subscribe("bus", "u") as other:
        with api.opened(client.state.transaction("orders")) as tx:
            ids = [tx.publish("bus", "t", number, attributes={"type": f"t{number % 2}"}) for number in range(4)]
            tx.publish("bus", "u", "x", key="k")
            tx.publish("bus", "t", 4, raw=True)
        events = [sub.receive(SOON) for _ in range(4)]
        assert [(event.id, event.type, event.data) for event in events if event] == [
            (id, f"t{number % 2}", number) for number, id in enumerate(ids)
        ]
        assert received(other, 1) == ["x"]


def test_a_delay_holds_between_engines(request: Any, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for engines in ("postgres redis", "redis nats", "sqlite sqlite"):
        with (
            subtests.test(engines),
            pair(request, tmp_path / engines, engines) as config,
            CloudRuntimesClient(config=config, app_id="shop") as client,
            client.pubsub.subscribe("bus", "t") as sub,
        ):
            begun = time.monotonic()
            with client.state.transaction("orders") as tx:
                tx.publish("bus", "t", "later", delay=1.5)
                tx.publish("bus", "t", "now")
            arrived = {}
            while len(arrived) < 2:
                event = sub.receive(SOON)
                assert event is not None, arrived
                arrived[event.data] = time.monotonic() - begun
                event.ack()
            assert arrived["later"] > 1.5


def test_what_an_earlier_process_left(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make()
    broker = Broker(first, monkeypatch)
    broker.refuse = lambda record: UnavailableError("away", retryable=True)
    with first.state.transaction("orders") as tx:
        tx.publish("bus", "t", 1)
    with first.database.transaction("shop") as tx:
        tx.publish("bus", "t", 2)
    first.close()
    second = make()
    second.database.query("shop", "SELECT 1 AS one")  # an undeclared database that nobody uses is not looked for
    second.rpc.method("ping")(lambda: None)
    with second.pubsub.subscribe("bus", "t") as sub, second.running():
        assert sorted(received(sub, 2)) == [1, 2]


def test_the_first_commit_tells_where_events_wait(
    request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """A process may be killed as soon as it has committed."""
    for engine in ("redis", "nats", "etcd"):
        with subtests.test(engine), pair(request, tmp_path / engine, f"{engine} sqlite") as config:
            with monkeypatch.context() as killed, CloudRuntimesClient(config=config, app_id="shop") as first:
                killed.setattr(relays, "in_background", lambda *args, **named: None)
                relay = relays.Relay("state", "orders", "bus", "sqlite")
                relays_of(first).stores(relay)[0].settle("another forwarder", None, [], 0, [])
                with first.state.transaction("orders") as tx:
                    tx.publish("bus", "t", 1)
            with CloudRuntimesClient(config=config, app_id="shop") as second:
                assert relays_of(second).known() == [relay]
                store = relays_of(second).outbox("state", "orders", "bus").store
                until(lambda store=store: store.is_known)
                assert len(store.add(OutgoingBatch.of("t", []))) == 0


def test_a_broker_that_is_configured_no_more_is_told(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = make(spool=True)
    broker = Broker(first, monkeypatch)
    broker.refuse = lambda record: UnavailableError("away", retryable=True)
    first.pubsub.publish("bus", "t", 1)
    with first.database.transaction("shop") as tx:
        tx.publish("bus", "t", 2)
    until(lambda: first.pubsub.spool("bus").events == 2)
    first.close()
    # without the spool; then with another component under the name
    for table in (
        {"bus": {"component": "sqlite", "home": str(tmp_path / "elsewhere")}},
        {"bus": {"component": "nats", "url": "nats://127.0.0.1:9"}},
    ):
        client = make(table)
        with caplog.at_level(logging.WARNING):
            relays_of(client).resume()
        assert "2 events wait in the spool of 'bus' for the pub/sub component 'bus', sqlite" in caplog.text
        (status,) = statuses(relays_of(client))
        assert (status.waiting.events, status.taken) == (2, False)
    assert drop(relays_of(client).stores(status.relay)[0]) == 2
    assert statuses(relays_of(client)) == []


def test_an_application_finds_what_others_leave_while_it_runs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "LOOK_EVERY", 0.1)
    got: list[int] = []
    running, other = make(), make()
    running.pubsub.subscription("bus", "t")(lambda event: got.append(event.data))
    store = relays_of(other).stores(relays.Relay("state", "orders", "bus", "sqlite"))[0]
    store.settle("another forwarder", None, [], 0, [])
    with running.running():
        time.sleep(1.0)  # in which it has looked
        with other.state.transaction("orders") as tx:
            tx.publish("bus", "t", 1)
        other.close()
        until(lambda: got == [1])


def test_closing_meanwhile_is_nothing_to_warn_of(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = make()
    looked: Any = getattr(relays_of(client), "_lying")  # noqa: B009

    def closes(service: str, store_name: str) -> Any:
        client.close()
        return looked(service, store_name)

    monkeypatch.setattr(relays_of(client), "_lying", closes)
    with caplog.at_level(logging.WARNING), pytest.raises(ClosedError):
        relays_of(client).resume()
    assert not caplog.records


def test_closing_waits_for_no_look(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may be away, which an application that ends need not find out."""
    client, looks, goes_on = make(), threading.Event(), threading.Event()

    def hangs(service: str, store_name: str) -> Any:
        looks.set()
        goes_on.wait(4 * SOON)
        return iter(())

    monkeypatch.setattr(relays_of(client), "_lying", hangs)
    client.pubsub.subscription("bus", "t")(lambda event: None)
    with client.running():
        assert looks.wait(SOON)
    closing = threading.Thread(target=client.close, kwargs={"timeout": 4 * SOON})
    closing.start()
    closing.join(SOON)
    ended = not closing.is_alive()
    goes_on.set()
    assert ended


def test_an_event_that_cannot_be_read_holds_up_nobody(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    client = make()
    with client.state.transaction("orders") as tx:
        tx.publish("bus", "t", 0)
    engine = context_of(client).runtime().component("state", "orders").engine  # type: ignore[attr-defined]
    from cloud_runtimes.components.sqlite.writes import WriteTask

    def spoil(connection: Any) -> None:
        topic = connection.execute("SELECT id FROM topics WHERE pubsub LIKE '||outbox%'").fetchone()[0]
        row = (topic, 1, 3, 0, b"odd")
        connection.execute("INSERT INTO frames (topic, count, size, created, body) VALUES (?, ?, ?, ?, ?)", row)

    with client.pubsub.subscribe("bus", "t") as sub, caplog.at_level(logging.WARNING):
        received(sub, 1)
        engine.submit(WriteTask(spoil, durable=True))
        with client.state.transaction("orders") as tx:
            tx.publish("bus", "t", 1)
        assert received(sub, 1) == [1]
        until(lambda: "cannot be read, and stays" in caplog.text)
        relays = relays_of(client)
        ((waiting, _),) = map(relays.stores, relays.known())
        until(lambda: waiting.lease() is None)
        for _ in range(30):  # nobody takes it for what stays
            assert waiting.lease() is None
            time.sleep(0.05)
        with client.state.transaction("orders") as tx:
            tx.publish("bus", "t", 2)
        assert received(sub, 1) == [2]


# -- a spool ------------------------------------------------------------------


def test_a_spool(make: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make(spool={"max_age": "1d"})
    broker = Broker(client, monkeypatch)
    broker.refuse = lambda record: UnavailableError("away", retryable=True)
    with client.pubsub.subscribe("bus", "t") as sub:
        api.call(client.pubsub, "publish", "bus", "t", 0, key="k")
        assert len(api.call(client.pubsub, "publish_bulk", "bus", "t", [1, 2])) == 2
        with client.pubsub.publisher("bus", "t") as publisher:
            publisher.send(3, key="k")
            publisher.flush()
        with api.opened(client.state.transaction("orders")) as tx:  # one commit: the home has both
            tx.publish("bus", "t", 4)
        stats = api.call(client.pubsub, "spool", "bus")
        assert (stats.events, stats.forwarded, stats.dropped, stats.refused) == (5, 0, 0, 0)
        assert stats.bytes > 100
        assert stats.oldest is not None
        broker.refuse = lambda record: None
        assert sorted(received(sub, 5)) == [0, 1, 2, 3, 4]
        until(lambda: client.pubsub.spool("bus") == SpoolStats(0, 0, None, 5, 0, 0))
        assert client.pubsub.lag("bus", "t") == 0


def test_a_component_without_a_spool(make: Make, api: Api) -> None:
    api.fails(UnsupportedError, match=r"add spool = true to \[pubsub.bus\]")(make().pubsub, "spool", "bus")


@pytest.mark.parametrize("on_full", ["block", "raise", "drop_oldest"])
def test_a_spool_without_room(on_full: str, make: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make(spool={"max_bytes": 1 << 20, "on_full": on_full})
    broker = Broker(client, monkeypatch)
    broker.refuse = lambda record: UnavailableError("away", retryable=True)
    payload = bytes(100_000)
    sent = 0
    with client.pubsub.subscribe("bus", "t", start="earliest") as sub:
        with suppress(ResourceExhaustedError):
            while sent < 20:
                options = {"timeout": 0.5} if on_full == "block" else {}
                api.call(client.pubsub, "publish", "bus", "t", payload, attributes={"id": str(sent)}, **options)
                sent += 1
        stats = client.pubsub.spool("bus")
        assert stats.bytes <= 1 << 20
        if on_full == "drop_oldest":
            assert sent == 20
            assert (stats.events, stats.dropped) == (10, 10)
        else:
            assert sent == 10
            message = "the spool of 'bus' has no room"
            with pytest.raises(ResourceExhaustedError, match=message):
                client.pubsub.publish("bus", "t", payload, timeout=0.2)
        broker.refuse = lambda record: None
        if on_full == "block":  # it waits for room
            client.pubsub.publish("bus", "t", payload, attributes={"id": str(sent)}, timeout=SOON)
            sent += 1
        ids = []
        while (event := sub.receive(1.0)) is not None:
            ids.append(event.id)
            event.ack()
        # what the forwarder had in memory was not dropped after all
        assert ids == [str(number) for number in range(sent)]
        until(lambda: (client.pubsub.spool("bus").forwarded, client.pubsub.spool("bus").dropped) == (sent, 0))


def test_a_spool_gives_up_what_is_too_old(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.runtimes.capa.spool._EXPIRE", 0.0)
    client = make(spool={"max_age": 0.3})
    broker = Broker(client, monkeypatch)
    broker.refuse = lambda record: UnavailableError("away", retryable=True)
    client.pubsub.publish("bus", "t", 1)
    until(lambda: client.pubsub.spool("bus").dropped == 1)
    assert client.pubsub.spool("bus").events == 0


def test_a_wrong_spool_is_refused(make: Make, subtests: pytest.Subtests) -> None:
    for spool, text in (
        ("yes", "spool: give true, or a table"),
        ({"max_bytes": 5}, "max_bytes must be at least"),
        ({"on_full": "drop"}, "on_full"),
        ({"size": 5}, "spool: unknown setting"),
    ):
        with subtests.test(spool=spool), pytest.raises(InvalidArgumentError, match=text):
            make(spool=spool).pubsub.publish("bus", "t", 1)
    config = {
        "capa": {"home": ":memory:x"},
        "pubsub": {"bus": {"component": "sqlite", "home": ":memory:y", "spool": True}},
    }
    with CloudRuntimesClient(config=config) as client, pytest.raises(InvalidArgumentError, match="give a folder"):
        client.pubsub.publish("bus", "t", 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not on this Python")
def test_a_forked_child_has_a_forwarder_of_its_own(make: Make) -> None:
    client = make(spool=True)
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish("bus", "t", "parent")
        if not (pid := os.fork()):
            client.pubsub.publish("bus", "t", "child")
            client.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert sorted(received(sub, 2)) == ["child", "parent"]


def test_a_program_that_ends_at_once_forwards(make: Make) -> None:
    client = make(spool=True)
    with make().pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish_bulk("bus", "t", list(range(1000)))
        client.close()
        assert received(sub, 1000) == list(range(1000))
