"""Parts of a group with ``order="key"``: who owns them, how they change hands, and that no late answer counts. On clocks that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, registry
from cloud_runtimes._native import events as kernel
from cloud_runtimes.components._log.ordered import deal, split
from cloud_runtimes.components.sqlite import SqliteComponent
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.spi.broker.ordered import PARTS, share_of
from cloud_runtimes.spi.pubsub import Settled, Settlement
from tests.sqlite.test_log import SetClocks
from tests.support.members import join, operation

KEYS = 200


@pytest.fixture
def clocks() -> SetClocks:
    return SetClocks()


@pytest.fixture
def client(home: Path, monkeypatch: pytest.MonkeyPatch, clocks: SetClocks) -> Iterator[CloudRuntimesClient]:
    clocked = type("ClockedSqlite", (SqliteComponent,), {"clocks": clocks})
    monkeypatch.setitem(registry.loaded, (registry.COMPONENTS, "sqlite"), clocked)
    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": str(home)}}) as instance:
        yield instance


def member(client: CloudRuntimesClient) -> Any:
    return join(client, order="key", ack_wait=10.0)


def poll(source: Any, settled: Any = (), want: int = 1000) -> dict[str, Any]:
    """Poll once, with a look at the group; return deliveries by their data."""
    source._surveyed = 0.0
    return {bytes(each.record.payload).decode(): each for each in source.poll(settled, want, 0.0)}


def publish(client: CloudRuntimesClient, prefix: str = "") -> None:
    client.pubsub.publish_bulk("bus", "t", [OutgoingEvent(f"{prefix}{key}".encode(), f"k{key}") for key in range(KEYS)])


def answer(deliveries: Any, settlement: Settlement = Settlement.ACK) -> list[Settled]:
    return [Settled(each.token, settlement) for each in deliveries]


def lag(client: CloudRuntimesClient) -> int | None:
    driver: Any = client.pubsub._frame.driver("bus")
    return driver.lag(operation(), "t", "suite")  # type: ignore[no-any-return]


def test_a_part_moves_once_all_that_was_handed_out_is_settled(client: CloudRuntimesClient) -> None:
    first = member(client)
    publish(client)
    held = poll(first)
    assert len(held) == KEYS
    revision = first.revision
    second = member(client)
    assert poll(second) == {}
    poll(first)
    assert first.revision > revision
    leaving = {data: each for data, each in held.items() if each.token.marks.leaving}
    assert 0.3 * KEYS < len(leaving) < 0.7 * KEYS
    handled = sorted(leaving)[0]
    given = [each for data, each in leaving.items() if data != handled]
    poll(first, answer(given, Settlement.RELEASE))
    taken = poll(second)
    assert handled not in taken  # its handler has it, and its part stays
    poll(first, answer([leaving[handled]]))
    taken |= poll(second)
    poll(first)
    taken |= poll(second)
    assert taken.keys() == leaving.keys() - {handled}
    assert {each.deliveries for each in taken.values()} == {1}
    poll(second, answer(taken.values()))
    poll(first, answer(each for data, each in held.items() if data not in leaving))
    assert lag(client) == 0
    for each in (first, second):
        each.close(())


def test_a_dead_member_is_followed_and_settles_nothing(client: CloudRuntimesClient, clocks: SetClocks) -> None:
    first = member(client)
    publish(client)
    held = poll(first)
    poll(first, answer([held["0"], held["1"]]))
    second = member(client)
    poll(second)
    clocks.advance(9)
    poll(second)
    assert poll(second) == {}
    clocks.advance(2)
    taken = poll(second)
    assert taken.keys() == held.keys() - {"0", "1"}
    assert {each.deliveries for each in taken.values()} == {2}
    poll(first, answer(held.values()))
    assert all(each.token.marks.void for data, each in held.items() if data not in ("0", "1"))
    assert lag(client) == KEYS - 2
    publish(client, "later ")
    poll(second, answer(taken.values()), want=0)
    seen: set[str] = set()
    for _ in range(5):
        for each in (first, second):
            got = poll(each)
            poll(each, answer(got.values()), want=0)
            seen |= got.keys()
    assert seen == {f"later {key}" for key in range(KEYS)}
    assert lag(client) == 0
    for each in (first, second):
        each.close(())


def test_a_claim_that_nobody_knows_of_comes_again_in_order(
    client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = member(client)
    poll(first)
    publish(client)
    commit = type(first)._commit

    def lose(self: Any, *arguments: Any) -> Any:
        commit(self, *arguments)
        monkeypatch.undo()
        raise TimeoutError("the answer was lost")

    monkeypatch.setattr(type(first), "_commit", lose)
    with pytest.raises(TimeoutError, match="lost"):
        poll(first)
    publish(client, "later ")
    got = poll(first)
    assert got.keys() >= {str(key) for key in range(KEYS)}
    for key in range(KEYS):
        if f"later {key}" in got:
            assert list(got).index(str(key)) < list(got).index(f"later {key}")
    poll(first, answer(got.values()))
    rest = poll(first)
    assert got.keys() | rest.keys() == {f"{prefix}{key}" for key in range(KEYS) for prefix in ("", "later ")}
    first.close(answer(rest.values()))
    assert lag(client) == 0


def test_shares() -> None:
    for count in (1, 3, 31, 32, 40):
        names = [f"m{number}" for number in range(count)]
        shares = [share_of(name, names, PARTS) for name in names]
        assert (sum(shares), max(shares) - min(shares) <= 1) == (PARTS, True)
    assert share_of("new", ["old"], 5) + share_of("old", ["new"], 5) == 5


def test_split() -> None:
    records = [
        kernel.encode_record(b"", "text/plain", key=f"k{number}" if number % 3 else None) for number in range(60)
    ]
    frame = kernel.Frame(kernel.build_frame("/s", "t", "t", records))
    dealt = deal(frame, 7, 4)
    assert sorted(index for part in dealt for index in part) == [*range(60)]
    assert all(list(part) == sorted(part) for part in dealt)
    for start, length, settled in ((0, 60, None), (11, 30, None), (11, 30, bytes([0xFF, 0x0F, 0, 0x20]))):
        done = int.from_bytes(settled or b"", "little")
        found = []
        for part, first, count, others in split(dealt, start, length, settled):
            marks = kernel.Marks(count, others)
            mine = [first + index for index in marks.open(0, count)]
            assert set(mine) <= set(dealt[part])
            assert (mine[0], mine[-1]) == (first, first + count - 1)
            found += mine
        assert sorted(found) == [n for n in range(start, start + length) if not done >> (n - start) & 1]
