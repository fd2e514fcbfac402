"""Questions to stored telemetry: spans of time, conditions on attributes, sampled points, quantiles, and who calls whom."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.dashboard import queries
from cloud_runtimes.dashboard.quantiles import QUANTILES, quantiles
from cloud_runtimes.dashboard.search import ALWAYS, Period, conditions, period
from cloud_runtimes.dashboard.series import points
from cloud_runtimes.dashboard.service_map import service_map
from cloud_runtimes.dashboard.store import Store
from cloud_runtimes.errors import InvalidArgumentError
from tests.telemetry.test_viewer_store import add, listed
from tests.telemetry.viewing import START, attributes, gauge, logs, metrics, spans, text

SECOND = 10**9


@pytest.fixture
def store() -> Iterator[Store]:
    with_memory = Store(":memory:", clocks=Clocks())
    with_memory.open()
    yield with_memory
    with_memory.close()


def one(number: int, *, service: str = "shop", **span: Any) -> dict[str, Any]:
    """Return a request with a trace of one span, that starts in second ``number``."""
    begin = START + number * SECOND
    times = {"startTimeUnixNano": str(begin), "endTimeUnixNano": str(begin + 1_000_000)}
    return spans({"traceId": f"{number + 1:032x}", "name": f"work-{number}", **times, **span}, service=service)


def values(**given: Any) -> list[dict[str, Any]]:
    forms = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    return [{"key": key.replace("__", "."), "value": {forms[type(value)]: value}} for key, value in given.items()]


# -- spans of time ---------------------------------------------------------


def test_a_period_is_relative_or_has_ends() -> None:
    def now() -> int:
        return 10_000 * SECOND

    assert period({}, now) == period({"range": "between"}, now) == ALWAYS
    assert period({"range": "5m"}, now).start == 9_700 * SECOND
    assert period({"range": "1d"}, now).start == 0
    given = {"range": "between", "from": "2023-11-14T22:13:20Z", "to": "2023-11-14T23:13:21+01:00"}
    assert period(given, now) == Period(START, START + SECOND)


@pytest.mark.parametrize(
    "given",
    [
        *({"range": bad} for bad in ("5", "m", "-5m", "5y", "9999999m", "٣m", "5m ")),
        *({"from": bad} for bad in ("yesterday", "2023-11-14T22:13:20", "9" * 400)),
        {"from": "2023-11-14T22:13:20Z", "to": "2023-11-14T22:13:19Z"},
    ],
)
def test_what_is_no_time_is_refused_with_an_example(given: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"give a|before"):
        period(given)


def test_traces_logs_and_points_of_a_period(store: Store) -> None:
    for number in range(10):
        add(store, "traces", one(number))
    add(store, "logs", logs(*({**text(f"{n}"), "timeUnixNano": str(START + n * SECOND)} for n in range(10))))
    add(store, "metrics", metrics(gauge("load", *range(10)), {**gauge("old", 1.0)}))
    middle = Period(START + 3 * SECOND, START + 5 * SECOND)
    assert listed(store, period=middle) == ["work-5", "work-4", "work-3"]
    assert [each["body"] for each in queries.logs(store, period=middle)["logs"]] == ["5", "4", "3"]
    (series,) = queries.metrics(store, period=middle)["series"]
    assert (series["name"], [each["value"] for each in series["points"]]) == ("load", [3.0, 4.0, 5.0])


@pytest.mark.parametrize("given", [Period(START, START + SECOND), ALWAYS])
def test_a_period_is_answered_by_an_index(store: Store, monkeypatch: pytest.MonkeyPatch, given: Period) -> None:
    """No statement reads a table of records from end to end."""
    add(store, "traces", one(0))
    add(store, "logs", logs(text("hello")))
    add(store, "metrics", metrics(gauge("load", 1.0)))
    ask, plans = store.query, list[str]()

    def explained(sql: str, parameters: Any = ()) -> list[Any]:
        plans.extend(row[3] for row in ask(f"EXPLAIN QUERY PLAN {sql}", parameters))
        return ask(sql, parameters)

    monkeypatch.setattr(store, "query", explained)
    asked = conditions("a=b")
    queries.traces(store, period=given, service="shop", name="x", asked=asked)
    queries.logs(store, period=given, text="x", asked=asked)
    queries.metrics(store, period=given)
    service_map(store, given)
    records = ["spans", "traces", "logs", "points", "s", "t", "c", "l", "p"]
    scans = [each for each in plans if each.startswith("SCAN") and each.split()[1] in records]
    # of the list of series, which the names in it search
    assert {*scans} <= {"SCAN s USING INDEX series_identity"}
    for index in (
        "traces_start (start>? AND start<?)",
        "logs_time (time>? AND time<?)",
        "points_series (series=? AND time>?",
    ):
        assert [each for each in plans if each.startswith("SEARCH") and index in each]


# -- conditions ------------------------------------------------------------


def test_conditions_on_attributes(store: Store) -> None:
    given: list[dict[str, Any]] = [
        {"tier": "free", "size": 5, "ok": True, "note": "two words"},
        {"tier": "paid", "size": 50, "ok": False, "ratio": 0.5},
        {"tier": "paid", "size": str(2**60), "sign>": "odd"},
        {"__proto__": "x", "empty": ""},
    ]
    for number, each in enumerate(given):
        add(store, "traces", one(number, attributes=values(**each), service="shop" if number else "bank"))
    add(store, "logs", logs(*({**text(f"{n}"), "attributes": values(**each)} for n, each in enumerate(given))))
    for asked, found in (
        ("tier=paid", [2, 1]),
        ("tier!=paid", [3, 0]),
        ("size>5", [2, 1]),
        ("size>=5", [2, 1, 0]),
        ("size<50.5 tier=paid", [1]),
        ("size<=5", [0]),
        ("size=50.0", [1]),
        ("ok=true", [0]),
        ("ok!=true", [3, 2, 1]),
        ('note="two words"', [0]),
        ("note=two", []),
        ('"sign>"=odd', [2]),
        ("..proto..=x", []),
        ("empty=", [3]),
        ('empty=""', [3]),
        ("ratio=0.5", [1]),
        (f"size={2**60}", [2]),
        ("tier=';DROP", []),
        ("  tier=paid   size=50 ", [1]),
    ):
        assert listed(store, asked=conditions(asked)) == [f"work-{number}" for number in found], asked
        bodies = [int(each["body"]) for each in queries.logs(store, asked=conditions(asked))["logs"]]
        assert bodies == found, asked
    assert listed(store, asked=conditions("service.name=bank")) == ["work-0"]
    assert listed(store, asked=conditions("tier=paid"), name="K-2") == ["work-2"]
    assert listed(store, asked=conditions("tier=paid"), service="bank") == []


def test_all_conditions_hold_for_one_span(store: Store) -> None:
    add(store, "traces", spans({"attributes": attributes(a="1")}, {"attributes": attributes(b="1")}))
    assert listed(store, asked=conditions("a=1")) == ["work"]
    assert listed(store, asked=conditions("a=1 b=1")) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("free", "'free'"),
        ("tier=free hello", "'hello'"),
        ("=free", "'=free'"),
        ('note="two', "'note=\"two'"),
        ("size>large", "size>large: > compares with a number"),
        ("size>nan", "compares with a number"),
        ("!", "'!'"),
        ("tier='; DROP TABLE spans; --'", "'DROP'"),
        ("<script>alert(1)</script>", "<script>"),
        (" ".join(f"k{n}=1" for n in range(11)), "at most 10"),
        ("x" * 10_000, "x" * 60),
    ],
)
def test_what_is_no_condition_is_named(text: str, part: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        conditions(text)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 300


def test_conditions_end_in_linear_time() -> None:
    for hostile in ('a="' * 5_000, "a" * 16_000 + " ", "=" * 16_000, '"' * 16_000, "a= " * 9 + " " * 16_000):
        try:
            conditions(hostile)
        except InvalidArgumentError:
            pass


def test_a_search_is_bounded_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_LOOKED", 20)
    monkeypatch.setattr(queries, "_PIECE", 10)
    for number in range(50):
        add(store, "traces", one(number, attributes=attributes(n=str(number))))
    add(store, "logs", logs(*({**text(f"{n}"), "attributes": attributes(n=str(n))} for n in range(50))))
    for ask, kind in ((queries.traces, "traces"), (queries.logs, "logs")):
        beyond, within = (ask(store, asked=conditions(f"n={n}")) for n in ("5", "45"))
        assert (beyond[kind], beyond["searched"]) == ([], 20)
        assert (len(within[kind]), within["searched"]) == (1, 20)
        assert (ask(store, limit=5)["searched"], ask(store, limit=5)["more"]) == (None, True)
    early = Period(0, START + 6 * SECOND)
    assert listed(store, asked=conditions("n=5"), period=early) == ["work-5"]
    assert queries.traces(store, asked=conditions("n=5"), period=early)["searched"] is None
    assert service_map(store)["searched"] == 20


def test_pieces_lose_and_repeat_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_PIECE", 7)
    chance = random.Random(1)
    times = [chance.randrange(9) for _ in range(100)]
    for number, at in enumerate(times):
        request = one(at, traceId=f"{number + 1:032x}", spanId=f"{1:016x}")
        add(store, "traces", request)
    add(store, "logs", logs(*({**text(str(n)), "timeUnixNano": str(START + at)} for n, at in enumerate(times))))
    traces = [each["trace"] for each in queries.traces(store, limit=1000)["traces"]]
    assert sorted(traces) == [f"{number + 1:032x}" for number in range(100)]
    bodies = [int(each["body"]) for each in queries.logs(store, limit=1000)["logs"]]
    assert bodies == sorted(range(100), key=lambda n: (times[n], n), reverse=True)


# -- metrics ---------------------------------------------------------------


def test_a_long_period_is_sampled(store: Store) -> None:
    add(store, "metrics", metrics(gauge("load", *range(1000))))
    ((number,),) = store.query("SELECT id FROM series")
    short = points(store, number, "gauge", Period(START + 980 * SECOND, ALWAYS.end))
    assert [each["value"] for each in short] == [float(n) for n in range(980, 1000)]
    long = [each["value"] for each in points(store, number, "gauge", Period(START, ALWAYS.end))]
    assert len(long) == 60
    assert (long[-1], long[0] < 30) == (999.0, True)
    assert {round(b - a) for a, b in itertools.pairwise(long)} <= {16, 17}


def test_lines_of_an_instrument_are_bounded_and_counted(store: Store) -> None:
    data = [{"timeUnixNano": str(START), "asInt": "1", "attributes": attributes(n=f"{n:02}")} for n in range(25)]
    add(store, "metrics", metrics({"name": "a", "gauge": {"dataPoints": data}}, gauge("b", 1.0)))
    found = queries.metrics(store)["series"]
    assert [(each["name"], each["sets"]) for each in found] == [("a", 25)] * 10 + [("b", 1)]
    assert [each["attributes"]["n"] for each in found[:10]] == [f"{n:02}" for n in range(10)]


def test_processes_are_told_apart(store: Store) -> None:
    for pid in (1, 2):
        request = metrics(gauge("load", float(pid)))
        about = values(service__name="shop", host__name="web", process__pid=pid)
        request["resourceMetrics"][0]["resource"]["attributes"] = about
        add(store, "metrics", request)
    assert [each["process"] for each in queries.metrics(store)["series"]] == ["web:1", "web:2"]
    source = {"resource": {"service.instance.id": "627cc493-f310-47de"}}
    assert queries.process_of(source) == "627cc493-f310-47de"
    assert queries.process_of({"resource": {}}) == ""


def explicit(recorded: list[float], bounds: list[float]) -> dict[str, Any]:
    counts = [0] * (len(bounds) + 1)
    for value in recorded:
        counts[sum(value > bound for bound in bounds)] += 1
    return {"explicitBounds": bounds, "bucketCounts": [str(count) for count in counts]}


def exponential(recorded: list[float], scale: int) -> dict[str, Any]:
    found: dict[str, Any] = {"scale": scale, "zeroCount": str(sum(value == 0 for value in recorded))}
    for side, sign in (("positive", 1), ("negative", -1)):
        indexes = [math.ceil(math.log2(sign * v) * 2**scale) - 1 for v in recorded if sign * v > 0]
        if indexes:
            low = min(indexes)
            counts = [str(indexes.count(index)) for index in range(low, max(indexes) + 1)]
            found[side] = {"offset": low, "bucketCounts": counts}
    return found


def test_quantiles_are_within_a_bucket_of_the_truth() -> None:
    chance = random.Random(7)
    earlier = [chance.lognormvariate(3, 1) for _ in range(500)]
    later = [chance.lognormvariate(0, 1) for _ in range(2000)]
    truth = [sorted(later)[int(share * len(later))] for share in QUANTILES]
    for scale in (3, 5):
        found = quantiles(exponential(earlier + later, scale), exponential(earlier, scale + 1))
        assert found == pytest.approx(truth, rel=2**2.0**-3 - 1 + 0.05)
    bounds = [1.1**n for n in range(-50, 60)]
    assert quantiles(explicit(earlier + later, bounds), explicit(earlier, bounds)) == pytest.approx(truth, rel=0.15)
    negative = quantiles(exponential([-value for value in later] + [0.0], 3), None)
    assert negative == pytest.approx([-sorted(later, reverse=True)[int(s * 2000)] for s in QUANTILES], rel=0.15)
    assert quantiles(exponential([0.0] * 5, 0), None) == [0.0, 0.0, 0.0]


def test_buckets_that_are_none_have_no_quantiles() -> None:
    for bad in (
        {},
        {"scale": 2**31 - 1, "positive": {"bucketCounts": ["1"]}},
        {"scale": -(2**31), "positive": {"bucketCounts": ["1"]}},
        {"explicitBounds": ["NaN"], "bucketCounts": ["1", "1"]},
        {"explicitBounds": [1.0, "Infinity"], "bucketCounts": ["0", "0", "5"]},
        {"explicitBounds": [1.0], "bucketCounts": ["1"]},
        {"explicitBounds": [1.0], "bucketCounts": ["0", "0"]},
        {"explicitBounds": [1.0] * 5_000, "bucketCounts": ["1"] * 5_001},
    ):
        assert quantiles(bad, None) is None
        assert quantiles(bad, bad) is None
    far = {"scale": 20, "positive": {"offset": 2**31 - 1, "bucketCounts": ["1"]}}
    assert quantiles(far, None) is not None
    # a restart that nothing else tells: counts that fell
    assert quantiles(explicit([1.0], [2.0]), explicit([1.0] * 9, [2.0])) == quantiles(explicit([1.0], [2.0]), None)


def test_points_of_a_histogram_have_quantiles(store: Store) -> None:
    data = []
    for number, recorded in enumerate(([5.0] * 10, [5.0] * 10 + [50.0] * 10)):
        point = {"timeUnixNano": str(START + number), "count": str(len(recorded)), "sum": sum(recorded)}
        data.append({**point, **explicit(recorded, [0.0, 10.0, 100.0])})
    histogram = {"dataPoints": data, "aggregationTemporality": 2}
    base2 = [
        {"timeUnixNano": str(START), "count": "4", "sum": 4.0, **exponential([1.0] * 4, 0)},
    ]
    add(
        store,
        "metrics",
        metrics(
            {"name": "a", "histogram": histogram},
            {"name": "b", "exponentialHistogram": {"dataPoints": base2, "aggregationTemporality": 1}},
        ),
    )
    first, second = (each["points"] for each in queries.metrics(store)["series"])
    assert first[0]["quantiles"] == pytest.approx([5.0, 9.0, 9.9])
    assert first[1]["quantiles"] == pytest.approx([55.0, 91.0, 99.1])
    assert 0.5 <= second[0]["quantiles"][0] <= 1.0


# -- the map ---------------------------------------------------------------


def test_who_calls_whom(store: Store) -> None:
    def span(number: int, parent: int | None, ms: int, **more: Any) -> dict[str, Any]:
        up = {"parentSpanId": f"{parent:016x}"} if parent else {}
        end = str(START + ms * 1_000_000)
        return {"spanId": f"{number:016x}", "endTimeUnixNano": end, **up, **more}

    for trace in range(1, 5):
        of = {"traceId": f"{trace:032x}"}
        failed = {"status": {"code": 2}} if trace == 4 else {}
        front = [span(1, None, 9, kind=2, **of), span(2, 1, 8, kind=3, **of), span(3, 1, 8, kind=3, **of)]
        add(store, "traces", spans(*front, service="shop"))
        add(store, "traces", spans(span(4, 2, trace, kind=2, **of, **failed), service="bank"))
        add(store, "traces", spans(span(5, 3, 7, kind=2, **of), span(6, 5, 1, **of), service="mail"))
        # its parent has not come
        add(store, "traces", spans(span(7, 99, 1, kind=1, **of), service="cron"))
    found = service_map(store)
    calls = {(each["caller"], each["called"]): each for each in found["calls"]}
    assert sorted(calls) == [("", "shop"), ("shop", "bank"), ("shop", "mail")]
    bank = calls["shop", "bank"]
    assert (bank["count"], bank["errors"], bank["p50"], bank["p99"]) == (4, 1, 3_000_000, 4_000_000)
    assert (found["omitted"], found["searched"]) == (0, None)
    assert service_map(store, Period(START + 1, ALWAYS.end))["calls"] == []
