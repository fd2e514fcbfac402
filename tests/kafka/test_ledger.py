"""State of a partition that a group keeps in a commit."""

from __future__ import annotations

import random

import pytest

from cloud_runtimes.components.kafka.ledger import ORDERED, Ledger


def again(ledger: Ledger) -> Ledger:
    """Return what another member reads of a commit."""
    return Ledger(ledger.base, ledger.text())


def wanted(ledger: Ledger, offsets: range) -> list[int]:
    return list(ledger.read(offsets))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_settled_in_any_order_comes_no_more(seed: int) -> None:
    chance = random.Random(seed)
    ledger = Ledger(100, None)
    offsets = wanted(ledger, range(100, 400))
    assert offsets == list(range(100, 400))
    settled = chance.sample(offsets, 200)
    for start in range(0, 200, 17):
        ledger.settle(settled[start : start + 17])
    remaining = sorted(set(offsets) - set(settled))
    assert ledger.base == remaining[0]
    assert wanted(again(ledger), range(ledger.base, 400)) == remaining


@pytest.mark.parametrize("step", [1, 7, 100])
def test_what_was_settled_ahead_of_the_reading_comes_no_more(step: int) -> None:
    first = Ledger(0, None)
    first.settle([each for each in wanted(first, range(300)) if each % 100 >= 10])
    ledger = again(first)
    received = []
    for start in range(0, 300, step):
        new = wanted(ledger, range(start, min(start + step, 300)))
        ledger.settle(new)
        received += new
    assert received == [each for each in range(300) if each % 100 < 10]
    assert (ledger.base, ledger.text()) == (300, "")


def test_numbers_without_a_message_behind_what_was_settled_ahead() -> None:
    ledger = Ledger(0, "cr1:1-9,20")
    assert wanted(ledger, range(1)) == [0]
    ledger.settle([0])
    assert wanted(ledger, range(15, 17)) == [15, 16]
    assert (ledger.base, ledger.text()) == (15, "cr1:5")


def test_all_in_order_needs_no_text() -> None:
    ledger = Ledger(0, None)
    wanted(ledger, range(10))
    ledger.settle([3, 1, 2, 0])
    assert (ledger.base, ledger.text()) == (4, "")


def test_numbers_without_a_message_hold_nothing_up() -> None:
    ledger = Ledger(0, None)
    assert wanted(ledger, range(50, 52)) == [50, 51]  # what was before has expired
    assert ledger.base == 50
    assert wanted(ledger, range(60, 61)) == [60]
    ledger.settle([50, 51])
    assert ledger.base == 60


@pytest.mark.parametrize(("start", "deleted"), [(0, 0), (3, 0), (10, 4), (50, 44), (90, 44)])
def test_what_was_deleted_before_it_was_read_is_counted(start: int, deleted: int) -> None:
    """Of what stands before the start of the log; a number behind it never had a message."""
    first = Ledger(0, None)
    first.settle([each for each in wanted(first, range(8)) if each not in (3, 6)])
    ledger = again(first)
    assert list(ledger.read(range(50, 52), start)) == [50, 51]
    assert ledger.ended == ({"deleted": deleted} if deleted else {})
    assert (ledger.base, again(ledger).ended) == (50, ledger.ended)


def test_a_log_that_begins_anew_has_nothing_settled() -> None:
    ledger = Ledger(10, "cr1:2;1:1")
    assert wanted(ledger, range(10, 14)) == [10, 11, 13]
    assert not ledger.anew
    assert wanted(ledger, range(3)) == [0, 1, 2]
    assert ledger.anew
    ledger.settle([0])
    assert (ledger.base, ledger.text()) == (1, "")


def test_deliveries_are_counted_from_member_to_member() -> None:
    ledger = Ledger(0, None)
    wanted(ledger, range(6))
    ledger.hand([1, 2, 4])
    ledger.settle([1])
    copy = again(ledger)
    assert copy.counts == {2: 1, 4: 1}
    wanted(copy, range(6))
    copy.hand([2, 3])
    assert again(copy).counts == {2: 2, 3: 1, 4: 1}
    copy.settle([0, 2])
    assert again(copy).counts == {3: 1, 4: 1}


def test_a_text_fits_a_broker_and_leaves_out_what_does_not() -> None:
    ledger = Ledger(10**12, None)
    offsets = range(10**12, 10**12 + 20_000)
    wanted(ledger, offsets)
    ledger.settle(list(offsets[1::2]))
    ledger.hand(list(offsets[0::2]))
    assert len(ledger.text()) <= 4096
    remaining = wanted(again(ledger), offsets)
    assert set(remaining) >= set(offsets[0::2])
    assert remaining[:100] == list(offsets[0:200:2])


def test_counts_go_from_member_to_member_before_anything_else() -> None:
    ledger = Ledger(0, None)
    ledger.end("dropped", 3)
    ledger.end("expired", 1)
    assert ledger.text() == "cr1:;dropped:3;expired:1"
    copy = again(ledger)
    wanted(copy, range(20_000))
    copy.settle(list(range(1, 20_000, 2)))
    copy.end("dropped", 2)
    assert len(copy.text()) <= 4096
    assert again(copy).ended == {"dropped": 5, "expired": 1}


@pytest.mark.parametrize(
    "text",
    [
        "", "a:5", "cr1:", "cr1:x", "cr1:1-", "cr1:5-3", "cr1:-1", "cr1:1;x:2", "cr2:1", "cr1:;dropped:x",
        "cr1:0-99999999999",
    ],
)  # fmt: skip
def test_texts_of_others_do_no_harm(text: str) -> None:
    ledger = Ledger(7, text)
    assert ledger.base == 7
    assert wanted(ledger, range(7, 8)) in ([7], [])
    assert len(ledger.text()) <= 4096


def test_what_is_taken_back_after_a_commit_is_committed_anew() -> None:
    ledger = Ledger(0, None)
    ledger.hand(wanted(ledger, range(3)))
    assert again(ledger).counts == dict.fromkeys(range(3), 1)
    ledger.changed = False  # that was committed
    ledger.take_back([1, 7])
    assert ledger.is_open
    assert again(ledger).counts == {0: 1, 2: 1}
    ledger.changed = False
    ledger.take_back([1])
    assert not ledger.is_open
    ledger.take_back(range(3))
    assert ledger.is_open
    assert again(ledger).counts == {}


def test_the_order_of_a_group_goes_from_member_to_member() -> None:
    assert Ledger(3, ORDERED).ordered
    assert not Ledger(3, "cr1:1;1:0;dropped:4").ordered
    ledger = Ledger(0, None)
    ledger.ordered = True
    ledger.hand(wanted(ledger, range(20_000)))
    ledger.settle(list(range(1, 20_000, 2)))
    ledger.end("dropped", 2)
    assert len(ledger.text()) <= 4096
    copy = again(ledger)
    assert (copy.ordered, copy.ended, copy.counts[0]) == (True, {"dropped": 2}, 1)


@pytest.mark.parametrize("seed", range(20))
def test_what_was_removed_comes_no_more(seed: int) -> None:
    """However often it is told, while some messages were read and some settled."""
    chance = random.Random(seed)
    ledger = Ledger(100, None)
    removed = dict.fromkeys(chance.sample(range(50, 400), 150), -1)
    seen = wanted(ledger, range(100, 160))
    ledger.settle(chance.sample(seen, 20))
    for start in range(160, 400, 40):
        ledger.remove(removed)
        seen += wanted(ledger, range(start, start + 40))
        ledger.settle([each for each in seen if each not in removed and start - 20 <= each < start])
    assert [each for each in seen if each >= 160] == [each for each in range(160, 400) if each not in removed]
    assert ledger.count(0, 400) == again(ledger).count(0, 400) == len(wanted(again(ledger), range(ledger.base, 400)))
    assert ledger.count(390, 400) == len(
        [each for each in wanted(again(ledger), range(ledger.base, 400)) if each >= 390]
    )


def test_a_message_of_which_a_part_was_removed() -> None:
    ledger = Ledger(0, None)
    ledger.remove({0: -1, 1: 0b101})
    assert wanted(ledger, range(3)) == [1, 2]
    assert ledger.parts == {1: 0b101}
