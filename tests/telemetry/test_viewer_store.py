"""Records that the viewer keeps and evicts, and the data of its page: every record is counted, in every snapshot."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.dashboard import otlp_json, queries, rows
from cloud_runtimes.dashboard import store as store_module
from cloud_runtimes.dashboard.store import LEAST_BYTES, Store
from cloud_runtimes.errors import CloudRuntimesError, InvalidArgumentError, UnavailableError, UnsupportedError
from tests.telemetry.viewing import START, TRACE, gauge, logs, metrics, spans, text

Open = Callable[..., Store]


class Clock(Clocks):
    """A wall clock that a test sets."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = time.time_ns() // 1_000_000

    def wall_ms(self) -> int:
        return self.now


@pytest.fixture(params=["file", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open stores, in a file and in memory."""
    stores: list[Store] = []

    def make(clocks: Clocks | None = None, **options: Any) -> Store:
        home = ":memory:" if request.param == "memory" else str(tmp_path / f"home{len(stores)}")
        stores.append(Store(home, clocks=clocks or Clock(), **options))
        stores[-1].open()
        return stores[-1]

    yield make
    for each in stores:
        each.close()


def add(store: Store, signal: str, request: dict[str, Any]) -> None:
    store.add(signal, rows.read(signal, otlp_json.decode(signal, json.dumps(request).encode())))


def counters(store: Store, signal: str = "traces") -> dict[str, int]:
    counts: dict[str, int] = queries.status(store)["signals"][signal]
    return counts


def rows_of(store: Store) -> dict[str, int]:
    """Count what is in the tables."""
    tables = {"traces": "spans", "logs": "logs", "metrics": "points"}
    return {signal: store.query(f"SELECT count(*) FROM {table}")[0][0] for signal, table in tables.items()}


def listed(store: Store, **filters: Any) -> list[str]:
    return [each["name"] for each in queries.traces(store, **filters)["traces"]]


# -- limits ----------------------------------------------------------------


def test_the_oldest_requests_go_when_there_is_too_much(opened: Open) -> None:
    store = opened(max_bytes=LEAST_BYTES)
    chance = random.Random(1)
    for number in range(300):
        filler = [chance.randbytes(3_000).hex() for _ in range(2)]
        trace = f"{number + 1:032x}"
        add(store, "traces", spans({"traceId": trace, "name": filler[0]}, {"traceId": trace}, service=f"s{number}"))
        add(store, "logs", logs(text(filler[1])))
        add(store, "metrics", metrics(gauge(f"m{number}", 1.0)))
        status = queries.status(store)
        assert status["bytes"] <= LEAST_BYTES
        kept = rows_of(store)
        for signal, counts in status["signals"].items():
            lost = counts["evicted"] + counts["rejected"] + counts["repeated"]
            assert counts["received"] == counts["kept"] + lost
            assert counts["kept"] == kept[signal]
    assert counters(store)["received"] == 600
    assert 0 < counters(store)["kept"] < 300
    # what is left is the newest, and whole; nothing hangs about without its records
    names = listed(store, limit=1000)
    assert len(names) == counters(store)["kept"] // 2
    newest = {f"{300 - number:032x}" for number in range(len(names))}
    assert {each["trace"] for each in queries.traces(store, limit=1000)["traces"]} == newest
    for table, used in (("series", "points"), ("sources", "spans")):
        assert store.query(f"SELECT count(*) FROM {table}")[0][0] <= 2 * (rows_of(store)["traces"] + 2), used
    assert store.query("SELECT count(*) FROM series")[0][0] <= counters(store, "metrics")["kept"] + 1


def test_a_request_larger_than_all(opened: Open) -> None:
    store = opened(max_bytes=LEAST_BYTES)
    add(store, "logs", logs(text("x" * (LEAST_BYTES + 1))))
    assert counters(store, "logs") == {"received": 1, "evicted": 1, "rejected": 0, "repeated": 0, "kept": 0}
    add(store, "logs", logs(text("small")))
    assert [each["body"] for each in queries.logs(store)["logs"]] == ["small"]


def test_the_file_shrinks_to_a_lower_limit(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = Store(str(home), clocks=Clock())
    store.open()
    for _ in range(40):
        add(store, "logs", logs(text("x" * 100_000)))
    store.close()
    assert (home / "telemetry.db").stat().st_size > 3 * LEAST_BYTES
    store = Store(str(home), max_bytes=LEAST_BYTES, clocks=Clock())
    store.open()
    add(store, "logs", logs(text("last")))
    assert counters(store, "logs")["evicted"] >= 30
    store.close()
    assert (home / "telemetry.db").stat().st_size <= 1.1 * LEAST_BYTES


def test_what_is_too_old_goes(opened: Open) -> None:
    clock = Clock()
    store = opened(clocks=clock, max_age=3600)
    add(store, "traces", spans({"traceId": "1" * 32}, {"traceId": "2" * 32}))
    clock.now += 1_800_000
    add(store, "traces", spans({"traceId": "2" * 32, "spanId": "9" * 16}))
    clock.now += 1_800_001
    add(store, "logs", logs(text("now")))
    # of the second trace a span is left
    (remaining,) = queries.traces(store)["traces"]
    assert (remaining["trace"], remaining["spans"]) == ("2" * 32, 1)
    assert counters(store)["evicted"] == 2
    clock.now += 3_600_001
    add(store, "logs", logs(text("later")))
    assert queries.traces(store)["traces"] == []
    assert queries.status(store)["services"] == ["shop"]
    assert store.query("SELECT count(*) FROM sources") == [(1,)]


def test_records_of_one_signal_outlive_the_end_of_another(opened: Open) -> None:
    clock = Clock()
    store = opened(clocks=clock, max_age=10)
    add(store, "traces", spans(*[{} for _ in range(50)]))
    clock.now += 6_000
    add(store, "logs", logs(text("a")))
    clock.now += 6_000
    add(
        store, "traces", spans({"spanId": "e" * 16}, {"spanId": "f" * 16})
    )  # the first are gone, numbers are not used again
    assert counters(store)["kept"] == 2
    clock.now += 6_000
    add(store, "logs", logs(text("b")))  # "a" goes
    assert rows_of(store) == {"traces": 2, "logs": 1, "metrics": 0}


def test_a_batch_that_comes_again_is_kept_once(opened: Open) -> None:
    store = opened()
    for _ in range(3):
        add(store, "traces", spans({}, {}))
    assert counters(store) == {"received": 6, "kept": 2, "repeated": 4, "rejected": 0, "evicted": 0}
    assert queries.traces(store)["traces"][0]["spans"] == 2


@pytest.mark.parametrize("bad", [0, LEAST_BYTES - 1, -1, 1.5, True])
def test_limits_that_are_none(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="give at least 1,048,576 bytes"):
        Store(str(tmp_path), max_bytes=bad, clocks=Clock())


# -- traces ----------------------------------------------------------------


def tree(store: Store, number: str = TRACE) -> list[tuple[str, int, bool]]:
    trace = queries.trace(store, bytes.fromhex(number))
    assert trace is not None
    return [(span["name"], span["depth"], span["orphan"]) for span in trace["spans"]]


def at(number: int, name: str, parent: int | None, start: int, length: int = 10, **more: Any) -> dict[str, Any]:
    times = {"startTimeUnixNano": str(START + start), "endTimeUnixNano": str(START + start + length)}
    up = {} if parent is None else {"parentSpanId": f"{parent:016x}"}
    return {"spanId": f"{number:016x}", "name": name, **up, **times, **more}


def test_a_trace_is_a_tree_whatever_the_order_of_its_spans(opened: Open) -> None:
    given = [
        at(1, "root", None, 0, 100),
        at(2, "a", 1, 10),
        at(3, "a1", 2, 12),
        at(4, "b", 1, 30),
        at(5, "b1", 4, 31),
        at(6, "b2", 4, 35, 60, status={"code": 2, "message": "no"}),
    ]
    expected = [
        ("root", 0, False),
        ("a", 1, False),
        ("a1", 2, False),
        ("b", 1, False),
        ("b1", 2, False),
        ("b2", 2, False),
    ]
    store = opened()
    chance = random.Random(3)
    for number in range(1, 11):
        mixed = [{**span, "traceId": f"{number:032x}"} for span in given]
        chance.shuffle(mixed)
        for part in (mixed[:2], mixed[2:3], mixed[3:]):  # in several requests
            add(store, "traces", spans(*part))
        assert tree(store, f"{number:032x}") == expected
    for row in queries.traces(store)["traces"]:
        assert (row["name"], row["rooted"], row["duration"], row["spans"], row["errors"]) == ("root", True, 100, 6, 1)


def test_a_trace_without_its_root(opened: Open) -> None:
    store = opened()
    add(store, "traces", spans(at(3, "leaf", 2, 20), at(2, "middle", 1, 10), at(4, "other", 9, 5)))
    assert tree(store) == [("other", 0, True), ("middle", 0, True), ("leaf", 1, False)]
    (row,) = queries.traces(store)["traces"]
    assert (row["name"], row["rooted"]) == ("other", False)
    add(store, "traces", spans(at(1, "root", None, 0)))
    (row,) = queries.traces(store)["traces"]
    assert (row["name"], row["rooted"]) == ("root", True)


def test_circles_do_not_hang(opened: Open) -> None:
    store = opened()
    add(store, "traces", spans(at(1, "a", 2, 0), at(2, "b", 1, 1), at(3, "self", 3, 2), at(4, "c", 2, 3)))
    nodes = tree(store)
    assert sorted(name for name, _, _ in nodes) == ["a", "b", "c", "self"]
    assert nodes[0] == ("a", 0, True)


def test_a_very_deep_and_a_very_long_trace(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    add(store, "traces", spans(*[at(n, str(n), n - 1 or None, n) for n in range(1, 3_001)]))
    assert tree(store)[-1] == ("3000", 2_999, False)
    monkeypatch.setattr(queries, "MAX_SPANS", 100)
    trace = queries.trace(store, bytes.fromhex(TRACE))
    assert trace is not None
    assert (len(trace["spans"]), trace["hidden"]) == (100, 2_900)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"startTimeUnixNano": str(START), "endTimeUnixNano": "0"}, 0),
        ({"startTimeUnixNano": str(2**64 - 1), "endTimeUnixNano": "5"}, 0),
        ({"startTimeUnixNano": "0", "endTimeUnixNano": str(2**64 - 1)}, 2**63 - 1),
    ],
)
def test_times_beyond_what_is_stored(opened: Open, times: dict[str, str], expected: int) -> None:
    store = opened()
    add(store, "traces", spans(times, {**times, "spanId": "f" * 16}))
    assert queries.traces(store)["traces"][0]["duration"] == expected
    assert len(tree(store)) == 2


def test_filters_of_traces(opened: Open) -> None:
    store = opened()
    for number, (name, service, length, code) in enumerate(
        [("GET /a", "shop", 5_000_000, 0), ("GET /B%", "shop", 50_000_000, 2), ("pay_x", "bank", 500_000_000, 1)], 1
    ):
        times = {"startTimeUnixNano": str(START + number), "endTimeUnixNano": str(START + number + length)}
        span = {"traceId": f"{number:032x}", "name": name, "status": {"code": code}, **times}
        add(store, "traces", spans(span, service=service))
    assert listed(store) == ["pay_x", "GET /B%", "GET /a"]
    assert listed(store, limit=2) == ["pay_x", "GET /B%"]
    assert queries.traces(store, limit=2)["more"] is True
    assert queries.traces(store, limit=3)["more"] is False
    assert listed(store, service="shop") == ["GET /B%", "GET /a"]
    assert listed(store, service="sho") == []
    assert listed(store, name="get") == ["GET /B%", "GET /a"]
    assert listed(store, name="%") == ["GET /B%"]
    assert listed(store, name="y_") == ["pay_x"]
    assert listed(store, name="' OR 1=1 --") == []
    assert listed(store, least=50_000_000) == ["pay_x", "GET /B%"]
    assert listed(store, errors=True) == ["GET /B%"]
    assert listed(store, service="shop", name="/a", errors=True) == []
    assert listed(store, service="bank", least=1, name="pay") == ["pay_x"]


# -- logs and metrics ------------------------------------------------------


def test_filters_of_logs(opened: Open) -> None:
    store = opened()
    ids = {"traceId": TRACE, "spanId": "1" * 16}
    given = [
        {"body": {"stringValue": "Hello 100%"}, "severityNumber": 9, **ids},
        {"body": {"kvlistValue": {"values": [{"key": "k", "value": {"intValue": "5"}}]}}, "severityNumber": 17},
        {"severityNumber": 13, "severityText": "careful", "eventName": "it.happened"},
    ]
    add(store, "logs", logs(*given))
    add(store, "logs", logs({"body": {"stringValue": "late"}, "timeUnixNano": "0"}, service="bank"))

    def bodies(**filters: Any) -> list[str]:
        return [each["body"] for each in queries.logs(store, **filters)["logs"]]

    assert bodies() == ["late", "", '{"k":5}', "Hello 100%"]  # without a time it is the one of its arrival
    assert bodies(severity=13) == ["", '{"k":5}']
    assert bodies(service="bank") == ["late"]
    assert bodies(text="hello") == ["Hello 100%"]
    assert bodies(text="0%") == ["Hello 100%"]
    assert bodies(text="x%") == []
    assert bodies(trace=bytes.fromhex(TRACE)) == ["Hello 100%"]
    assert bodies(trace=bytes.fromhex(TRACE), span=b"\x22" * 8) == []
    assert bodies(limit=1) == ["late"]
    records = queries.logs(store)["logs"]
    assert [each["level"] for each in records] == ["INFO", "careful", "ERROR", "INFO"]
    assert records[1]["event"] == "it.happened"


def test_series_and_their_points(opened: Open) -> None:
    store = opened()
    for number in range(100):
        point = {"timeUnixNano": str(START + number), "asInt": str(number), "attributes": [{"key": "a", "value": {}}]}
        counter = {"dataPoints": [point], "isMonotonic": True, "aggregationTemporality": 2}
        add(store, "metrics", metrics({"name": "c", "unit": "By", "sum": counter}, gauge("g", float(number))))
    counter, level = queries.metrics(store)["series"]
    assert (counter["name"], counter["kind"], counter["unit"], counter["attributes"]) == (
        "c",
        "counter",
        "By",
        {"a": None},
    )
    assert [point["value"] for point in counter["points"]] == [float(number) for number in range(40, 100)]
    assert level["kind"] == "gauge"
    assert [each["name"] for each in queries.metrics(store, name="G")["series"]] == ["g"]
    assert queries.metrics(store, service="nobody")["series"] == []
    assert queries.metrics(store, limit=1)["more"] is True


def test_every_kind_of_metric(opened: Open) -> None:
    point = {"timeUnixNano": str(START), "count": "4", "sum": 10.0}
    given = [
        {"name": "1", "sum": {"dataPoints": [{"asInt": "-5"}], "aggregationTemporality": 1}},
        {"name": "2", "gauge": {"dataPoints": [{"asDouble": "NaN"}]}},
        {"name": "2, ended", "gauge": {"dataPoints": [{"flags": 1}]}},
        {"name": "2, without", "gauge": {"dataPoints": [{}]}},
        {"name": "3", "histogram": {"dataPoints": [{**point, "min": 0.0, "max": 4.0}], "aggregationTemporality": 1}},
        {"name": "4", "exponentialHistogram": {"dataPoints": [{**point, "scale": 0}]}},
        {"name": "5", "summary": {"dataPoints": [{**point, "quantileValues": [{"quantile": 0.5, "value": 2.0}]}]}},
        {"name": "6"},
    ]
    store = opened()
    add(store, "metrics", metrics(*given))
    series = {each["name"]: (each["kind"], each["points"]) for each in queries.metrics(store)["series"]}
    assert series["1"][0] == "up-down counter, delta"
    assert series["1"][1][0]["value"] == -5.0
    # a gap: neither NaN nor the end of a series is a number
    assert [point["value"] for name in ("2", "2, ended") for point in series[name][1]] == [None, None]
    assert series["3"][0] == "histogram, delta"
    assert {key: series["3"][1][0][key] for key in ("value", "count", "min", "max")} == {
        "value": 10.0,
        "count": 4,
        "min": 0.0,
        "max": 4.0,
    }
    assert series["4"][0] == "exponential histogram"
    assert series["4"][1][0]["scale"] == 0
    assert series["5"][1][0]["quantileValues"] == [{"quantile": 0.5, "value": 2.0}]
    assert sorted(series) == ["1", "2", "2, ended", "3", "4", "5"]
    assert counters(store, "metrics")["rejected"] == 1


def test_spans_beyond_the_limit_of_a_trace_are_rejected(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch looks at all spans of its traces, so a trace without a limit would stop the ingestion of all others."""
    monkeypatch.setattr(store_module, "MAX_SPANS", 3)
    store = opened()
    kept = [
        store.add("traces", rows.read("traces", otlp_json.decode("traces", json.dumps(request).encode())))
        for request in (
            spans({}, {}),
            spans(*({"spanId": f"{n:016x}"} for n in range(10, 15))),
            spans({"traceId": "1" * 32}),
        )
    ]
    assert [(len(batch.rows), batch.rejected) for batch in kept] == [(2, 0), (1, 4), (1, 0)]
    assert kept[1].reason == "a trace has at most 3 spans here"
    assert counters(store) == {"evicted": 0, "rejected": 4, "repeated": 0, "received": 8, "kept": 4}


# -- the file --------------------------------------------------------------


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "telemetry.db") as connection:
        connection.execute("CREATE TABLE theirs(a)")
    connection.close()
    before = (tmp_path / "telemetry.db").read_bytes()
    store = Store(str(tmp_path), clocks=Clock())
    with pytest.raises(UnsupportedError, match="is of another release or program: move it away"):
        store.open()
    assert (tmp_path / "telemetry.db").read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "telemetry.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(CloudRuntimesError, match="damaged or no database"):
        Store(str(tmp_path), clocks=Clock()).open()


def test_a_closed_store_says_so(opened: Open) -> None:
    store = opened()
    store.close()
    store.close()
    with pytest.raises(UnavailableError, match="is closed"):
        store.query("SELECT 1")
    with pytest.raises(UnavailableError, match="is closed"):
        add(store, "logs", logs(text("x")))


def test_a_write_that_fails_leaves_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()

    def fail(*arguments: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(store, "_evict", fail)
    with pytest.raises(CloudRuntimesError, match="disk I/O error"):
        add(store, "traces", spans({}, {}))
    monkeypatch.undo()
    assert counters(store)["received"] == 0
    add(store, "traces", spans({}))
    assert counters(store)["kept"] == 1


def test_readers_and_writers_at_once(opened: Open) -> None:
    store = opened(max_bytes=LEAST_BYTES)
    wrong: list[Any] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            counts = counters(store)
            if counts["received"] != counts["kept"] + counts["evicted"]:
                wrong.append(counts)
            for row in queries.traces(store)["traces"]:
                queries.trace(store, bytes.fromhex(row["trace"]))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(200):
            add(store, "traces", spans({"traceId": f"{number + 1:032x}", "name": "x" * 20_000}))
    finally:
        over.set()
        reader.join()
    assert not wrong
    assert counters(store)["evicted"] > 0
