"""Policies as data: what is tried again, how long an attempt may take, when a circuit opens.

One model for ours, ``[resiliency]`` of the configuration, and for Dapr's `Resiliency` resources, which the sidecar holds too (Dapr, "Resiliency policies").
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from .._core.backoff import FULL, NONE, Backoff

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Ranges of codes, both ends included."""


@dataclass(slots=True)
class Counts:
    """Counts of a breaker since their last reset."""

    requests: int = 0
    total_successes: int = 0
    total_failures: int = 0
    consecutive_successes: int = 0
    consecutive_failures: int = 0


TripCondition: TypeAlias = Callable[[Counts], bool]
"""Returns whether a circuit opens."""

# -- Dapr's ``trip``, a few forms of CEL ---------------------------------------

_COUNTS: Final = {
    "requests": "requests",
    "totalSuccesses": "total_successes",
    "totalFailures": "total_failures",
    "consecutiveSuccesses": "consecutive_successes",
    "consecutiveFailures": "consecutive_failures",
}
"""Dapr's variable → ours."""
_COMPARISONS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
}
_FORMS: Final = """\
"consecutiveFailures > 5", "totalFailures >= 10", "totalFailures * 100 / requests >= 60", \
"double(totalFailures) / double(requests) > 0.5", and such joined by && or ||"""
_LONGEST: Final = 500


def read_trip(text: str) -> TripCondition:
    """Return the meaning of a ``trip``; `ValueError`: it is none of the forms that are understood."""
    if len(text) > _LONGEST:
        raise ValueError(f"trip has more than {_LONGEST} characters")
    python = text.strip().replace("&&", " and ").replace("||", " or ")  # beyond this the forms are Python's too
    try:
        return _condition(ast.parse(python, mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"trip is not understood here; understood are {_FORMS}") from None


def _condition(node: ast.expr) -> TripCondition:
    if isinstance(node, ast.BoolOp):
        conditions = [_condition(each) for each in node.values]
        joined = all if isinstance(node.op, ast.And) else any
        return lambda counts: joined(each(counts) for each in conditions)
    if not isinstance(node, ast.Compare) or len(node.ops) > 1:
        raise ValueError
    share, compare, number = _share(node.left), _COMPARISONS.get(type(node.ops[0])), _number(node.comparators[0])
    if compare is None:
        raise ValueError

    def holds(counts: Counts) -> bool:
        try:
            return compare(share(counts), number)
        except ZeroDivisionError:
            return False

    return holds


def _share(node: ast.expr) -> Callable[[Counts], float]:
    """Read a count, ``double()`` of one, a count times a number, or one of these divided by another."""
    if isinstance(node, ast.Name) and node.id in _COUNTS:
        return operator.attrgetter(_COUNTS[node.id])
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "double" and len(node.args) == 1 and not node.keywords:
        count = _share(node.args[0])
        return lambda counts: float(count(counts))
    if not isinstance(node, ast.BinOp):
        raise ValueError
    left_operand = _share(node.left)
    if isinstance(node.op, ast.Mult):
        factor = _number(node.right)
        return lambda counts: left_operand(counts) * factor
    if not isinstance(node.op, ast.Div):
        raise ValueError
    right = _share(node.right)
    return lambda counts: _divided(left_operand(counts), right(counts))


def _divided(one: float, other: float) -> float:
    """Divide as CEL does: integers to an integer."""
    return one // other if isinstance(one, int) and isinstance(other, int) else one / other


def _number(node: ast.expr) -> float:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    return value


# -- policies -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retries:
    """A policy of retries.

    Attributes:
        max_retries: retries; ``None``: for ever.
        interval: seconds before each one; those before the first one, where ``growth`` is given.
        exponential: intervals grow as Dapr's do: from 0.5 s, 1.5 times the one before, give or take a half, up to ``max_interval`` seconds.
        http, grpc: ranges of status codes that are tried again; empty: all.
        growth: each interval is so many times the one before, up to ``max_interval``, and what is waited is a random part of it.
        repeat_all: also calls that may not be repeated without harm.
        budget: retries for each call that succeeded of late; ``budget_reserve``: those that are there without any.
    """

    max_retries: int | None = None
    interval: float = 5.0
    exponential: bool = False
    max_interval: float = 60.0
    http: Ranges = ()
    grpc: Ranges = ()
    growth: float | None = None
    repeat_all: bool = False
    budget: float = 0.1
    budget_reserve: int = 2

    def takes(self, code: int) -> bool:
        """Return whether an answer is tried again, by its status of HTTP or its code of gRPC: a failure that is in the ranges. A failure of transport always is."""
        ranges = self.grpc if code < 100 else self.http
        failed = code >= 400 or 0 < code < 100
        return failed and (not ranges or any(first <= code <= last for first, last in ranges))

    def delays(self) -> Iterator[float]:
        """Yield the seconds to wait before each retry."""
        first = 0.5 if self.exponential else self.interval
        if self.growth is not None:
            pauses = Backoff(first, self.max_interval, growth=self.growth, jitter=FULL)
        elif self.exponential:
            pauses = Backoff(first, self.max_interval, growth=1.5, jitter=(0.5, 1.5))
        else:
            pauses = Backoff(first, first, jitter=NONE)
        count = 0
        while self.max_retries is None or count < self.max_retries:
            count += 1
            yield pauses.after(count)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """A policy of circuit breakers; the defaults are Dapr's."""

    trip: TripCondition = read_trip("consecutiveFailures > 5")
    probes: int = 1  # calls that are let through at once while it is half open; so many successes in a row close it
    interval: float = 0.0  # seconds after which the counts of a closed one begin anew; 0: never
    timeout: float = 60.0  # seconds from open to half open


@dataclass(frozen=True, slots=True)
class Policy:
    """Of one target; what is ``None`` has no policy of its own."""

    timeout: float | None = None  # seconds of each attempt
    retries: Retries | None = None
    breaker: BreakerPolicy | None = None


@dataclass(frozen=True, slots=True)
class Resiliency:
    """Policies by target."""

    apps: Mapping[str, Policy] = field(default_factory=dict)  # by app id, for calls of its methods
    outbound: Mapping[str, Policy] = field(default_factory=dict)  # by component, for calls of it
    inbound: Mapping[str, Policy] = field(default_factory=dict)  # by component, for what it delivers
    defaults: Mapping[str, Policy] = field(default_factory=dict)  # by name, such as "ComponentInboundPubsub"

    def app(self, app_id: str) -> Policy:
        """Return the policy for calls of an application; what it does not say is said by the default."""
        return self._find(self.apps.get(app_id), "App")

    def component(self, name: str, kind: str, *, inbound: bool) -> Policy:
        """Return the policy of a component; ``kind`` is ``"Statestore"``, ``"Pubsub"``, ``"Binding"`` and so on."""
        way = "Inbound" if inbound else "Outbound"
        own = (self.inbound if inbound else self.outbound).get(name)
        return self._find(own, f"Component{way}{kind}", f"Component{way}", "Component")

    def _find(self, own: Policy | None, *names: str) -> Policy:
        tried = [each for each in (own, *(self.defaults.get(name) for name in (*names, ""))) if each is not None]
        return Policy(
            next((each.timeout for each in tried if each.timeout is not None), None),
            next((each.retries for each in tried if each.retries is not None), None),
            next((each.breaker for each in tried if each.breaker is not None), None),
        )


def code_ranges(value: Any) -> Ranges:
    """Return the ranges of a text such as ``"429,500-599"``; `ValueError`: it is none."""
    ranges: list[tuple[int, int]] = []
    for part in str(value).split(",") if value not in (None, "") else ():
        match = re.fullmatch(r"\s*(\d{1,3})(?:-(\d{1,3}))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError("expected codes and ranges such as 429,500-599")
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return tuple(ranges)
