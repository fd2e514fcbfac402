"""Questions to telemetry as people type them: a span of time, and conditions on attributes.

Conditions are joined by spaces: ``http.request.method=GET tier!="not paid" http.response.status_code>=500``. All must hold for one record. An attribute is looked up in the record, then in its resource, then in its scope.
"""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ..codec import json
from ..errors import InvalidArgumentError

_MAX_CONDITIONS: Final = 10
_LARGE: Final = 16 << 10
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_END: Final = (1 << 63) - 1
_CONDITION: Final = re.compile(r'\s*(?:("[^"]+")|([^\s=!<>"]+))(!=|>=|<=|=|>|<)(?:"([^"]*)"|([^\s"]*))(?=\s|$)')
_ORDERS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


class Period(NamedTuple):
    """A span of time with both of its ends, in nanoseconds since 1970."""

    start: int
    end: int


ALWAYS: Final = Period(0, _END)


def period(given: Mapping[str, str], now: Callable[[], int] = time.time_ns) -> Period:
    """Return the span of time that ``range=15m``, or ``from=`` and ``to=``, ask for.

    Raises:
        InvalidArgumentError: it is no time, or ends before it starts.
    """
    if (text := given.get("range", "")) not in ("", "between"):
        size, unit = text[:-1], _SECONDS.get(text[-1:])
        if unit is None or not (size.isascii() and size.isdigit() and len(size) < 7):
            raise InvalidArgumentError(f"range {text!r:.40}: give a number with s, m, h or d, such as 15m")
        return Period(max(0, now() - int(size) * unit * 10**9), _END)
    found = Period(_nanoseconds("from", given.get("from"), 0), _nanoseconds("to", given.get("to"), _END))
    if found.start > found.end:
        raise InvalidArgumentError("from must be before to")
    return found


def _nanoseconds(name: str, text: str | None, default: int) -> int:
    if not text:
        return default
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return max(0, min(_END, int(moment.timestamp() * 1000) * 1_000_000))
    except (ValueError, OverflowError):
        raise InvalidArgumentError(f"{name} {text!r:.40}: give a time with its zone as 2026-11-28T09:00:00Z") from None


class Condition(NamedTuple):
    """A comparison of an attribute; an absent one differs from every value."""

    key: str
    sign: str
    text: str
    number: float | None

    def holds(self, value: Any) -> bool:
        """Return whether it is true of a value; ``None``: there is no such attribute."""
        number = _number(value)
        if self.sign in _ORDERS:
            return number is not None and self.number is not None and _ORDERS[self.sign](number, self.number)
        if number is not None and self.number is not None:
            same = number == self.number
        else:
            same = value is not None and self.text == (value if isinstance(value, str) else json.encode(value).decode())
        return same == (self.sign == "=")


def conditions(text: str) -> list[Condition]:
    """Return what a text asks of attributes.

    Raises:
        InvalidArgumentError: it asks nothing that can be understood; names the part.
    """
    found: list[Condition] = []
    at = 0
    while rest := text[at:].strip():
        match = _CONDITION.match(text, at)
        if match is None:
            part = rest.split()[0]
            raise InvalidArgumentError(
                f"{part!r:.80}: write key=value, key!=value, key>1, key>=1, key<1 or key<=1, joined by spaces; "
                'key="a value" where it has spaces'
            )
        quoted, plain, sign, in_quotes, bare = match.groups()
        key, value = quoted[1:-1] if quoted else plain, bare if in_quotes is None else in_quotes
        number = _number(value)
        if sign in _ORDERS and number is None:
            raise InvalidArgumentError(f"{key}{sign}{value}"[:80] + f": {sign} compares with a number")
        found.append(Condition(key, sign, value, number))
        if len(found) > _MAX_CONDITIONS:
            raise InvalidArgumentError(f"give at most {_MAX_CONDITIONS} conditions on attributes")
        at = match.end()
    return found


def all_hold(asked: Sequence[Condition], detail: bytes, source: bytes) -> bool:
    """Return whether all conditions hold for a record, given its JSON and that of its resource and scope."""
    if not asked:
        return True
    own = json.decode(detail).get("attributes", {})
    return all(each.holds(own[each.key] if each.key in own else _of_source(each.key, source)) for each in asked)


def _of_source(key: str, source: bytes) -> Any:
    # most records share a few sources; large ones are not kept in memory
    about = _decoded(source) if len(source) <= _LARGE else json.decode(source)
    return about.get("resource", {}).get(key, about.get("scope_attributes", {}).get(key))


@lru_cache(maxsize=64)
def _decoded(source: bytes) -> Any:
    return json.decode(source)


def _number(value: Any) -> float | None:
    """Return a number, also one in a text, such as an integer beyond what the page's numbers hold exactly."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, str))
        or (isinstance(value, str) and len(value) > 40)
    ):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number - number == 0 else None
