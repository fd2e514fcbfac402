"""Parts of a log that members read by position: nothing is skipped, and nothing comes twice without a reason. Against a log and a store in memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from cloud_runtimes._native import events as kernel
from cloud_runtimes.spi.broker.ordered import OrderedInFlight, Progress, balance
from cloud_runtimes.spi.broker.policy import DeliveryPolicy
from cloud_runtimes.spi.pubsub import Settlement, Settlements, SubscribeRequest
from tests.support import Rounds

PARTS = 4
POLICY = DeliveryPolicy("bus", SubscribeRequest("t", "g", None, None, None, None, False, None, order="key"))


def message(*events: tuple[str | None, int]) -> bytes:
    """Return events, with a key and a number: one as it is, several as a frame."""
    records = [kernel.encode_record(b"%d" % number, "application/json", key=key) for key, number in events]
    frame: bytes = kernel.build_frame("/s", "t", "t", records)
    document: bytes = kernel.Frame(frame)[0].to_json()
    return frame if len(events) > 1 else document


class Member:
    """A member of the group, with what it was handed out and has not settled."""

    def __init__(self) -> None:
        self.flight = OrderedInFlight(POLICY, int, PARTS)
        self.open: list[Any] = []

    def read(self, log: Sequence[tuple[int, bytes]], count: int) -> None:
        """Read some messages behind its position, and hand out what is its own."""
        after = self.flight.position
        if after is None:
            return
        self.flight.read_after(after)
        those = [each for each in log if each[0] > after][:count]
        if those:
            self.flight.add(0, [str(position) for position, _ in those], [data for _, data in those])
        self.flight.read_all()

    def take(self, want: int = 10**6) -> list[tuple[str | None, int]]:
        """Return key and number of what is handed out now."""
        records = [record for group, _ in self.flight.deliver(want, 0).groups for record in group]
        self.open += records
        return [(record.key, int(record.payload)) for record in records]

    def settle(self, records: Sequence[Any], settlement: Settlement = Settlement.ACK) -> None:
        answers = Settlements()
        answers.add(list(records), settlement)
        self.flight.settle(answers)
        gone = set(map(id, records))
        self.open = [record for record in self.open if id(record) not in gone]

    def told(self) -> dict[int, str]:
        """Return what a store is told of changed parts."""
        texts = {}
        for part, progress in self.flight.changed(everything=True):
            assert Progress.of(progress.text()) == progress
            self.flight.told(part, progress)
            texts[part] = progress.text()
        return texts


def own(member: Member, parts: Sequence[int] = range(PARTS), start: int = 0) -> None:
    for part in parts:
        member.flight.own(part, Progress(start, {}))


def test_a_part_goes_on_where_the_group_was() -> None:
    log = [(position, message(("a", position))) for position in range(1, 7)]
    first, second = Member(), Member()
    own(first)
    first.read(log, 4)
    assert first.take() == [("a", number) for number in range(1, 5)]
    first.settle(first.open[:2])
    store = first.told()
    assert len(store) == PARTS
    for part, text in store.items():
        second.flight.own(part, Progress.of(text))
    second.read(log, 10)
    assert second.take() == [("a", number) for number in range(3, 7)]


def test_only_open_keys_come_again() -> None:
    log = [(position, message((f"k{position % 8}", position))) for position in range(1, 81)]
    first, second = Member(), Member()
    own(first)
    first.read(log, 80)
    first.take()
    first.settle([record for record in first.open if record.key != "k3"])
    store = {part: Progress.of(text) for part, text in first.told().items()}
    assert sorted(len(progress.open) for progress in store.values()) == [0, 0, 0, 1]
    assert sum(progress.events for progress in store.values()) == 10
    assert min(progress.done for progress in store.values()) == 2
    for part, progress in store.items():
        second.flight.own(part, progress)
    second.read(log, 80)
    assert second.take() == [("k3", number) for number in range(3, 80, 8)]
    for done in (18, 34):
        second.settle(second.open[:2])
        (text,) = second.told().values()
        assert (Progress.of(text).done, Progress.of(text).events) == (done, (82 - done) // 8)
    second.settle(second.open)
    assert list(map(Progress.of, second.told().values())) == [Progress(80, {})]


def test_what_is_settled_of_a_message_does_not_come_again() -> None:
    log = [(1, message(*(("a", number) for number in range(6))))]
    first, second = Member(), Member()
    own(first)
    first.read(log, 1)
    first.take()
    first.settle(first.open[:4])
    for part, text in first.told().items():
        second.flight.own(part, Progress.of(text))
    second.read(log, 1)
    assert second.take() == [("a", 4), ("a", 5)]


@pytest.mark.parametrize("count", range(1, 32))
def test_a_new_part_is_read_from_its_place_and_others_are_not_read_again(count: int) -> None:
    log = [(position, message((f"k{position % 16}", position))) for position in range(1, 33)]
    member = Member()
    own(member, [0, 1])
    member.read(log, count)
    events = member.take()
    own(member, [2, 3])
    assert member.flight.position == 0
    member.flight.read_after(count)  # a read that was under way
    member.flight.add_message(0, str(count + 1), log[count][1])
    member.flight.read_all()
    events += member.take()
    member.read(log, 32)
    member.read(log, 32)
    events += member.take()
    assert len(events) == 32
    for key in {key for key, _ in events}:
        numbers = [number for each, number in events if each == key]
        assert numbers == sorted(numbers)
        assert len(numbers) == 2


def test_a_part_that_leaves_waits_for_what_was_handed_out() -> None:
    log = [(position, message((f"k{position}", position))) for position in range(1, 41)]
    member = Member()
    own(member)
    member.read(log, 40)
    member.take(28)
    member.flight.survey("a", ["a", "b"], ["a"] * PARTS)
    assert member.flight.revision == 1
    assert member.take() == []
    member.read([(41, message(*((f"k{number}", number) for number in range(41, 81))))], 1)
    new = member.take()
    assert 0 < len(new) < 40
    leaving = [record for record in member.open if record.marks.leaving]
    assert {record.marks.origin for record in member.open[-len(new) :]} == {0, 1}
    assert {record.marks.origin for record in leaving} <= {2, 3}
    member.settle(leaving[1:])
    assert len(member.flight.drained()) == 1
    member.settle(leaving[:1], Settlement.RELEASE)
    assert sorted(member.flight.drained()) == [2, 3]
    held = leaving[0].marks
    store = member.told()
    member.flight.lost([2, 3])
    assert held.void
    assert Progress.of(store[held.origin]).open


def test_deliveries_to_members_that_died_are_counted() -> None:
    log = [(position, message((f"k{position}", position))) for position in range(1, 9)]
    places = [Progress(0, {})] * PARTS

    def take() -> tuple[Member, dict[str, int]]:
        """Return a member that takes all from one that died, and how often its events were delivered."""
        member = Member()
        for part, progress in enumerate(places):
            member.flight.own(part, progress.after_death(5))
        member.read(log, 8)
        groups = member.flight.deliver(100, 0).groups
        member.open = [record for records, _ in groups for record in records]
        return member, {record.key: count for records, count in groups for record in records}

    member, counts = take()
    assert counts == {f"k{number}": 1 + (number <= 5) for number in range(1, 9)}
    member.settle([record for record in member.open if record.key in ("k5", "k6", "k7")])
    for part, text in member.told().items():
        places[part] = Progress.of(text)
    member, counts = take()
    assert counts["k1"] == 3
    assert counts["k8"] in (1, 2)
    assert counts.keys() == {"k1", "k2", "k3", "k4", "k8"}


def test_events_that_were_delivered_oftener_stay_before_later_ones_of_their_key() -> None:
    log = [(position, message((key, position))) for position, key in enumerate("eaaaae", 1)]  # both in one part
    first, second = Member(), Member()
    own(first)
    first.read(log, 4)
    first.take()
    first.settle([record for record in first.open if record.key == "a"][:1])
    for part, text in first.told().items():
        progress = Progress.of(text)
        # one lane was delivered oftener than others, and what is behind was not delivered at all
        open = {lane: its._replace(tries=number) for number, (lane, its) in enumerate(sorted(progress.open.items()))}
        second.flight.own(part, progress._replace(open=open))
    second.read(log, 6)
    events = second.take()
    for key in "ae":
        numbers = [number for each, number in events if each == key]
        assert numbers == sorted(numbers), events
    assert sorted(number for _, number in events) == [1, 3, 4, 5, 6]


def test_a_message_that_is_not_due_waits() -> None:
    member = Member()
    own(member)
    member.flight.read_after(0)
    member.flight.due_ms = 5
    member.flight.add_message(0, "1", message(("a", 1)))
    member.flight.due_ms = 0
    member.flight.add_message(0, "2", message(("b", 2)))
    member.flight.read_all()
    assert member.take() == [("b", 2)]
    assert member.flight.next_due_ms == 5
    (late,) = member.flight.deliver(10, 5000).groups
    assert [record.key for record in late[0]] == ["a"]


def test_shares() -> None:
    owners = ["a"] * 6 + ["dead", ""]
    assert balance("a", ["a", "b"], owners, []) == ({0, 1, 2, 3, 4, 5}, [], [4, 5])
    assert balance("b", ["a", "b"], owners, []) == (set(), [6, 7], [])
    assert balance("a", ["a", "b"], owners, [0]).give == [5]


@pytest.mark.parametrize("seed", range(10))
def test_members_that_come_and_go_skip_nothing(seed: int, rounds: Rounds) -> None:
    chance = random.Random(seed)
    for _ in range(rounds(3, 300)):
        _come_and_go(chance)


def _come_and_go(chance: random.Random) -> None:
    log: list[tuple[int, bytes]] = []
    position = number = 0
    sent: dict[str | None, list[int]] = {}
    for _ in range(chance.randint(5, 60)):
        position += chance.randint(1, 3)
        events = []
        for _ in range(chance.choice([1, 1, 1, 3])):
            key = chance.choice([None, "a", "b", "c", "d", "e", "f", "g"])
            number += 1
            events.append((key, number))
            sent.setdefault(key, []).append(number)
        log.append((position, message(*events)))
    store = dict.fromkeys(range(PARTS), Progress(0, {}).text())
    owners: dict[int, Member | None] = dict.fromkeys(range(PARTS))
    members = [Member(), Member()]
    handled: dict[str | None, list[int]] = {}

    def settle(member: Member) -> None:
        """Settle some events, of each key the first ones."""
        chosen, stopped = [], set()
        for record in member.open:
            if record.marks.void or record.key in stopped:
                continue
            if chance.random() < 0.3:
                if record.key is not None:
                    stopped.add(record.key)
                continue
            chosen.append(record)
            handled.setdefault(record.key, []).append(int(record.payload))
        member.settle(chosen)

    def commit(member: Member) -> None:
        for part, text in member.told().items():
            assert owners[part] is member
            store[part] = text

    for _ in range(3000):
        member = chance.choice(members)
        what = chance.random()
        if what < 0.4:
            member.read(log, chance.randint(1, 20))
            member.take(chance.randint(1, 30))
        elif what < 0.7:
            settle(member)
            if chance.random() < 0.7:
                commit(member)
        elif what < 0.75:  # dies
            for part, owner in owners.items():
                if owner is member:
                    owners[part] = None
            members[members.index(member)] = Member()
        elif what < 0.9:
            free = [part for part, owner in owners.items() if owner is None]
            if free:
                part = chance.choice(free)
                owners[part] = member
                member.flight.own(part, Progress.of(store[part]))
        else:  # gives a part away, once it is drained
            mine = [part for part, owner in owners.items() if owner is member]
            if mine:
                member.flight._let_go(part := chance.choice(mine))
                member.settle([each for each in member.open if each.marks.origin == part], Settlement.RELEASE)
                assert part in member.flight.drained()
                commit(member)
                owners[part] = None
                member.flight.lost([part])
    for part, owner in owners.items():
        if owner is None:
            owners[part] = members[0]
            members[0].flight.own(part, Progress.of(store[part]))
    for member in members:
        for _ in range(500):
            member.read(log, 50)
            member.take()
            settle(member)
        assert member.flight.count == 0
        for progress in map(Progress.of, member.told().values()):
            assert (progress.open, progress.events) == ({}, 0)
    assert handled.keys() == sent.keys()
    for key, numbers in sent.items():
        if key is None:
            assert set(handled[None]) == set(numbers)
            continue
        last = -1
        for each in handled[key]:  # the next one, or one of before
            place = numbers.index(each)
            assert place <= last + 1, f"{key}: {handled[key]}"
            last = place
        assert last == len(numbers) - 1
