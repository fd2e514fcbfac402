"""Policies around the calls of a client: the interceptor of all services where ``[resiliency]`` is configured.

``retry(breaker(timeout(call)))``: each attempt asks the breaker, and has the time of one attempt; what it comes to is counted; then the retries decide.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from math import exp
from typing import Any, Final, cast

from .._core import fork
from .._core.logs import logger
from .._core.threads import Mutex
from .._service import Call, Interceptor
from ..errors import GRPC_CODES, CloudRuntimesError, ConflictError, DeadlineExceededError, UnavailableError
from ..spi.driver import Driver
from ..spi.flow import run_sync
from ..spi.operation import Operation, set_context
from .breaker import Breaker, State, TargetStats
from .policies import Policy, Retries
from .settings import Policies

_FAULTS: Final = frozenset(["DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"])
_UNASKED: Final = frozenset(
    ["CANCELLED", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"]
)
"""Errors that may come before the target was asked, so they say nothing about it."""
_MAX_TARGETS: Final = 4096
"""That are remembered; beyond them the oldest begins anew."""
_WINDOW: Final = 8.0
"""Seconds in which what a budget has saved up fades to a third."""
_PASSING: Final = frozenset([429, 502, 503, 504])


class Target:
    """Service and name with their policy, budget, breaker and counts."""

    def __init__(self, service: str, name: str, policy: Policy, now: Callable[[], float]) -> None:
        self.name = f"{service}.{name}"
        self.timeout = policy.timeout
        self.retries: Retries = cast(Retries, policy.retries)
        self.breaker = None if policy.breaker is None else Breaker(policy.breaker, now, self._changed)
        self._lock = Mutex()
        self._now = now
        self._reserve = float(self.retries.budget_reserve)
        self._saved, self._since = 0.0, now()
        self._calls = self._retries = self._over = self._refused = 0

    def stats(self) -> TargetStats:
        """Return the counts."""
        state = None if self.breaker is None else self.breaker.state
        with self._lock:
            return TargetStats(self._calls, self._retries, self._over, self._refused, state)

    def count(self, *, calls: int = 0, retries: int = 0, refused: int = 0) -> None:
        """Count attempts."""
        with self._lock:
            self._calls += calls
            self._retries += retries
            self._refused += refused

    def earn(self) -> None:
        """Put into the budget what a call that succeeded is worth: only those, so that nothing is saved up while all fail."""
        with self._lock:
            missing = self.retries.budget_reserve - self._reserve
            if missing > 0:
                self._reserve += min(missing, self.retries.budget)
            else:
                self._fade()
                self._saved += self.retries.budget

    def spend(self) -> bool:
        """Take a retry out of the budget; ``False``: there is none, which is counted."""
        with self._lock:
            self._fade()
            if self._saved >= 1.0:
                self._saved -= 1.0
            elif self._reserve >= 1.0:
                self._reserve -= 1.0
            else:
                self._over += 1
                return False
            return True

    def _fade(self) -> None:
        """Decay the saved budget, so that it is a share of the recent calls only."""
        now = self._now()
        if now > self._since:
            self._saved *= exp((self._since - now) / _WINDOW)
            self._since = now

    def _changed(self, state: State) -> None:
        if state == "open":
            logger().warning("the circuit breaker of %s is open: calls are refused", self.name)
        else:
            logger().info("the circuit breaker of %s is %s", self.name, state)


class PolicyInterceptor(Interceptor):
    """The policies of one client, by a monotonic clock."""

    def __init__(self, policies: Policies, now: Callable[[], float] = time.monotonic) -> None:
        self.policies = policies
        self._now = now
        self._lock = Mutex()
        self._targets: dict[tuple[str, str], Target] = {}
        fork.register(self)

    def target(self, service: str, name: str) -> Target:
        """Return a target, made when it is first asked for."""
        target = self._targets.get((service, name))
        if target is None:
            with self._lock:
                target = self._targets.get((service, name))
                if target is None:
                    if len(self._targets) >= _MAX_TARGETS:
                        del self._targets[next(iter(self._targets))]
                    target = Target(service, name, self.policies.of(service, name), self._now)
                    self._targets[service, name] = target
        return target

    def stats(self) -> dict[str, TargetStats]:
        """Return the counts of all targets that were called, by ``<service>.<name>``."""
        return {target.name: target.stats() for target in [*self._targets.values()]}

    def call(self, call: Call) -> Any:
        """Make a call under the policies of its target."""
        return call.proceed() if _is_step(call) else run_sync(self._policed(call).run(sync=True))

    async def call_async(self, call: Call) -> Any:
        """Asynchronous `call`."""
        return await (call.proceed_async() if _is_step(call) else self._policed(call).run(sync=False))

    def _policed(self, call: Call) -> PolicedCall:
        return PolicedCall(self.target(call.op.method.service, call.op.component), call)

    def forked(self) -> None:
        """In a forked child: begin anew."""
        self._targets = {}


class PolicedCall:
    """Call under the policies of its target."""

    __slots__ = ("_call", "_delays", "_generation", "_limited", "_op", "_repeatable", "_target")

    def __init__(self, target: Target, call: Call) -> None:
        self._target = target
        self._call = call
        self._op = call.op
        self._delays: Iterator[float] | None = None
        self._generation: int | None = None
        self._limited = False
        self._repeatable = call.op.repeatable or (target.retries.repeat_all and not _streams(call.args))

    async def run(self, *, sync: bool) -> Any:
        """Make the call; in the sync API nothing of it suspends."""
        try:
            while True:
                attempt = self._begin()
                try:
                    result = self._call.attempt(attempt)
                    if not sync:
                        result = await result
                except Exception as error:
                    delay = self._failed(error)
                else:
                    again = self._ended(result)
                    if again is None:
                        return result
                    delay = again
                if sync:
                    time.sleep(delay)
                else:
                    await asyncio.sleep(delay)
        except BaseException as error:
            if not isinstance(error, Exception):
                self._leave(None)
            raise

    # -- its steps --------------------------------------------------------

    def _begin(self) -> Operation:
        """Return the operation of this attempt; raise `UnavailableError` where the circuit is open."""
        target, op = self._target, self._op
        if target.breaker is not None:
            entered = target.breaker.enter()
            if isinstance(entered, float):
                target.count(refused=1)
                error = UnavailableError(
                    f"{op.method}: the circuit breaker of {target.name} is open after failures; "
                    f"this attempt was not made, one may be in {entered:.1f} s ([resiliency])",
                    maybe_applied=op.maybe_applied,
                )
                set_context(error, op.method, op.component, self._call.runtime)
                raise error
            self._generation = entered
        target.count(calls=op.attempt == 1, retries=op.attempt > 1)
        if target.timeout is None:
            return op
        attempt = op.limited(target.timeout)
        self._limited = attempt is not op
        return attempt

    def _failed(self, error: Exception) -> float:
        """Count a failed attempt; return the seconds to wait before the next, or raise where there is none."""
        mapped = self._op.mapped(error, self._call.runtime)
        self._leave(_verdict(mapped))
        if self._takes(mapped):
            delay = self._again(error)
            if delay is not None:
                return delay
        if mapped is error:
            raise error
        raise mapped from error

    def _ended(self, result: Any) -> float | None:
        """Count an attempt that returned; return the seconds to wait before the next, ``None``: the result stands."""
        if self._op.method.service != "rpc":
            self._leave(_judged(result))
            return None
        status: int = result.status
        self._leave(not (status >= 500 or status == 429))
        retries = self._target.retries
        if retries.takes(status) if retries.http else status in _PASSING:
            return self._again(UnavailableError(f"status {status}"))
        return None

    def _leave(self, good: bool | None) -> None:
        generation, self._generation = self._generation, None
        if generation is not None and self._target.breaker is not None:
            self._target.breaker.leave(generation, good)
        if good and self._op.attempt == 1:
            self._target.earn()

    def _takes(self, error: CloudRuntimesError) -> bool:
        if isinstance(error, ConflictError):  # the same condition fails again
            return False
        if self._target.retries.grpc:
            return self._target.retries.takes(GRPC_CODES.get(error.code, -1))
        if self._limited and isinstance(error, DeadlineExceededError):
            # a write that was left behind may come through after the next attempt, and after what follows it
            unharmed = not (self._op.method.writes and error.maybe_applied)
            return unharmed or self._target.retries.repeat_all
        return error.retryable

    def _again(self, error: Exception) -> float | None:
        """Decide whether there is another attempt."""
        if not self._repeatable:
            return None
        target, op = self._target, self._op
        if self._delays is None:
            self._delays = target.retries.delays()
        delay = next(self._delays, None)
        remaining = op.remaining()
        if delay is None or (remaining is not None and delay >= remaining):
            return None
        # an attempt that the breaker refuses would hide what happened
        refuses = None if target.breaker is None else target.breaker.refuses_for()
        if (refuses is not None and refuses > delay) or not target.spend():
            return None
        op.attempt += 1
        self._call.retrying(error)
        return delay


def _is_step(call: Call) -> bool:
    """Return whether a call is a step of a handle or stream, which has rules of its own."""
    return call.op.method.handle or not isinstance(getattr(call.method, "__self__", None), Driver)


def _streams(args: tuple[Any, ...]) -> bool:
    """Return whether what is sent can be read only once."""
    return any(
        not isinstance(getattr(each, "body", b""), bytes) or not getattr(each, "repeatable", True) for each in args
    )


def _verdict(error: CloudRuntimesError) -> bool | None:
    """Tell what an error says about its target: ``False``: it is at fault, ``True``: it has answered, ``None``: nothing."""
    if error.code in _FAULTS or error.retryable:
        return False
    return None if error.code in _UNASKED else True


def _judged(result: Any) -> bool | None:
    """Tell what a result says about the target: it may hold the errors of some of many."""
    if isinstance(result, Mapping) and result:
        first = next(iter(result.values()))
        if isinstance(first, CloudRuntimesError):
            return _verdict(first)
    return True
