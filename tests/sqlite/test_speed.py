"""Cost of a call compared with the same work by hand, side by side in one run."""

from __future__ import annotations

import sqlite3
import statistics
import time
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Figure
from tests.support.child import Start

orjson = pytest.importorskip("orjson")
pytestmark = [pytest.mark.process, pytest.mark.soak]


def test_a_read_costs_at_most_twice_the_select(
    start: Start, home: Path, client: CloudRuntimesClient, figure: Figure
) -> None:
    value = {"order": 4711, "status": "paid", "items": ["a", "b"], "total": 59.9}
    client.state.save("store", "k", value)
    by_hand = sqlite3.connect(home / "cloud_runtimes.db", isolation_level=None)
    sql = "SELECT value FROM state WHERE store = ? AND key = ?"
    store = by_hand.execute("SELECT id FROM stores WHERE name = 'store'").fetchone()[0]
    writer = start("write_beside", 60).ready()
    ratios, ours_us, theirs_us = [], [], []
    for number in range(400):
        costs = []
        for which in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            # of the thread: what else runs on the machine takes the core away from both, and not evenly
            began = time.thread_time()
            for _ in range(100):
                if which == "ours":
                    got = client.state.get("store", "k")
                else:
                    got = orjson.loads(by_hand.execute(sql, (store, "k")).fetchone()[0])
            costs.append((which, (time.thread_time() - began) * 1e4))
            assert got == value
        cost = dict(costs)
        ratios.append(cost["ours"] / cost["theirs"])
        ours_us.append(cost["ours"])
        theirs_us.append(cost["theirs"])
    writer.close()
    by_hand.close()
    ratio = statistics.median(ratios)
    figure(
        "state.get over (select + orjson.loads), another process writing",
        f"{ratio:.2f} × ({statistics.median(ours_us):.1f} µs over {statistics.median(theirs_us):.1f} µs)",
    )
    assert ratio <= 2.0
