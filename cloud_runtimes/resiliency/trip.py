"""When a circuit opens: conditions on counts, and the few forms of CEL in which Dapr's ``trip`` is written."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["CONSECUTIVE", "Condition", "Counts", "Trip", "read_trip"]


@dataclass(slots=True)
class Counts:
    """What a breaker has seen since its counts began anew."""

    requests: int = 0
    total_successes: int = 0
    total_failures: int = 0
    consecutive_successes: int = 0
    consecutive_failures: int = 0


_NAMES: Final[Mapping[str, str]] = {
    "requests": "requests",
    "totalSuccesses": "total_successes",
    "totalFailures": "total_failures",
    "consecutiveSuccesses": "consecutive_successes",
    "consecutiveFailures": "consecutive_failures",
}
"""Dapr's variable → ours."""
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}
_FORMS: Final = """\
"consecutiveFailures > 5", "totalFailures >= 10", "totalFailures * 100 / requests >= 60", \
"double(totalFailures) / double(requests) > 0.5", and such joined by && or ||"""


@dataclass(frozen=True, slots=True)
class Condition:
    """A count, or a share of two, compared with a number.

    Attributes:
        name: an attribute of `Counts`.
        sign: ``>``, ``>=``, ``<``, ``<=`` or ``==``.
        number: what it is compared with.
        over: the count that it is divided by; where that is 0 the condition does not hold.
        times: what it is multiplied by before.
        whole: the share is cut to a whole number, as CEL does with integers.
    """

    name: str
    sign: str
    number: float
    over: str | None = None
    times: float = 1.0
    whole: bool = False

    def holds(self, counts: Counts) -> bool:
        """Tell whether it does."""
        value: float = getattr(counts, self.name) * self.times
        if self.over is not None:
            divisor = getattr(counts, self.over)
            if not divisor:
                return False
            value = value // divisor if self.whole else value / divisor
        return _OPERATORS[self.sign](value, self.number)


@dataclass(frozen=True, slots=True)
class Trip:
    """Alternatives, each of conditions that hold together."""

    alternatives: tuple[tuple[Condition, ...], ...]

    def __call__(self, counts: Counts) -> bool:
        """Tell whether the circuit opens."""
        return any(all(each.holds(counts) for each in conditions) for conditions in self.alternatives)


CONSECUTIVE: Final = Trip(((Condition("consecutive_failures", ">", 5),),))
"""Dapr's default."""

_LONGEST: Final = 500
_MOST: Final = 50
_COUNT: Final = "|".join(_NAMES)
_NUMBER: Final = r"\d{1,12}(?:\.\d{1,12})?"
_SIDE: Final = rf"(?:double\(\s*({_COUNT})\s*\)|({_COUNT}))"
_CONDITION: Final = re.compile(
    rf"\s*(?:{_SIDE}|\(\s*{_SIDE}\s*\*\s*({_NUMBER})\s*\)|{_SIDE}\s*\*\s*({_NUMBER}))"
    rf"(?:\s*/\s*{_SIDE})?\s*(>=|<=|==|>|<)\s*({_NUMBER})\s*"
)


def read_trip(text: str) -> Trip:
    """Return the meaning of a ``trip``.

    Raises:
        ValueError: it is none of the forms that are understood.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"trip has more than {_LONGEST} characters")
    return Trip(_alternatives(text))


def _alternatives(text: str) -> tuple[tuple[Condition, ...], ...]:
    """Return the alternatives of a part."""
    text = _bare(text)
    parts = _split(text, "||")
    if len(parts) > 1:
        return tuple(each for part in parts for each in _alternatives(part))
    parts = _split(text, "&&")
    if len(parts) == 1:
        return ((_condition(text),),)
    found: tuple[tuple[Condition, ...], ...] = ((),)
    for part in parts:
        more = _alternatives(part)
        if len(found) * len(more) > _MOST:
            raise ValueError(f"trip has more than {_MOST} alternatives")
        found = tuple((*each, *other) for each in found for other in more)
    return found


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(_opened(text))
    if match is None:
        raise ValueError(f"trip is not understood here; understood are {_FORMS}")
    groups = match.groups()
    left_double = groups[0] or groups[2] or groups[5]
    left = left_double or groups[1] or groups[3] or groups[6]
    times = groups[4] or groups[7]
    over = groups[8] or groups[9]
    # as CEL: only integers divided by an integer are cut
    exact = bool(left_double) or bool(groups[8]) or (times is not None and "." in times)
    return Condition(
        _NAMES[left],
        groups[10],
        float(groups[11]),
        None if over is None else _NAMES[over],
        1.0 if times is None else float(times),
        over is not None and not exact,
    )


def _split(text: str, sign: str) -> list[str]:
    """Split at a sign that stands in no parentheses."""
    parts, depth, begin = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and text.startswith(sign, place):
            parts.append(text[begin:place])
            begin = place + len(sign)
    return [*parts, text[begin:]]


def _bare(text: str) -> str:
    """Take away parentheses around all of it."""
    text = text.strip()
    while text.startswith("(") and text.endswith(")"):
        inner, depth = text[1:-1], 0
        for letter in inner:
            depth += (letter == "(") - (letter == ")")
            if depth < 0:
                return text
        text = inner.strip()
    return text


def _opened(text: str) -> str:
    """Take away parentheses around the share of a condition: ``(a / b) > 1``."""
    match = re.fullmatch(r"\s*\((.*)\)(\s*(?:>=|<=|==|>|<).*)", text, re.DOTALL)
    return text if match is None or _bare(f"({match[1]})") == f"({match[1]})" else match[1] + match[2]
