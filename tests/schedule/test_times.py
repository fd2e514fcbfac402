"""When schedules are due, against a brute force that knows only the rule in docs/explanation/schedule.md: it looks at each moment, or each local time, and asks whether the fields match."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.schedule.times import from_ms, occurrences, parse_duration, to_ms
from tests.support import Figure, Rounds

# an hour at night both ways; half an hour; at midnight; no change at all until rules changed; months without Ramadan
ZONES = ("America/New_York", "Australia/Lord_Howe", "America/Santiago", "Europe/London", "Africa/Casablanca")
_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_SECOND, _MINUTE, _QUARTER = timedelta(seconds=1), timedelta(minutes=1), timedelta(minutes=15)
_DENSE = 50_000


class Fields:
    """The six fields as sets, read without cronsim: ``*``, numbers, ranges, steps, lists."""

    def __init__(self, text: str) -> None:
        parts = text.split()
        self.six = len(parts) == 6
        if not self.six:
            parts.insert(0, "0")
        self.sets = [
            {n for term in part.split(",") for n in self._term(term, low, high)}
            for part, (low, high) in zip(parts, _RANGES, strict=True)
        ]
        self.both = parts[3].startswith("*") or parts[5].startswith("*")
        self.times_of_day = not self.six and not parts[1].startswith("*") and not parts[2].startswith("*")

    @staticmethod
    def _term(term: str, low: int, high: int) -> range:
        body, _, step = term.partition("/")
        if body == "*":
            begin, end = low, high
        elif "-" in body:
            begin, end = map(int, body.split("-"))
        else:
            begin = int(body)
            end = high if step else begin
        return range(begin, end + 1, int(step or 1))

    def day(self, local: datetime) -> bool:
        dom, dow = local.day in self.sets[3], local.isoweekday() % 7 in self.sets[5]
        return local.month in self.sets[4] and (dom and dow if self.both else dom or dow)

    def time(self, local: datetime) -> bool:
        return local.minute in self.sets[1] and local.hour in self.sets[2]


def brute(text: str, zone: ZoneInfo, begin: datetime, end: datetime) -> set[datetime]:
    """Return all that is due in [begin, end), UTC."""
    fields = Fields(text)
    moments: set[datetime] = set()
    if fields.times_of_day:
        local = begin.replace(tzinfo=None) - timedelta(days=2)
        while local < end.replace(tzinfo=None) + timedelta(days=2):
            if not fields.day(local):
                local = local.replace(hour=0, minute=0) + timedelta(days=1)
                continue
            if fields.time(local):
                moments.add(first_moment(local, zone))
            local += _MINUTE
        return {moment for moment in moments if begin <= moment < end}
    moment = begin
    while moment < end:  # clocks change at a quarter of an hour, if at all
        local = moment.astimezone(zone).replace(tzinfo=None)
        assert (moment + _QUARTER - _SECOND).astimezone(zone).replace(tzinfo=None) == local + _QUARTER - _SECOND
        if local.hour in fields.sets[2] and fields.day(local):
            minutes = [n for n in range(15) if local.minute + n in fields.sets[1]]
            moments.update(moment + n * _MINUTE + s * _SECOND for n in minutes for s in fields.sets[0])
        moment += _QUARTER
    return moments


def first_moment(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment that has a local time, or that comes after the gap which skips it."""
    moment = local.replace(tzinfo=UTC) - timedelta(hours=15)
    for step in (timedelta(hours=1), timedelta(minutes=1)):
        # going on while it is earlier; local time may go back, so a coarse step stops before any change
        while (moment + step).astimezone(zone).replace(tzinfo=None) < local:
            moment += step
    return moment + _MINUTE


def ours(text: str, zone: str, begin: datetime, end: datetime) -> Iterator[datetime]:
    times = occurrences(text, zone)
    at = to_ms(begin) - 1
    while (moment := times.after(at)) is not None and moment < to_ms(end):
        assert moment > at
        at = moment
        yield from_ms(moment)


def expression(dice: random.Random) -> str:
    """Return one at random, with hours that clocks change at more often than others."""

    def field(low: int, high: int, star: float) -> str:
        kind = dice.random()
        if kind < star:
            return "*" if dice.random() < 0.6 else f"*/{dice.randint(2, max(2, high // 2))}"
        first = dice.randint(low, high)
        if kind < star + (1 - star) * 0.5:
            return str(first)
        if kind < star + (1 - star) * 0.75:
            return f"{first}-{dice.randint(first, high)}" + dice.choice(["", "/3"])
        return ",".join(str(dice.randint(low, high)) for _ in range(3))

    hour = dice.choice(["0", "1", "2", "3", "1,2", "0-3", "23", "*", "*/2", field(0, 23, 0.2)])
    parts = [field(0, 59, 0.25), hour, field(1, 28, 0.7), field(1, 12, 0.7), field(0, 6, 0.6)]
    if dice.random() < 0.3:
        parts.insert(0, dice.choice(["0", "30", "15,45", "*/20"]))
    return " ".join(parts)


def changes(zone: ZoneInfo, year: int, years: int) -> list[datetime]:
    """Return the moments, to the hour, at which clocks change."""
    moment, end, moments = datetime(year, 1, 1, tzinfo=UTC), datetime(year + years, 1, 1, tzinfo=UTC), []
    while moment < end:
        after = moment + timedelta(hours=1)
        if moment.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            moments.append(moment)
        moment = after
    return moments


@pytest.mark.promise("D2", figure="200 cron expressions in")
@pytest.mark.parametrize("name", ZONES)
def test_clock_changes(name: str, rounds: Rounds, figure: Figure) -> None:
    """Days around each change in ten years; at full length all of them, but for what is due more often than 50,000 times."""
    dice = random.Random(name)
    zone = ZoneInfo(name)
    count, whole = rounds(8, 200), rounds(0, 200)
    around = changes(zone, 2020, 10)
    assert around
    days = timedelta(days=1.5)
    compared = throughout = 0
    for number in range(count):
        text = expression(dice)
        spans = [(change - days, change + days) for change in around]
        if number < whole:
            spans.append((datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)))
        for begin, end in spans:
            expected = sorted(brute(text, zone, begin, end))
            if len(expected) <= _DENSE:
                assert list(ours(text, name, begin, end)) == expected, (text, name)
                compared += len(expected)
                throughout += end - begin > 2 * days
    figure(
        f"{count} cron expressions in {name} around the changes of ten years",
        f"{len(around)} changes, {throughout} expressions throughout: {compared:,} occurrences, no difference from the rule",
    )


@pytest.mark.parametrize("name", ZONES)
def test_counting(name: str) -> None:
    """As many as there are, also over a change of clocks."""
    dice = random.Random(name)
    low = datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(6):
        text = expression(dice)
        for change in changes(ZoneInfo(name), 2026, 1):
            low = change - timedelta(hours=8)
            begin, end = to_ms(low), to_ms(low + timedelta(hours=16))
            times = occurrences(text, name)
            assert times.count(begin, end) == len(list(times.between(begin, end))), text
    assert occurrences("* * * * * *", name).count(0, 864_000_000) == 864_000


@pytest.mark.parametrize(
    ("text", "zone", "begin", "expected"),
    [
        # spring: 02:00 to 03:00 is skipped
        ("30 2 * * *", "America/New_York", "2026-03-08T05:00Z", ["2026-03-08T07:00Z", "2026-03-09T06:30Z"]),
        ("0,30 2 * * *", "America/New_York", "2026-03-08T05:00Z", ["2026-03-08T07:00Z", "2026-03-09T06:00Z"]),
        ("*/30 2 * * *", "America/New_York", "2026-03-08T05:00Z", ["2026-03-09T06:00Z"]),
        ("0 30 2 * * *", "America/New_York", "2026-03-08T05:00Z", ["2026-03-09T06:30Z"]),
        # autumn: 01:00 to 02:00 comes twice
        ("30 1 * * *", "America/New_York", "2026-11-01T04:00Z", ["2026-11-01T05:30Z", "2026-11-02T06:30Z"]),
        ("30 * * * *", "America/New_York", "2026-11-01T05:00Z", ["2026-11-01T05:30Z", "2026-11-01T06:30Z"]),
        ("0 30 1 * * *", "America/New_York", "2026-11-01T04:00Z", ["2026-11-01T05:30Z", "2026-11-01T06:30Z"]),
        ("15 30 1 * * *", "America/New_York", "2026-11-01T05:30:15Z", ["2026-11-01T06:30:15Z"]),
        # asked in the hour that comes twice, the second time
        ("45 1 * * *", "America/New_York", "2026-11-01T06:10Z", ["2026-11-02T06:45Z"]),
        # clocks that change at midnight, and by half an hour
        ("0 0 * * *", "America/Santiago", "2026-09-06T03:00Z", ["2026-09-06T04:00Z", "2026-09-07T03:00Z"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:00Z", ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]),
    ],
)
def test_named_cases(text: str, zone: str, begin: str, expected: list[str]) -> None:
    at = to_ms(datetime.fromisoformat(begin))
    moments = []
    for _ in expected:
        following = occurrences(text, zone).after(at)
        assert following is not None
        at = following
        moments.append(from_ms(at))
    assert moments == [datetime.fromisoformat(each) for each in expected]


def test_cronsim_follows_the_rule_where_clocks_change_by_an_hour_and_not_elsewhere() -> None:
    """Why local time is not left to cronsim: the day that its zones go beyond whole hours, this fails, and `_in_zone` can go."""

    def cronsim(text: str, name: str, begin: datetime, end: datetime) -> list[datetime]:
        moments = []
        for moment in CronSim(text, (begin - _SECOND).astimezone(ZoneInfo(name))):
            if moment.astimezone(UTC) >= end:
                return moments
            moments.append(moment.astimezone(UTC))
        return moments

    dice = random.Random(1)
    for _ in range(20):
        text = expression(dice)
        for change in changes(ZoneInfo("America/New_York"), 2024, 2):
            begin, end = change - timedelta(days=1), change + timedelta(days=1)
            theirs = cronsim(text, "America/New_York", begin, end)
            assert theirs == list(ours(text, "America/New_York", begin, end)), text
    differing = (
        "*/10 2 * * *",
        "Australia/Lord_Howe",
        datetime(2026, 4, 4, tzinfo=UTC),
        datetime(2026, 4, 5, tzinfo=UTC),
    )
    assert cronsim(*differing) != list(ours(*differing))


def test_forms(subtests: pytest.Subtests) -> None:
    for text, after, expected in (
        ("@hourly", "2026-01-01T00:30Z", "2026-01-01T01:00Z"),
        ("@daily", "2026-01-01T00:00Z", "2026-01-02T00:00Z"),
        ("@midnight", "2026-01-01T00:00Z", "2026-01-02T00:00Z"),
        ("@weekly", "2026-01-01T00:00Z", "2026-01-04T00:00Z"),
        ("@monthly", "2026-01-01T00:00Z", "2026-02-01T00:00Z"),
        ("@yearly", "2026-01-01T00:00Z", "2027-01-01T00:00Z"),
        ("@annually", "2026-01-01T00:00Z", "2027-01-01T00:00Z"),
        ("@every 1h30m", "2026-01-01T00:00:00.250Z", "2026-01-01T01:30:00.250Z"),
        ("0 12 ? * MON", "2026-01-01T00:00Z", "2026-01-05T12:00Z"),
        ("*/10 * * * * *", "2026-01-01T00:00:01Z", "2026-01-01T00:00:10Z"),
        ("* * * * *", "2026-01-01T00:00:59.999Z", "2026-01-01T00:01Z"),
        ("0 0 29 2 *", "2097-01-01T00:00Z", "2104-02-29T00:00Z"),
        ("5 2-2/3,7 * * *", "2026-01-01T02:05Z", "2026-01-01T07:05Z"),
        ("0 0 13 * 5", "2026-01-01T00:00Z", "2026-01-02T00:00Z"),  # either of the two days
        ("0 0 */31 * 5", "2026-01-01T00:00Z", "2026-05-01T00:00Z"),  # both
    ):
        with subtests.test(text=text, after=after):
            moment = occurrences(text, "UTC").after(to_ms(datetime.fromisoformat(after)))
            assert moment is not None
            assert from_ms(moment) == datetime.fromisoformat(expected)


def test_what_is_no_schedule(subtests: pytest.Subtests) -> None:
    for text in (
        "",
        "x",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "0 0 31 2 *",
        "*/0 * * * *",
        "5-1 * * * *",
        "1,,2 * * * *",
        "* * * * MONDAY",
        "* * L/2-1 * *",
        "٣ * * * *",
        "@never",
        "@every",
        "@every 0s",
        "@every -5s",
        "@every 1ms",
        "@every 5",
        "@every 1y",
        "@every 99999999999h",
        "TZ=UTC * * * * *",
        "1" * 2000,
        "," * 900 + " * * * *",
        "1/" * 400 + "1 * * * *",
    ):
        with subtests.test(text=text), pytest.raises(InvalidArgumentError, match=r"^schedule "):
            occurrences(text, "UTC")


def test_what_is_no_zone(subtests: pytest.Subtests) -> None:
    for zone in ("", "Nowhere/City", "../etc/passwd", "/etc/passwd", "Europe", "UTC\0", 5, None, "a" * 65):
        with subtests.test(zone=zone), pytest.raises(InvalidArgumentError, match="timezone"):
            occurrences("@hourly", zone)


def test_durations(subtests: pytest.Subtests) -> None:
    for text, ms in (
        ("5s", 5000),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("100ms", 100),
        ("1us", 1),
        ("0s", 0),
        ("PT5S", 5000),
        ("P1DT1M", 86_460_000),
        ("P2W", 1_209_600_000),
        ("PT0.5S", 500),
        ("", None),
        ("P", None),
        ("PT", None),
        ("P1Y", None),
        ("5", None),
        ("s", None),
        ("-5s", None),
    ):
        with subtests.test(text=text, ms=ms):
            assert parse_duration(text) == ms
