"""Machines and money for many events: ``python -m benches.scale`` prints the tables of docs/explanation/scale.md from the figures of docs/benchmarks.md.

A day is simulated second by second: the load follows the sun, and once, at its height, the brokers stand still. What waits then is worked off by what the machines have left.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

BENCHMARKS: Final = Path(__file__).parents[1] / "docs" / "benchmarks.md"
DAY: Final = 86_400
PEAK: Final = math.pi
"""Load at its height, in averages of the day: it comes by day, as the sun."""
BUSY: Final = 0.5
"""Share of a core's time that is planned for, at the height."""
AWAY: Final = 60
"""Seconds that the brokers stand still."""
CORES: Final = 4
"""Of a machine."""
PRICE: Final = 0.045
"""Dollars of a core an hour, with its memory; what large clouds ask for without a contract."""
DISK: Final = 0.08
"""Dollars of a GB a month."""
COPIES: Final = 3
"""Brokers that have each event."""
BYTES: Final = 650
"""Of an event of 361 bytes of data on a disk, with its envelope."""
FRAMED: Final = 450
"""The same in a frame."""
ENGINES: Final = {
    "Kafka": "Kafka 4.4, one broker",
    "Redis": "Redis 7.0, nothing on disk",
    "NATS": "NATS 2.15, files, synced every 2 min",
    "RabbitMQ": "RabbitMQ 3.10, a quorum queue",
}
_UNITS: Final = {"ns": 1e-9, "µs": 1e-6}


class Costs(NamedTuple):
    """Processor time of an event, in seconds.

    Attributes:
        send, consume: of the application, until it has the decoded event.
        serve: of the broker, for both; the copies cost as much each.
    """

    send: float
    consume: float
    serve: float


class Plan(NamedTuple):
    """Needs of a load.

    Attributes:
        clients, brokers: machines of `CORES`.
        lag: seconds that the last event was late at most.
        caught_up: seconds after the brokers' return until nothing waited.
        dollars: a month.
    """

    clients: int
    brokers: int
    lag: float
    caught_up: int
    dollars: float


def costs() -> Iterator[tuple[str, Costs]]:
    """Yield the costs of each engine, and of its frames."""
    text = BENCHMARKS.read_text(encoding="utf-8")

    def figure(what: str) -> float:
        match = re.search(rf"^\| {re.escape(what)} \| ([\d,.]+) (ns|µs) ", text, re.MULTILINE)
        if match is None:
            raise LookupError(f"docs/benchmarks.md has no row {what!r}")
        return float(match[1].replace(",", "")) * _UNITS[match[2]]

    for name, engine in ENGINES.items():
        for label, send, consume in (
            (name, "send", "consume by 100 and decode"),
            (f"{name}, frames", "send frames", "consume frames by 1,000"),
        ):
            client, server = (
                [figure(f"{engine}: {each}, {who} CPU") for each in (send, consume)] for who in ("client", "server")
            )
            yield label, Costs(client[0], client[1], COPIES * server[0] + server[1])


def plan(average: float, cost: Costs, size: int) -> Plan:
    """Return what a load of so many events a second needs."""
    peak = PEAK * average
    clients = math.ceil(peak * (cost.send + cost.consume) / BUSY / CORES)
    brokers = max(COPIES, math.ceil(peak * cost.serve / BUSY / CORES))
    lag, caught_up = _outage(average, cost, clients * CORES)
    stored = average * DAY * size * COPIES / 1e9
    return Plan(clients, brokers, lag, caught_up, (clients + brokers) * CORES * PRICE * 730 + stored * DISK)


def _outage(average: float, cost: Costs, cores: int) -> tuple[float, int]:
    """Simulate the day with its outage; what is sent meanwhile waits in the clients' spools."""
    waiting, lag, back = 0.0, 0.0, DAY // 2 + AWAY
    for second in range(DAY):
        load = average * PEAK * max(0.0, math.cos(2 * math.pi * (second / DAY - 0.5)))
        waiting += load
        if not DAY // 2 <= second < back:
            spare = cores - min(cores, load * cost.send)
            waiting -= min(waiting, spare / cost.consume)
        lag = max(lag, waiting / max(load, 1.0))
        if second >= back and waiting < load:
            return lag, second - back
    return lag, DAY


def tables() -> str:
    """Return the tables."""
    rows = []
    for title, average in (("10⁹ events a day", 1e9 / DAY), ("10⁶ events a second", 1e6)):
        rows += [f"## {title}\n", "| engine | clients | brokers | late at most | caught up after | dollars a month |"]
        rows.append("|---|---|---|---|---|---|")
        for name, cost in costs():
            found = plan(average, cost, FRAMED if name.endswith("frames") else BYTES)
            cells = (
                name,
                found.clients,
                found.brokers,
                f"{found.lag:.0f} s",
                f"{found.caught_up} s",
                f"{found.dollars:,.0f}",
            )
            rows.append(f"| {' | '.join(map(str, cells))} |")
        rows.append("")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(tables())
