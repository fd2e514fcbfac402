"""Policies around calls: what each rule means, and in which order they stand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from cloud_runtimes.resiliency import stats
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.spi.rpc import RpcReply
from cloud_runtimes.testing import Api
from tests.support import Make

CONSTANT = {"policy": "constant", "duration": 0.5, "max_retries": 3, "budget_reserve": 100}


def away(**options: Any) -> UnavailableError:
    return UnavailableError("away", **options)


def reply(status: int) -> RpcReply:
    return RpcReply(status, {}, "application/json", b"1")


# -- retries ------------------------------------------------------------------


def test_without_a_policy_of_its_own_a_target_is_tried_as_by_the_frame(
    ruled: Make, answers: Any, clock: Any, api: Api
) -> None:
    client = ruled({"default": {"retry": {"budget_reserve": 10}}})
    answers.script = [away(), away()]
    assert api.call(client.state, "get", "orders", "k") == 1
    assert [op.attempt for op in answers.operations] == [3, 3, 3], "one operation"
    first, second = clock.slept
    assert 0 <= first <= 0.1
    assert 0 <= second <= 0.2
    answers.always = away()
    with pytest.raises(UnavailableError) as caught:
        api.call(client.state, "get", "orders", "k")
    error = caught.value
    assert (error.service, error.operation, error.component, error.runtime) == ("state", "get", "orders", "fake")
    counted = stats(client)["state.orders"]
    assert (counted.calls, counted.retries, counted.state) == (2, 4, None)


def test_constant_intervals(ruled: Make, answers: Any, clock: Any, api: Api) -> None:
    client = ruled({"state.orders": {"retry": CONSTANT}})
    answers.always = away()
    api.fails(UnavailableError)(client.state, "get", "orders", "k")
    assert clock.slept == [0.5, 0.5, 0.5]


def test_exponential_intervals_double_within_full_jitter(ruled: Make, answers: Any, clock: Any) -> None:
    retry = {"duration": "100ms", "max_interval": "300ms", "max_retries": 4, "budget_reserve": 10_000}
    client = ruled({"state": {"retry": retry}})
    answers.always = away()
    rounds = []
    for _ in range(100):
        clock.slept.clear()
        with pytest.raises(UnavailableError):
            client.state.get("orders", "k")
        rounds.append(list(clock.slept))
    longest = [max(waits) for waits in zip(*rounds, strict=True)]
    for wait, limit in zip(longest, (0.1, 0.2, 0.3, 0.3), strict=True):
        assert 0.8 * limit < wait <= limit
    assert min(wait for waits in rounds for wait in waits) < 0.05


def test_a_retry_needs_a_budget(ruled: Make, answers: Any, clock: Any, api: Api) -> None:
    client = ruled({"state": {"retry": {"policy": "constant", "duration": 1, "max_retries": 9}}})

    def retries() -> int:
        before = stats(client)["state.orders"].retries if stats(client) else 0
        answers.always = away()
        api.fails(UnavailableError)(client.state, "get", "orders", "k")
        answers.always = None
        return stats(client)["state.orders"].retries - before

    assert retries() == 2, "the reserve"
    assert retries() == 0
    for _ in range(20):
        api.call(client.state, "get", "orders", "k")
    assert retries() == 2, "filled up by successes"
    for _ in range(20 + 35):
        api.call(client.state, "get", "orders", "k")
    assert retries() == 5, "and what 35 calls have earned beside it"
    for _ in range(20 + 45):
        api.call(client.state, "get", "orders", "k")
    clock.now += 60
    assert retries() == 2, "which fades"
    assert stats(client)["state.orders"].over_budget == 5


@pytest.mark.parametrize("error", [NotFoundError("x"), InternalError("x"), ConflictError("x"), ValueError("x")])
def test_what_is_not_transient_is_not_repeated(ruled: Make, answers: Any, api: Api, error: Exception) -> None:
    client = ruled({})
    answers.script = [error]
    with pytest.raises(CloudRuntimesError) as caught:
        api.call(client.state, "get", "orders", "k")
    assert caught.value is error or caught.value.__cause__ is error
    assert len(answers.operations) == 1


def test_codes_say_what_is_repeated(ruled: Make, answers: Any, api: Api) -> None:
    client = ruled({"state": {"retry": {**CONSTANT, "codes": "INTERNAL, aborted"}}})
    answers.script = [InternalError("x"), CloudRuntimesError("x", code="ABORTED")]
    assert api.call(client.state, "get", "orders", "k") == 1
    for error in (away(), ConflictError("a condition that fails again")):
        answers.operations.clear()
        answers.script = [error]
        api.fails(type(error))(client.state, "get", "orders", "k")
        assert len(answers.operations) == 1


def test_only_what_may_be_repeated_is_unless_told(ruled: Make, answers: Any, api: Api) -> None:
    once = ruled({"state": {"retry": CONSTANT}})
    answers.script = [away()]
    api.fails(UnavailableError)(once.state, "save", "orders", "k", 1, etag="e1")
    assert len(answers.operations) == 1
    repeating = ruled({"state": {"retry": {**CONSTANT, "repeat": "all"}}})
    answers.script = [away(), away()]
    api.call(repeating.state, "save", "orders", "k", 1, etag="e1")
    assert len(answers.operations) == 4


def test_no_retries(ruled: Make, answers: Any, api: Api) -> None:
    client = ruled({"default": {"retry": CONSTANT}, "state": {"retry": False}})
    answers.script = [away()]
    api.fails(UnavailableError)(client.state, "get", "orders", "k")
    assert len(answers.operations) == 1


@pytest.mark.parametrize(
    ("http", "statuses", "last", "calls"),
    [
        (None, [503, 429, 200], 200, 3),
        (None, [500], 500, 1),
        (None, [404], 404, 1),
        (None, [503, 503, 503, 503], 503, 4),
        ("404,500-502", [404, 501, 503], 503, 3),
    ],
)
def test_replies_are_repeated_by_their_status(
    ruled: Make, answers: Any, api: Api, http: str | None, statuses: list[int], last: int, calls: int
) -> None:
    retry = {**CONSTANT, "repeat": "all", **({} if http is None else {"http": http})}
    client = ruled({"rpc.inventory": {"retry": retry}})
    answers.script = [reply(status) for status in statuses]
    assert api.call(client.rpc, "invoke", "inventory", "m", {"a": 1}).status == last
    assert len(answers.operations) == calls


def test_calls_of_methods_are_not_repeated_unless_told(ruled: Make, answers: Any, api: Api) -> None:
    client = ruled({"rpc": {"retry": CONSTANT}})
    answers.script = [reply(503)]
    assert api.call(client.rpc, "invoke", "inventory", "m").status == 503
    assert len(answers.operations) == 1


def test_what_can_be_read_once_is_sent_once(ruled: Make, answers: Any, api: Api) -> None:
    client = ruled({"rpc": {"retry": {**CONSTANT, "repeat": "all"}}})
    answers.script = [away()]
    api.fails(UnavailableError)(client.rpc, "invoke", "inventory", "m", iter([b"a", b"b"]))
    assert len(answers.operations) == 1


# -- the time of an attempt -----------------------------------------------------


def slow(clock: Any, seconds: float) -> Callable[[Operation], Any]:
    """A driver that needs so long, and keeps the deadline it is given."""

    def answer(op: Operation) -> Any:
        remaining = op.remaining()
        if remaining is not None and remaining < seconds:
            clock.now += remaining
            return op.timed_out("an answer", maybe_applied=True)
        clock.now += seconds
        return None

    return answer


def test_an_attempt_that_took_too_long_is_repeated(ruled: Make, answers: Any, clock: Any, api: Api) -> None:
    client = ruled({"state.orders": {"timeout": "2s", "retry": CONSTANT}})
    answers.script = [slow(clock, 5), slow(clock, 1)]
    begin = clock.now
    assert api.call(client.state, "get", "orders", "k", timeout=10) == 1
    assert clock.now - begin == pytest.approx(2 + 0.5 + 1)
    assert len({id(op) for op in answers.operations}) == 2, "what was left behind keeps its own deadline"


@pytest.mark.parametrize(
    ("retry", "maybe", "calls"),
    [({}, True, 1), ({}, False, 2), ({"repeat": "all"}, True, 2), ({"codes": "DEADLINE_EXCEEDED"}, True, 2)],
)
def test_a_write_that_was_left_behind_is_not_repeated_unless_told(
    ruled: Make, answers: Any, clock: Any, api: Api, retry: dict[str, str], maybe: bool, calls: int
) -> None:
    client = ruled({"state": {"timeout": 2, "retry": {**CONSTANT, **retry}}})
    answers.script = [lambda op: op.timed_out("an answer", maybe_applied=maybe)]
    with pytest.raises(DeadlineExceededError) if calls == 1 else nullcontext():
        api.call(client.state, "save", "orders", "k", 1)
    assert len(answers.operations) == calls


def test_the_deadline_of_the_call_is_never_passed(ruled: Make, answers: Any, clock: Any, api: Api) -> None:
    client = ruled({"state": {"timeout": 2, "retry": {**CONSTANT, "max_retries": -1, "budget_reserve": 100}}})
    for timeout in (0.3, 2.0, 3.1, 4.7, 5.0, 9.9):
        answers.always = slow(clock, 60)
        answers.operations.clear()
        begin = clock.now
        api.fails(DeadlineExceededError)(client.state, "get", "orders", "k", timeout=timeout)
        assert clock.now - begin <= timeout + 1e-9
        assert all(op.deadline <= begin + timeout for op in answers.operations)
        assert len(answers.operations) == {0.3: 1, 2.0: 1, 3.1: 2, 4.7: 2, 5.0: 2, 9.9: 4}[timeout]


def test_the_error_of_an_attempt_tells_the_remedy(ruled: Make, answers: Any, clock: Any) -> None:
    client = ruled({"state": {"timeout": 2, "retry": False}})
    answers.always = slow(clock, 60)
    with pytest.raises(DeadlineExceededError, match=r"2 s were not enough .* raise timeout in \[resiliency\]"):
        client.state.get("orders", "k")


def test_an_attempt_does_not_outlast_what_is_left(ruled: Make, answers: Any, clock: Any) -> None:
    client = ruled({"state": {"timeout": 2, "retry": CONSTANT}})
    answers.always = slow(clock, 60)
    begin = clock.now
    with pytest.raises(DeadlineExceededError):
        client.state.get("orders", "k", timeout=3.0)
    assert [round(op.deadline - begin, 6) for op in answers.operations] == [2.0, 3.0]


def test_a_call_whose_target_gave_up_is_not_repeated(ruled: Make, answers: Any, api: Api) -> None:
    """It is no attempt of ours that took too long."""
    client = ruled({"state": {"timeout": 5, "retry": CONSTANT}})
    answers.script = [DeadlineExceededError("behind a sidecar")]
    api.fails(DeadlineExceededError)(client.state, "get", "orders", "k", timeout=4)
    assert len(answers.operations) == 1


def test_the_operation_of_an_attempt_is_the_calls_with_less_time(clock: Any) -> None:
    op = Operation(Method("state", "save", repeatable=True), "orders", 10.0, {"a": "b"})
    op.repeatable, op.attempt, op.maybe_applied, op.span = False, 2, True, object()
    attempt = op.limited(3.0)
    assert (attempt.remaining(), op.remaining()) == (3.0, 10.0)
    for name in {*Operation.__slots__} - {"timeout", "deadline", "one_attempt"}:
        assert getattr(attempt, name) == getattr(op, name), name
    assert op.limited(10.0) is op
    assert Operation(op.method, "orders", None).limited(3.0).remaining() == 3.0


# -- the order of the rules --------------------------------------------------------


BREAKER = {"consecutive_failures": 3, "timeout": "10s"}


def test_retry_breaker_timeout(ruled: Make, answers: Any, clock: Any, api: Api) -> None:
    """The time is that of an attempt, each attempt counts in the breaker, and asks it."""
    client = ruled({"state": {"timeout": 1, "retry": {**CONSTANT, "max_retries": 9}, "breaker": BREAKER}})
    answers.always = slow(clock, 60)
    api.fails(DeadlineExceededError)(client.state, "get", "orders", "k", timeout=60)
    assert len(answers.operations) == 3, "the third failure opens the circuit, so there is no fourth attempt"
    assert clock.slept == [0.5, 0.5]
    answers.always = None
    error = api.fails(UnavailableError, match=r"circuit breaker of state\.orders is open .* 10\.0 s")(
        client.state, "get", "orders", "k", timeout=60
    )
    assert not error.maybe_applied
    assert (error.component, error.operation) == ("orders", "get")
    assert (len(answers.operations), len(clock.slept)) == (3, 2), "refused, and not repeated"
    counted = stats(client)["state.orders"]
    assert (counted.refused, counted.calls, counted.retries, counted.state) == (1, 1, 2, "open")
    assert api.call(client.state, "get", "other", "k") == 1, "each target has its own"
    clock.now += 10
    assert stats(client)["state.orders"].state == "half open"
    assert api.call(client.state, "get", "orders", "k") == 1
    assert stats(client)["state.orders"].state == "closed"


def test_answers_that_blame_the_caller_do_not_open(ruled: Make, answers: Any, api: Api) -> None:
    client = ruled({"state": {"breaker": BREAKER}, "rpc": {"breaker": BREAKER}})
    for _ in range(5):
        answers.script = [NotFoundError("x")]
        api.fails(NotFoundError)(client.state, "get", "orders", "k")
        answers.script = [reply(404)]
        assert api.call(client.rpc, "invoke", "inventory", "m").status == 404
    assert {each.state for each in stats(client).values()} == {"closed"}


def test_what_was_refused_before_it_was_sent_says_nothing(ruled: Make, answers: Any, clock: Any, api: Api) -> None:
    client = ruled({"state": {"breaker": {"consecutive_failures": 1, "timeout": "10s"}}})
    answers.script = [InternalError("x"), InvalidArgumentError("refused")]
    api.fails(InternalError)(client.state, "get", "orders", "k")
    clock.now += 10
    api.fails(InvalidArgumentError)(client.state, "get", "orders", "k")
    assert stats(client)["state.orders"].state == "half open"


def test_replies_and_errors_of_many_open(ruled: Make, answers: Any, api: Api) -> None:
    client = ruled({"default": {"breaker": BREAKER}})
    for _ in range(3):
        answers.script = [reply(500)]
        assert api.call(client.rpc, "invoke", "inventory", "m").status == 500
        answers.script = [{0: away()}]
        api.fails(CloudRuntimesError)(client.state, "save_bulk", "orders", {"a": 1})
    assert {name: each.state for name, each in stats(client).items()} == {
        "rpc.inventory": "open",
        "state.orders": "open",
    }


def test_maybe_applied_is_kept_over_attempts(ruled: Make, answers: Any, clock: Any, api: Api) -> None:
    for policy in ({}, {"timeout": 1}, {"breaker": BREAKER}):
        client = ruled({"state": {"retry": CONSTANT, **policy}})
        answers.script = [away(maybe_applied=True), away(maybe_applied=False), away(), away()]
        assert api.fails(UnavailableError)(client.state, "save", "orders", "k", 1).maybe_applied
        answers.script.clear()


def test_a_refusal_after_an_attempt_tells_that_it_may_have_been_applied(
    ruled: Make, answers: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ruled({"state": {"retry": CONSTANT, "breaker": BREAKER}})
    rules: Any = client._context.policies
    breaker: Any = rules.target("state", "orders").breaker

    def opened_by_others(seconds: float) -> None:
        clock.now += seconds
        for _ in range(3):
            breaker.leave(breaker.enter(), False)

    monkeypatch.setattr("cloud_runtimes.resiliency.interceptor.time.sleep", opened_by_others)
    answers.script = [away(maybe_applied=True)]
    with pytest.raises(UnavailableError, match="is open") as caught:
        client.state.save("orders", "k", 1)
    assert caught.value.maybe_applied
