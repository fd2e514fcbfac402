"""Policies for calls of applications: ``retry(breaker(timeout(call)))`` (dapr/dapr ``pkg/resiliency/policy.go``).

The sidecar of the caller holds them, whichever sidecar the application is beside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from ..._core.logs import logger
from ...protocols.dapr.failures import DaprError
from ...resiliency.breaker import Breaker, State
from ...resiliency.policies import Policy, Resiliency

_MAX_BREAKERS: Final = 1000
"""Methods of applications whose breakers are remembered; beyond them the oldest begins anew."""


def not_invoked(target: str, why: str) -> DaprError:
    """Return the refusal of a call that did not reach an application (dapr/dapr ``pkg/messages``: ``ErrDirectInvoke``)."""
    return DaprError(500, "INTERNAL", "ERR_DIRECT_INVOKE", f"failed to invoke, id: {target}, err: {why}")


class AppPolicies:
    """The policies of one sidecar, with a circuit breaker for each method of an application."""

    def __init__(self, resiliency: Resiliency | None) -> None:
        self._resiliency = resiliency or Resiliency()
        self._breakers: dict[tuple[str, str], Breaker] = {}

    def attempts(self, app_id: str, method: str) -> Attempts:
        """Return what decides of the attempts of one call."""
        policy = self._resiliency.app(app_id)
        return Attempts(app_id, policy, self._breaker(app_id, method, policy))

    def _breaker(self, app_id: str, method: str, policy: Policy) -> Breaker | None:
        if policy.breaker is None:
            return None
        breaker = self._breakers.get((app_id, method))
        if breaker is None:
            if len(self._breakers) >= _MAX_BREAKERS:
                del self._breakers[next(iter(self._breakers))]

            def changed(state: State) -> None:
                logger().warning("the circuit breaker of %s/%s is %s", app_id, method, state)

            breaker = self._breakers[app_id, method] = Breaker(policy.breaker, time.monotonic, changed)
        return breaker


class Attempts:
    """The attempts of one call.

    Attributes:
        timeout: seconds of each; ``None``: no limit of its own.
        repeats: whether there may be more than one.
    """

    def __init__(self, app_id: str, policy: Policy, breaker: Breaker | None) -> None:
        self.timeout = policy.timeout
        self.repeats = policy.retries is not None
        self._app_id = app_id
        self._retries = policy.retries
        self._delays: Iterator[float] = iter(()) if policy.retries is None else policy.retries.delays()
        self._breaker = breaker
        self._generation = 0

    def begin(self) -> None:
        """Begin one.

        Raises:
            DaprError: the circuit breaker lets none through.
        """
        if self._breaker is None:
            return
        entered = self._breaker.enter()
        if isinstance(entered, float):
            raise not_invoked(self._app_id, "circuit breaker is open")
        self._generation = entered

    async def again(self, code: int | None, *, repeatable: bool = True) -> bool:
        """Count what an attempt came to, and wait for the next; ``False``: there is none.

        Args:
            code: of the answer, the status of HTTP or a code of gRPC; ``None``: there was no answer.
            repeatable: nothing of the answer has been passed on, and what was sent is still there.
        """
        good = code is not None and (code == 0 or 100 <= code < 400)
        if self._breaker is not None:
            self._breaker.leave(self._generation, good)
        if good or not repeatable or self._retries is None or not (code is None or self._retries.takes(code)):
            return False
        delay = next(self._delays, None)
        if delay is None:
            return False
        await asyncio.sleep(delay)
        return True
