"""The log's rules that no suite can see from outside: retention, take-over, cuts, counts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, registry
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.components._log.claims import Claimed, cut
from cloud_runtimes.components.sqlite import SqliteComponent, SqliteSettings, sweep
from cloud_runtimes.components.sqlite.writes import WriteTask
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.spi.pubsub import Settled, Settlement, SubscribeRequest
from cloud_runtimes.state import StateItem
from tests.support.waiting import until

DAY = 86400.0


class SetClocks(Clocks):
    """Clocks that a test moves."""

    __slots__ = ("boot", "boot_name", "wall")

    def __init__(self) -> None:
        self.wall = super().wall_ms()
        self.boot = 1_000_000
        self.boot_name = "boot-1"

    def wall_ms(self) -> int:
        return self.wall

    def boot_ms(self) -> int:
        return self.boot

    def boot_id(self) -> str:
        return self.boot_name

    def advance(self, seconds: float) -> None:
        self.wall += round(seconds * 1000)
        self.boot += round(seconds * 1000)


@pytest.fixture
def clocks() -> SetClocks:
    return SetClocks()


@pytest.fixture
def client(home: Path, monkeypatch: pytest.MonkeyPatch, clocks: SetClocks) -> Iterator[CloudRuntimesClient]:
    clocked = type("ClockedSqlite", (SqliteComponent,), {"clocks": clocks})
    monkeypatch.setitem(registry.loaded, (registry.COMPONENTS, "sqlite"), clocked)
    with CloudRuntimesClient(app_id="test") as instance:
        yield instance


def member(client: CloudRuntimesClient, **changes: Any) -> Any:
    """Join as a source without a pump, so that nothing happens by itself."""
    from cloud_runtimes.spi.operation import Method, Operation

    request = SubscribeRequest("t", "g", None, 30.0, None, None, False, None)._replace(**changes)
    op = Operation(Method("pubsub", "subscribe", repeatable=False), "bus", 5.0)
    return client.pubsub._frame.driver("bus").subscribe(op, request)


def data(deliveries: list[Any]) -> list[int]:
    import json

    return [json.loads(delivery.record.payload) for delivery in deliveries]


def answers(deliveries: list[Any], verdict: Settlement = Settlement.ACK, delay: float | None = None) -> list[Settled]:
    return [Settled(delivery.token, verdict, delay) for delivery in deliveries]


def test_sweeping_under_a_load_that_never_ends(tmp_path: Path) -> None:
    """Jobs that always wait do not keep the writer from its tidying."""
    swept = 0
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path)}}) as client:
        client.pubsub.publish("bus", "t", 1)
        engine = client.pubsub._frame.driver("bus")._engine

        def sweeper() -> bool:
            nonlocal swept
            swept += 1
            return True

        end = time.monotonic() + 60

        def body(connection: sqlite3.Connection) -> None:
            if swept < 3 and time.monotonic() < end:
                engine.submit(WriteTask(body, durable=False))

        engine.sweepers.append(sweeper)
        for _ in range(3):
            engine.submit(WriteTask(body, durable=False))
        while swept < 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert swept >= 3


def test_values_that_expire_go_as_fast_as_they_come(client: CloudRuntimesClient, clocks: SetClocks, home: Path) -> None:
    """An inbox writes more ids a second than sweeping by itself removes."""
    for number in range(5):
        client.state.save_bulk("s", [StateItem(key=f"{number}-{each}", value=1, ttl=1.0) for each in range(3000)])
        clocks.advance(2)
    assert rows(home, "SELECT count(*) FROM state")[0][0] <= 3000


def settle_sweeps(client: CloudRuntimesClient, retention: float = DAY, group_expiry: float = 7 * DAY) -> None:
    engine = client.pubsub._frame.driver("bus")._engine
    settings = SqliteSettings(retention=retention, group_expiry=group_expiry)
    until(lambda: not sweep.sweep(engine, sweep.FRAMES, settings))


def rows(home: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(home / "cloud_runtimes.db")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_a_dead_members_events_go_to_another(client: CloudRuntimesClient, clocks: SetClocks) -> None:
    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    dead, other = member(client), member(client)
    first = dead.poll([], 6, 0.0)
    assert data(first) == [0, 1, 2, 3, 4, 5]
    dead.poll(answers(first[:2]), 0, 0.0)
    assert data(other.poll([], 100, 0.0)) == [6, 7, 8, 9]
    clocks.advance(29)
    assert not other.poll([], 100, 0.0)
    clocks.advance(2)
    taken = other.poll([], 100, 0.0)
    assert data(taken) == [2, 3, 4, 5]
    assert {delivery.deliveries for delivery in taken} == {2}
    # the dead one wakes up: its answers come too late and change nothing
    dead.poll(answers(first[2:]), 0, 0.0)
    clocks.advance(40)
    assert sorted(data(dead.poll([], 100, 0.0))) == list(range(2, 10))
    dead.close([])
    other.close([])


def test_a_living_member_keeps_what_it_holds(client: CloudRuntimesClient, clocks: SetClocks) -> None:
    client.pubsub.publish_bulk("bus", "t", list(range(4)))
    living, other = member(client), member(client)
    held = living.poll([], 10, 0.0)
    for _ in range(20):
        clocks.advance(11)
        assert not living.poll([], 0, 0.0)  # renews every third of ack_wait
        assert not other.poll([], 10, 0.0)
    living.poll(answers(held), 0, 0.0)
    clocks.advance(100)
    assert not other.poll([], 10, 0.0)
    living.close([])
    other.close([])


def test_a_take_over_takes_no_more_than_asked(client: CloudRuntimesClient, clocks: SetClocks, home: Path) -> None:
    client.pubsub.publish_bulk("bus", "t", list(range(20)))
    dead, other = member(client), member(client)
    held = dead.poll([], 20, 0.0)
    dead.poll(answers(held[3:5] + held[17:18]), 0, 0.0)
    clocks.advance(31)
    got: list[int] = []
    for _ in range(9):
        part = other.poll([], 2, 0.0)
        assert len(part) <= 2
        got += data(part)
        other.poll(answers(part), 0, 0.0)
    assert got == [n for n in range(20) if n not in (3, 4, 17)]
    assert rows(home, "SELECT * FROM claims") == []
    dead.close([])
    other.close([])


def test_a_reboot_ends_all_leases(client: CloudRuntimesClient, clocks: SetClocks) -> None:
    client.pubsub.publish_bulk("bus", "t", [1, 2])
    dead = member(client)
    held = dead.poll([], 10, 0.0)
    dead.poll(answers(held[:1], Settlement.RETRY, 3600), 0, 0.0)
    clocks.boot, clocks.boot_name = 5, "boot-2"
    after = member(client)
    again = after.poll([], 10, 0.0)
    assert sorted(data(again)) == [1, 2]
    assert {delivery.deliveries for delivery in again} == {2}
    after.close([])
    dead.close([])


def test_deliveries_run_out_when_members_die(client: CloudRuntimesClient, clocks: SetClocks, home: Path) -> None:
    client.pubsub.publish_bulk("bus", "t", ["poison"])
    letters = member(client, topic="dead")
    for _ in range(3):
        dying = member(client, max_deliveries=3, dead_letter_topic="dead")
        assert data(dying.poll([], 10, 0.0)) == ["poison"]
        clocks.advance(31)
    last = member(client, max_deliveries=3, dead_letter_topic="dead")
    assert not last.poll([], 10, 0.0)
    deliveries = letters.poll([], 10, 0.0)
    assert data(deliveries) == ["poison"]
    # nobody who is left knows of an error, or when the dead had it
    says = {"dlreason": "deliveries", "dlcount": 3, "dltopic": "t", "dlgroup": "g"}
    assert deliveries[0].record.extensions == says
    assert rows(home, "SELECT value FROM counters WHERE name = 'dead_lettered:bus/t/g'") == [(1,)]
    last.close([])
    letters.close([])


def test_what_is_dropped_is_counted(client: CloudRuntimesClient, home: Path) -> None:
    client.pubsub.publish_bulk("bus", "t", [1, 2, 3])
    one = member(client)
    one.poll(answers(one.poll([], 10, 0.0), Settlement.DROP), 0, 0.0)
    one.close([])
    assert rows(home, "SELECT value FROM counters WHERE name = 'dropped:bus/t/g'") == [(3,)]


def test_retention(client: CloudRuntimesClient, clocks: SetClocks, home: Path) -> None:
    def frames() -> int:
        return int(rows(home, "SELECT count(*) FROM frames")[0][0])

    one, two = member(client, group="one"), member(client, group="two")
    for number in range(100):
        client.pubsub.publish("bus", "t", number)
    one.poll(answers(one.poll([], 100, 0.0)), 0, 0.0)
    held = two.poll([], 60, 0.0)
    two.poll(answers(held[:50]), 0, 0.0)
    settle_sweeps(client)
    assert frames() == 100  # settled or not, retention has not passed
    clocks.advance(DAY + 1)
    one.poll(answers(one.poll([], 100, 0.0)), 0, 0.0)
    settle_sweeps(client)
    assert frames() == 50  # the slow group holds what it has not settled
    two.poll(answers(held[50:]), 0, 0.0)
    settle_sweeps(client)
    assert frames() == 40
    clocks.advance(8 * DAY)
    client.pubsub.publish("bus", "t", "new")
    one.poll(answers(one.poll([], 100, 0.0)), 0, 0.0)
    settle_sweeps(client)
    assert frames() == 1  # a group unseen for a week holds nothing
    assert data(two.poll([], 100, 0.0)) == ["new"]
    one.close([])
    two.close([])


def test_a_group_begins_with_the_first_frame_of_a_time(client: CloudRuntimesClient, clocks: SetClocks) -> None:
    times = []
    for number in range(4):
        client.pubsub.publish_bulk("bus", "t", [2 * number, 2 * number + 1])
        client.pubsub.publish("bus", "other", number)
        times.append(datetime.fromtimestamp(clocks.wall / 1000, UTC))
        clocks.advance(1)
    clocks.wall -= 100_000_000  # what is published from now on has been so long ago
    for number, each in enumerate((*times, times[-1] + timedelta(milliseconds=1))):
        source = member(client, group=f"g{number}", start=each)
        assert data(source.poll((), 10, 0)) == list(range(2 * number, 8))
        source.close(())


def test_the_lag_counts_events_and_not_frames(client: CloudRuntimesClient, clocks: SetClocks) -> None:
    def lag() -> int:
        return client.pubsub.lag("bus", "t", group="g")

    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    client.pubsub.publish("bus", "other", 0)
    source = member(client)
    assert lag() == 10
    held = source.poll((), 6, 0)
    assert lag() == 10  # of which four were not claimed
    source.poll(answers(held[1:3]), 0, 0)
    assert lag() == 8
    source.poll(answers(held[:1], Settlement.RETRY, 60.0), 0, 0)
    assert lag() == 8
    client.pubsub.publish_bulk("bus", "t", [10, 11])
    source.close(answers(held[3:]))
    assert lag() == 7
    clocks.advance(61)
    source = member(client)
    source.close(answers(source.poll((), 20, 0)))
    assert lag() == 0


def test_topics_are_swept_apart(client: CloudRuntimesClient, clocks: SetClocks, home: Path) -> None:
    slow = member(client, topic="slow")
    for topic in ("slow", "free"):
        for number in range(40):
            client.pubsub.publish("bus", topic, number)
    clocks.advance(2 * DAY)
    settle_sweeps(client)
    assert rows(home, "SELECT name, count(*) FROM frames JOIN topics t ON t.id = topic GROUP BY 1") == [("slow", 40)]
    slow.close([])


def test_expired_rows_are_swept(client: CloudRuntimesClient, clocks: SetClocks, home: Path) -> None:
    client.state.save_bulk("store", {f"k{number}": number for number in range(500)}, metadata={"ttlInSeconds": "5"})
    client.state.save("store", "stays", 1)
    clocks.advance(6)
    assert client.state.list_keys("store") == ["stays"]  # filtered before anything is swept
    engine = client.state._frame.driver("store")._engine
    until(lambda: not sweep.sweep(engine, sweep.EXPIRED, SqliteSettings()))
    assert rows(home, "SELECT key FROM state") == [("stays",)]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 64, 100])
def test_cuts_keep_every_bit(length: int) -> None:
    for at in range(1, length):
        settled = bytes(0b1010_0110 for _ in range((length + 7) // 8))
        whole = Claimed(1, 1, 0, length, 1, settled)
        head, tail = cut(settled, at, length)
        first = Claimed(1, 1, 0, at, 1, head).open()
        right = [at + offset for offset in Claimed(1, 1, at, length - at, 1, tail).open()]
        assert first + right == whole.open()


def test_no_row_per_event_on_the_good_path(client: CloudRuntimesClient, home: Path) -> None:
    client.pubsub.publish_bulk("bus", "t", list(range(1000)))
    one = member(client)
    held = one.poll([], 1000, 0.0)
    assert rows(home, "SELECT start, count FROM claims") == [(0, 1000)]
    one.poll(answers(held[:300]), 0, 0.0)
    assert rows(home, "SELECT count(*) FROM claims") == [(1,)]
    one.poll(answers(held[300:]), 0, 0.0)
    assert rows(home, "SELECT count(*) FROM claims") == [(0,)]
    one.close([])


def test_no_read_transaction_while_a_handler_runs(client: CloudRuntimesClient, home: Path) -> None:
    seen: list[tuple[int, int, int]] = []

    def handler(event: Any) -> None:
        client.state.save("store", "k", "x" * 1000)
        connection = sqlite3.connect(home / "cloud_runtimes.db")
        # a reader that holds a snapshot would keep the log from being emptied
        seen.append(connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone())
        connection.close()

    client.pubsub.publish("bus", "t", 1)
    with client.pubsub.subscribe("bus", "t", handler):
        until(lambda: seen)
    assert seen[0][0] == 0


def test_sweeping_happens_by_itself(home: Path, clocks: SetClocks, client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1, ttl=0.2)
    clocks.advance(1)
    until(lambda: rows(home, "SELECT key FROM state") == [])


def test_answers_survive_a_failed_round(
    client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    client.pubsub.publish_bulk("bus", "t", ["again", "done", "away"])
    one = member(client)
    again, done, away = one.poll([], 10, 0.0)
    given = [
        Settled(again.token, Settlement.RETRY, 0.0),
        Settled(done.token, Settlement.ACK),
        Settled(away.token, Settlement.DROP),
    ]
    engine = client.pubsub._frame.driver("bus")._engine

    def failing(*arguments: Any) -> Any:
        raise UnavailableError("for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", failing)
        with pytest.raises(UnavailableError):
            one.poll(given, 10, 0.0)
    # the round that lands it may take it again
    assert data([*one.poll([], 10, 0.0), *one.poll([], 10, 0.0)]) == ["again"]
    assert rows(home, "SELECT value FROM counters WHERE name = 'dropped:bus/t/g'") == [(1,)]
    one.close([])


def test_claims_survive_an_unreadable_frame(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.pubsub.publish_bulk("bus", "t", [1, 2])
    one = member(client)

    def failing(id: int) -> Any:
        raise UnavailableError("for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(one, "_frame", failing)
        with pytest.raises(UnavailableError):
            one.poll([], 10, 0.0)
    assert data(one.poll([], 10, 0.0)) == [1, 2]
    one.close([])


def test_expired_events_are_counted(client: CloudRuntimesClient, clocks: SetClocks, home: Path) -> None:
    client.pubsub.publish("bus", "t", "short", ttl=5)
    client.pubsub.publish("bus", "t", "long", ttl=500)
    clocks.advance(6)
    one = member(client)
    held = one.poll([], 10, 0.0)
    assert data(held) == ["long"]
    one.poll(answers(held), 0, 0.0)
    assert rows(home, "SELECT value FROM counters WHERE name = 'expired:bus/t/g'") == [(1,)]
    assert rows(home, "SELECT * FROM claims") == []
    one.close([])


def test_one_member_sees_order_across_a_close(client: CloudRuntimesClient) -> None:
    client.pubsub.publish_bulk("bus", "t", list(range(6)))
    one = member(client)
    held = one.poll([], 6, 0.0)
    one.close([*answers(held[:2]), *answers(held[2:4], Settlement.RELEASE)])
    two = member(client)
    rest = two.poll([], 10, 0.0)
    assert list(zip(data(rest), [each.deliveries for each in rest], strict=True)) == [(2, 2), (3, 2), (4, 1), (5, 1)]
    two.close([])
