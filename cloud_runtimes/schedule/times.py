"""When a schedule is due: cron text in a time zone, and intervals.

The written rule, after Debian's cron:

* A schedule of five fields whose minute and hour are both given (do not begin with ``*``) names times of day. One that the clocks skip is due at the first moment after the gap; one that comes twice is due the first time only.
* Any other one, a wildcard in minute or hour or a sixth field for seconds, is due at each moment whose local time matches: what the clocks skip is left out, and what comes twice is due twice.
* Where neither day of month nor day of week begins with ``*``, one of them has to match, else both.

cronsim reads the text and goes through the calendar. Local time is left to `_in_zone` here: cronsim's own stepping goes by hours of 3,600 s, which is wrong where clocks change by half an hour or at midnight (tests/schedule/test_times.py shows it).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from .._core import extras
from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from cronsim import CronSim

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)
_LAST: Final = datetime(9000, 1, 1)
_QUARTER: Final = timedelta(minutes=15)
QUARTER_MS: Final = 900_000
_MIN_EVERY: Final = 50
"""Milliseconds."""
_MAX_SCHEDULE: Final = 1000
"""Characters: all minutes written out have 169."""
_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_GO: Final = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|us|µs|ns|h|m|s))+")  # Go's time.ParseDuration
_GO_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|ns|h|m|s)")
_RANGE_OF_ONE: Final = re.compile(r"(?<![^,])(\w+)-\1/[1-9][0-9]*(?![^,])", re.ASCII)
_UNITS: Final = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}
# ISO 8601, section 5.5.2.2, without years and months, which are no fixed time
_ISO: Final = re.compile(
    r"P(?=.)(?:([0-9]{1,6})W)?(?:([0-9]{1,6})D)?(?:T(?=.)(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,12}(?:\.[0-9]{1,9})?)S)?)?"
)


def to_ms(time: datetime) -> int:
    """Return milliseconds since 1970."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """Return the time, UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


def parse_duration(text: str) -> int | None:
    """Return milliseconds of ``1h30m`` (Go) or ``PT1H30M`` (ISO 8601), rounded up; ``None``: it is neither."""
    if _GO.fullmatch(text):
        return -int(-sum(float(number) * _UNITS[unit] for number, unit in _GO_PART.findall(text)) // 1)
    if match := _ISO.fullmatch(text):
        weeks, days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return -int(-((((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 // 1)
    return None


def find_zone(name: str) -> tzinfo:
    """Return a time zone of the IANA database."""
    if name == "UTC":
        return UTC
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name) or len(name) > 64:
        raise InvalidArgumentError(f"timezone {name!r:.80}: give a name of the IANA database such as 'Europe/Paris'")
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        raise InvalidArgumentError(
            f"timezone {name!r} is not known here: give a name such as 'Europe/Paris'; a system without the database has it by pip install tzdata"
        ) from error


class Occurrences:
    """The fire times of one schedule, in milliseconds since 1970."""

    def after(self, ms: int, /) -> int | None:
        """Return the first fire time after ``ms``; ``None``: there is none."""
        raise NotImplementedError

    def between(self, low: int, high: int, /) -> Iterator[int]:
        """Yield the fire times in [low, high)."""
        at: int | None = low - 1
        while at is not None and (at := self.after(at)) is not None and at < high:
            yield at

    def count(self, low: int, high: int, /) -> int:
        """Return how many fire times are in [low, high), both whole quarters of an hour (`QUARTER_MS`)."""
        return sum(1 for _ in self.between(low, high))


class Interval(Occurrences):
    """``@every``: counted from the fire time before."""

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def after(self, ms: int, /) -> int | None:
        return ms + self.ms


class _Cron(Occurrences):
    def __init__(self, calendar: CronSim, fixed: bool, zone: tzinfo) -> None:
        self._calendar = calendar
        self._fixed = fixed
        self._zone = zone

    def after(self, ms: int, /) -> int | None:
        now = from_ms(ms).replace(microsecond=0)
        try:
            if self._zone is UTC:
                moment = self._next(now.replace(tzinfo=None))
                return None if moment is None else to_ms(moment.replace(tzinfo=UTC))
            return self._fixed_after(now) if self._fixed else self._in_zone(now)
        except OverflowError:  # beyond the calendar
            return None

    def count(self, low: int, high: int, /) -> int:
        if self._fixed:  # 1,440 a day at most
            return super().count(low, high)
        calendar, total = self._calendar, 0
        seconds, minutes = len(calendar.seconds), [sum(q <= m < q + 15 for m in calendar.minutes) for q in range(60)]
        for quarter in range(low, high, QUARTER_MS):
            begin = from_ms(quarter)
            offset = self._offset(begin)
            if offset % _QUARTER or self._offset(begin + _QUARTER - _SECOND) != offset:
                total += sum(1 for _ in self.between(quarter, quarter + QUARTER_MS))
                continue
            local = begin + offset
            if (
                minutes[local.minute]
                and local.hour in calendar.hours
                and local.month in calendar.months
                and calendar.match_day(local.date())
            ):
                total += minutes[local.minute] * seconds
        return total

    def _next(self, local: datetime) -> datetime | None:
        """Return the first match after a local time, as if clocks never changed."""
        if local > _LAST:
            return None
        calendar: Any = copy.copy(self._calendar)  # several threads may ask
        calendar.dt = local
        moment: datetime | None = next(calendar, None)
        return moment

    def _fixed_after(self, now: datetime) -> int | None:
        # what the clocks skipped just before now is due now, so it is looked for from a day before
        begin = now.astimezone(self._zone).replace(tzinfo=None) - _DAY
        while (local := self._next(begin)) is not None:
            begin = local
            moment = local.replace(tzinfo=self._zone).astimezone(UTC)
            if moment.astimezone(self._zone).replace(tzinfo=None) != local:  # skipped: the end of the gap
                moment = self._change(moment - 2 * _DAY, moment + _DAY, local)
            if moment > now:
                return to_ms(moment)
        return None

    def _change(self, low: datetime, high: datetime, local: datetime) -> datetime:
        """Return the moment at which the clocks skip a local time."""
        return _first(low, high, lambda moment: moment.astimezone(self._zone).replace(tzinfo=None) >= local)

    def _in_zone(self, now: datetime) -> int | None:
        offset = self._offset(now)
        while True:
            local = self._next((now + offset).replace(tzinfo=None))
            if local is None:
                return None
            moment = local.replace(tzinfo=UTC) - offset
            changed = self._first_change(now, moment, offset)
            if changed is None:
                return to_ms(moment)
            # go on from the second before the change, counted by what the clocks show from it on
            offset = self._offset(changed)
            now = changed - _SECOND

    def _offset(self, moment: datetime) -> timedelta:
        offset = moment.astimezone(self._zone).utcoffset()
        assert offset is not None
        return offset

    def _first_change(self, low: datetime, high: datetime, offset: timedelta) -> datetime | None:
        """Return the first moment after ``low``, and not after ``high``, at which the offset is another."""
        while low < high:
            end = min(low + _DAY, high)
            if self._offset(end) != offset:
                return _first(low, end, lambda moment: self._offset(moment) != offset)
            low = end
        return None


def _first(low: datetime, high: datetime, holds: Callable[[datetime], bool]) -> datetime:
    """Return the first second after ``low`` at which something holds, which at ``high`` it does."""
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@lru_cache(2048)
def occurrences(schedule: str, timezone: str) -> Occurrences:
    """Read a schedule; one that has no fire time in the next 50 years is none."""
    if len(schedule) > _MAX_SCHEDULE:  # what is read is remembered
        raise InvalidArgumentError(
            f"schedule {schedule!r:.80} has {len(schedule):,} characters: {_MAX_SCHEDULE:,} are taken"
        )
    zone = find_zone(timezone)
    text = schedule.strip()
    if text.startswith("@every"):
        ms = parse_duration(text.removeprefix("@every").strip())
        if ms is None or not _MIN_EVERY <= ms <= 10**13:
            raise InvalidArgumentError(
                f"schedule {schedule!r:.80}: give @every with a duration of {_MIN_EVERY} ms or more, such as '@every 5s' or '@every 1h30m'"
            )
        return Interval(ms)
    if text.startswith("@"):
        named = _NAMED.get(text.lower())
        if named is None:
            raise InvalidArgumentError(
                f"schedule {schedule!r:.80} is not known: give @every with a duration, or one of {', '.join(sorted(_NAMED))}"
            )
        text = named
    if text.upper().startswith(("TZ=", "CRON_TZ=")):
        raise InvalidArgumentError(f"schedule {schedule!r:.80}: give the time zone as timezone=")
    # cronsim reads 2-2/3, a range of one, as if it were 2/3
    fields = ["*" if field == "?" else _RANGE_OF_ONE.sub(r"\1", field) for field in text.split()]
    if len(fields) not in (5, 6) or not text.isascii():
        raise InvalidArgumentError(
            f"schedule {schedule!r:.80}: give cron of 5 fields (minute hour day month weekday) or 6 (second first), "
            "@every with a duration, or @hourly, @daily …"
        )
    with extras.importing(f"schedule {schedule!r:.80}", "schedule"):
        from cronsim import CronSim, CronSimError
    try:
        calendar = CronSim(" ".join(fields), datetime(2000, 1, 1))
    except (CronSimError, ValueError, RecursionError, AssertionError, TypeError) as error:
        reason = str(error) or "it cannot be read"
        raise InvalidArgumentError(f"schedule {schedule!r:.80}: {reason}") from error
    fixed = len(fields) == 5 and not fields[0].startswith("*") and not fields[1].startswith("*")
    return _Cron(calendar, fixed, zone)
