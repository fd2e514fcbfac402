"""First screens of the dashboard over many topics and spans: what they show, and how long a person waits for them."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dashboard.operations import Operations
from tests.dashboard.test_page import TOKEN, broken
from tests.support import Figure, Rounds
from tests.support.browsing import chrome
from tests.telemetry.test_viewer_page import Page
from tests.telemetry.viewing import JSON, START, ask, attributes, spans, viewing

pytestmark = pytest.mark.process
_PER_REQUEST = 1_000
_SCREENS = {"overview": "orders.dead", "topics": "orders", "traces": "GET /orders", "map": "worker"}
"""Views, each with a word of its table."""


def _request(number: int) -> bytes:
    """Return a thousand spans of a hundred traces, each over two services."""
    given = [
        {
            "traceId": f"{number * _PER_REQUEST + n // 10 + 1:032x}",
            "spanId": f"{n + 1:016x}",
            "parentSpanId": f"{n:016x}" if n % 10 else "",
            "name": f"GET /orders/{n % 7}",
            "startTimeUnixNano": str(START + number * 10**7 + n),
            "endTimeUnixNano": str(START + number * 10**7 + n + 10**6),
            "attributes": attributes(http__route="/orders/{id}", tier=f"{n % 3}"),
        }
        for n in range(_PER_REQUEST)
    ]
    halves = (spans(*given[::2], service="web"), spans(*given[1::2], service="worker"))
    return json.dumps({"resourceSpans": [half["resourceSpans"][0] for half in halves]}).encode()


def test_a_first_screen_comes_soon(tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    requests, topics = rounds(5, 1_000), rounds(20, 1_000)
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(tmp_path / "home")}}) as client:
        broken(client)
        for number in range(topics):
            client.pubsub.publish("bus", f"topic-{number}", number)
        with (
            viewing(tmp_path / "seen", operations=Operations(client, token=TOKEN)) as viewer,
            chrome(tmp_path / "profile") as browser,
        ):
            for number in range(requests):
                assert ask(viewer, "/v1/traces", _request(number), JSON).status == 200
            took: dict[str, list[float]] = {name: [] for name in _SCREENS}
            page = Page(browser, viewer.address)
            for _ in range(rounds(1, 5)):
                for name, word in _SCREENS.items():
                    browser.get("about:blank")
                    begin = time.monotonic()
                    page.open(f"#/{name}")
                    page.holds("tbody td", word)
                    took[name].append(time.monotonic() - begin)
    times = ", ".join(f"{name} {statistics.median(each):.2f} s" for name, each in took.items())
    figure("first screens of the dashboard", f"{requests * _PER_REQUEST:,} spans, {topics:,} topics: {times}")
