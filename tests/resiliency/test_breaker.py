"""Circuit breakers, and when they trip."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloud_runtimes.resiliency.breaker import Breaker
from cloud_runtimes.resiliency.policies import BreakerPolicy, Counts, read_trip
from cloud_runtimes.resiliency.settings import BreakerSettings
from tests.support.policies_fakes import Clock

Made = Callable[..., Breaker]


@pytest.fixture
def time() -> Clock:
    return Clock()


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def new_breaker(time: Clock, messages: list[str]) -> Made:
    def make(policy: BreakerPolicy | None = None, **settings: object) -> Breaker:
        return Breaker(policy or BreakerSettings(**settings).build(), time, messages.append)  # type: ignore[arg-type]

    return make


def enter(breaker: Breaker) -> int:
    entered = breaker.enter()
    assert isinstance(entered, int), f"refused for {entered} s"
    return entered


def call(breaker: Breaker, good: bool | None) -> None:
    breaker.leave(enter(breaker), good)


def test_it_opens_after_failures_in_a_row(new_breaker: Made, messages: list[str]) -> None:
    breaker = new_breaker(consecutive_failures=3)
    for good in (False, False, True, False, False):
        call(breaker, good)
    assert breaker.state == "closed"
    call(breaker, False)
    assert (breaker.state, messages) == ("open", ["open"])


def test_open_it_refuses_until_its_time_is_over(new_breaker: Made, time: Clock) -> None:
    breaker = new_breaker(consecutive_failures=1, timeout=10.0)
    assert breaker.refuses_for() is None
    call(breaker, False)
    assert breaker.enter() == pytest.approx(10.0)
    time.now += 9.5
    assert breaker.enter() == pytest.approx(0.5)
    assert breaker.refuses_for() == pytest.approx(0.5)
    time.now += 0.5
    assert breaker.refuses_for() is None
    assert breaker.state == "half open"


def test_half_open_one_probe_decides(new_breaker: Made, time: Clock, messages: list[str]) -> None:
    breaker = new_breaker(consecutive_failures=3, timeout=10.0)
    for _ in range(3):
        call(breaker, False)
    time.now += 10
    probe = enter(breaker)
    assert isinstance(breaker.enter(), float), "one at a time"
    breaker.leave(probe, False)
    assert breaker.state == "open"
    time.now += 10
    call(breaker, True)
    assert breaker.state == "closed"
    assert messages == ["open", "half open", "open", "half open", "closed"]


def test_several_probes_must_all_succeed(new_breaker: Made, time: Clock) -> None:
    breaker = new_breaker(consecutive_failures=1, timeout=10.0, probes=3)
    call(breaker, False)
    time.now += 10
    first, second, third = (enter(breaker) for _ in range(3))
    assert isinstance(breaker.enter(), float)
    breaker.leave(first, True)
    breaker.leave(second, True)
    assert breaker.state == "half open"
    breaker.leave(third, True)
    assert breaker.state == "closed"


def test_a_probe_that_says_nothing_gives_its_place_back(new_breaker: Made, time: Clock) -> None:
    breaker = new_breaker(consecutive_failures=1, timeout=10.0)
    call(breaker, False)
    time.now += 10
    call(breaker, None)
    call(breaker, True)
    assert breaker.state == "closed"


def test_a_probe_that_never_comes_back_does_not_hold_it(new_breaker: Made, time: Clock) -> None:
    breaker = new_breaker(consecutive_failures=1, timeout=10.0)
    call(breaker, False)
    time.now += 10
    lost = enter(breaker)
    time.now += 9
    assert breaker.enter() == pytest.approx(1.0)
    time.now += 1
    call(breaker, True)
    assert breaker.state == "closed"
    breaker.leave(lost, False)
    assert breaker.state == "closed", "of an earlier generation"


def test_what_began_before_it_opened_does_not_count(new_breaker: Made, time: Clock) -> None:
    breaker = new_breaker(consecutive_failures=1, timeout=10.0)
    early = enter(breaker)
    call(breaker, False)
    time.now += 10
    probe = enter(breaker)
    breaker.leave(early, False)
    assert breaker.state == "half open"
    breaker.leave(probe, True)
    assert breaker.state == "closed"


def test_what_is_in_a_row_ends_with_the_other(new_breaker: Made) -> None:
    breaker = new_breaker(
        BreakerPolicy(read_trip("totalFailures > 0 && consecutiveSuccesses == 0 && totalSuccesses == 2"))
    )
    for good in (False, True, True):
        call(breaker, good)
    assert breaker.state == "closed"
    call(breaker, False)
    assert breaker.state == "open"


def test_a_share_of_failures(new_breaker: Made, time: Clock) -> None:
    breaker = new_breaker(consecutive_failures=1000, failure_ratio=0.5, requests=10)
    for number in range(9):
        call(breaker, number % 2 == 0)
    assert breaker.state == "closed", "too few calls"
    call(breaker, False)
    assert breaker.state == "open"


def test_counts_begin_anew(new_breaker: Made, time: Clock) -> None:
    breaker = new_breaker(consecutive_failures=3, interval=5.0)
    call(breaker, False)
    call(breaker, False)
    late = enter(breaker)
    time.now += 5
    call(breaker, False)
    breaker.leave(late, False)
    assert breaker.state == "closed"
    call(breaker, False)
    assert breaker.state == "open", "what was under way counts in the new interval"


def test_without_an_interval_they_never_do(new_breaker: Made, time: Clock) -> None:
    breaker = new_breaker(consecutive_failures=3)
    for _ in range(3):
        time.now += 1e6
        call(breaker, False)
    assert breaker.state == "open"


# -- Dapr's trip --------------------------------------------------------------------


COUNTS = Counts(requests=10, total_successes=4, total_failures=6, consecutive_failures=3)


@pytest.mark.parametrize(
    ("text", "trips"),
    [
        ("consecutiveFailures > 2", True),
        ("consecutiveFailures > 3", False),
        ("consecutiveFailures >= 3", True),
        ("(consecutiveFailures>2)", True),
        ("totalFailures >= 6 && requests > 9", True),
        ("totalFailures >= 6 && requests > 10", False),
        ("consecutiveFailures > 5 || totalFailures > 5", True),
        ("requests >= 10 && ((totalFailures * 100) / requests) >= 60", True),
        ("requests >= 10 && (totalFailures * 100 / requests) > 60", False),
        ("double(totalFailures) / double(requests) > 0.59", True),
        ("(double(totalFailures) / double(requests)) > 0.6", False),
        ("(totalFailures * 1.0) / requests >= 0.6", True),
        ("totalFailures / requests >= 1", False),  # whole numbers, as in CEL
        ("totalFailures / requests == 0", True),
        ("totalFailures / consecutiveSuccesses > 0", False),  # by zero
        ("(consecutiveFailures > 9 || totalFailures > 9) || (requests == 10)", True),
        ("requests > 3 && (totalFailures > 9 || consecutiveFailures > 1)", True),
        ("requests > 30 && (totalFailures > 9 || consecutiveFailures > 1)", False),
    ],
)
def test_trips(text: str, trips: bool) -> None:
    assert read_trip(text)(COUNTS) is trips


@pytest.mark.parametrize(
    "text", ["", "true", "failures > 3", "consecutiveFailures", "3 < consecutiveFailures", "consecutiveFailures > x"]
)
def test_trips_that_are_not_understood(text: str) -> None:
    with pytest.raises(ValueError, match="is not understood here; understood are"):
        read_trip(text)


def test_trips_without_measure_are_refused() -> None:
    with pytest.raises(ValueError, match="characters"):
        read_trip("(" * 600)
    with pytest.raises(ValueError, match="is not understood"):
        read_trip("(" * 400)
