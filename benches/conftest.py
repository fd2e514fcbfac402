"""Ours beside its peers: the fixture `beside`, the progress bar, and the report that `make bench-all` writes."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

import cloud_runtimes
from benches.race import Call, calibrate, ratio, run, timed
from benches.report import Row, write

Clock = Callable[[], float | tuple[float, ...]]
"""Seconds. Of several the largest difference counts: who is busiest bounds the rate."""
DATA = Path(__file__).parent / "data"
ROUNDS = 51
CLAIMED = (
    "bench_producer.py::bench_send_stored",
    "bench_consumer.py::bench_consume",
    "bench_engines.py::bench_consume[Redis*-100-True]",
    "bench_typed.py::bench_send[dataclass]",
    "bench_typed.py::bench_decode[4 fields]",
    "bench_typed.py::bench_handler_on_redis[one by one]",
    "bench_typed.py::bench_handler_and_tasks[Celery]",
    "bench_typed.py::bench_handler_and_tasks[Taskiq]",
    "bench_dapr.py::bench_call[state get-sync-1]",
)
"""Comparisons that README shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", metavar="PATH", help="write tables and plots there (Markdown)")
    parser.addoption("--claimed", action="store_true", help="run what README shows, and nothing else")
    parser.addoption("--rounds", type=int, default=ROUNDS, help="rounds of each comparison")


def pytest_report_header() -> str:
    return f"kernels: {cloud_runtimes.native_status()}"


@pytest.fixture
def event() -> dict[str, Any]:
    """A small telemetry event: 361 bytes of JSON, a null in it."""
    value: dict[str, Any] = orjson.loads((DATA / "small_event.json").read_bytes())
    return value


@pytest.fixture
def order() -> dict[str, Any]:
    """An order with its items: 1.8 KB of JSON."""
    value: dict[str, Any] = orjson.loads((DATA / "medium_order.json").read_bytes())
    return value


def by(*clocks: Clock) -> Callable[[Call, int], tuple[float, ...]]:
    """Return what times a call by each of the clocks, in seconds."""

    def taken(call: Call, count: int) -> tuple[float, ...]:
        begun = [clock() for clock in clocks]
        run(call, count)
        return tuple(_passed(begin, clock()) / count for clock, begin in zip(clocks, begun, strict=True))

    return taken


def _passed(begin: Any, end: Any) -> float:
    if isinstance(begin, tuple):
        return max(after - before for before, after in zip(begin, end, strict=True))
    return float(end - begin)


@pytest.fixture
def beside(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., dict[str, float]]:
    """Time ours with its peers in turn, round by round.

    pytest-benchmark times the slices of ours; those of the peers run before each, in an order that changes. A slice of ours is as many calls as `extra_info["calls"]` says. Returns the median ratio of each peer.
    """

    def compare(
        what: str,
        ours: Call,
        peers: Mapping[str, Call],
        *,
        goals: Mapping[str, float] | None = None,
        per: int = 1,
        each: Mapping[str, int] | None = None,
        unit: str = "call",
        slices: bool = False,
        before: Call | None = None,
        clocks: Mapping[str, Clock] | None = None,
    ) -> dict[str, float]:
        """See above. `per`: events of one call, `each` where a peer's has fewer; `slices`: a call is a slice, by the wall clock, or by each of `clocks`, whose names tell the rows apart and of which goals are for the first; `before`: what comes before each round, untimed."""
        kinds = clocks or {"": time.perf_counter}
        clock = by(*kinds.values()) if slices else lambda call, count: (timed(call, count),)
        calls = {"ours": ours, **peers}
        counts = {name: 1 if slices else calibrate(call) for name, call in calls.items()}
        shares = {name: (each or {}).get(name, per) for name in calls}
        rounds = max(5, request.config.getoption("--rounds") // (7 if slices else 1))
        times: dict[str, list[tuple[float, ...]]] = {name: [] for name in calls}
        names = list(peers)

        def others() -> None:
            if before is not None:
                before()
            start = len(times[names[0]]) % len(names) if names else 0
            for name in names[start:] + names[:start]:
                times[name].append(clock(peers[name], counts[name]))

        def mine() -> None:
            times["ours"].append(clock(ours, counts["ours"]))

        if before is None:
            run(ours, 1)
        gc.collect()
        gc.freeze()  # what this process has loaded is no part of anybody's cost
        benchmark.pedantic(mine, setup=others, rounds=rounds)
        topic = request.module.__doc__.split("\n")[0]
        ratios_by_kind: dict[str, dict[str, float]] = {}
        for index, kind in enumerate(kinds):
            taken = {name: [each[index] / shares[name] for each in times[name]] for name in calls}
            ratios_by_kind[kind] = {name: ratio(taken["ours"], taken[name]) for name in names}
            medians = {name: statistics.median(each) for name, each in taken.items()}
            benchmark.extra_info.update(calls=counts["ours"], seconds=medians, ratios=ratios_by_kind[kind])
            title = f"{what}, {kind}" if kind else what
            goal = {} if index else dict(goals or {})
            request.config.stash[_rows].append(Row(topic, title, unit, medians, ratios_by_kind[kind], goal))
        return next(iter(ratios_by_kind.values()))

    return compare


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a figure that is no comparison of times."""
    topic = request.module.__doc__.split("\n")[0]
    return lambda text: request.config.stash[_notes].append((topic, text))


# -- the run ------------------------------------------------------------------

_rows: pytest.StashKey[list[Row]] = pytest.StashKey()
_notes: pytest.StashKey[list[tuple[str, str]]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_rows] = []
    config.stash[_notes] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--claimed"):
        found = [[each for each in items if _is(each, claim)] for claim in CLAIMED]
        if missing := [claim for claim, those in zip(CLAIMED, found, strict=True) if not those]:
            raise pytest.UsageError(f"README shows what is not there: {', '.join(missing)}")
        chosen = [each for those in found for each in those]
        config.hook.pytest_deselected(items=[each for each in items if each not in chosen])
        items[:] = chosen


def _is(item: pytest.Item, claim: str) -> bool:
    begin, any, end = claim.partition("*")
    name = item.nodeid.removeprefix("benches/")
    return name.startswith(begin) and name.endswith(end) if any else name == claim


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    result = yield
    if sys.stderr.isatty():
        total = item.session.testscollected
        done = item.session.items.index(item) + 1
        filled = 30 * done // total
        sys.stderr.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{total} {item.name[:40]:40}")
        sys.stderr.flush()
    return result  # type: ignore[no-any-return]


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--report")
    if path and session.config.stash[_rows]:
        write(Path(path), session.config.stash[_rows], session.config.stash[_notes])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for row in config.stash[_rows]:
        terminalreporter.write_line(row.line())
    for _, text in config.stash[_notes]:
        terminalreporter.write_line(text)
