"""Pauses between attempts, and calls that are made in the background."""

from __future__ import annotations

import threading
from time import monotonic

import pytest

from cloud_runtimes._core.backoff import FULL, HALF, NONE, Backoff
from cloud_runtimes._core.threads import in_background
from cloud_runtimes.errors import UnavailableError
from tests.support.waiting import until


def test_pauses_grow_to_their_limit() -> None:
    pauses = Backoff(0.5, 3.0, jitter=NONE)
    assert [pauses.after(failures) for failures in range(6)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]
    assert pauses.after(10**6) == 3.0, "a number that no float holds"
    assert [Backoff(1.0, 10.0, growth=1.5, jitter=NONE).after(failures) for failures in (1, 2, 3)] == [1.0, 1.5, 2.25]


def test_the_next_pause_is_longer_until_an_attempt_works() -> None:
    pauses = Backoff(0.5, 3.0, jitter=NONE)
    assert [pauses.next() for _ in range(4)] == [0.5, 1.0, 2.0, 3.0]
    pauses.reset()
    assert pauses.next() == 0.5


@pytest.mark.parametrize("jitter", [NONE, HALF, FULL, (0.5, 1.5)])
def test_jitter_stays_within_its_range(jitter: tuple[float, float]) -> None:
    pauses = Backoff(1.0, 8.0, jitter=jitter)
    low, high = jitter
    drawn = [pauses.after(3) for _ in range(300)]
    assert all(4 * low <= pause <= 4 * high for pause in drawn)
    assert max(drawn) - min(drawn) >= 0.5 * 4 * (high - low)


@pytest.mark.parametrize(("again", "calls"), [(False, 2), (True, 3)])
def test_a_call_in_the_background_is_made_until_it_works(again: bool, calls: int) -> None:
    attempts: list[tuple[str, float]] = []

    def call() -> None:
        attempts.append((threading.current_thread().name, monotonic()))
        if len(attempts) == 1:
            raise UnavailableError("away")

    began = monotonic()
    in_background("test-behind", call, (0.0, 0.05, 0.1), again=again)
    until(
        lambda: len(attempts) == calls
        and "cloud-runtimes-test-behind" not in {each.name for each in threading.enumerate()}
    )
    assert {name for name, _ in attempts} == {"cloud-runtimes-test-behind"}
    assert attempts[1][1] - began >= 0.05


def test_a_call_in_the_background_that_never_works_is_given_up() -> None:
    calls: list[None] = []

    def call() -> None:
        calls.append(None)
        raise UnavailableError("away")

    in_background("test-behind", call, (0.0, 0.01))
    until(lambda: "cloud-runtimes-test-behind" not in {each.name for each in threading.enumerate()})
    assert len(calls) == 2
