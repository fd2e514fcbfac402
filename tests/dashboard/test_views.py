"""Views of telemetry beyond lists, in a real browser: spans of time, conditions, charts, processes, the map, and browsers of stores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dashboard.operations import Operations
from cloud_runtimes.dashboard.server import Viewer
from tests.support.screenshots import fill, telemetry
from tests.support.waiting import until
from tests.telemetry.test_viewer_page import Page, quiet
from tests.telemetry.viewing import TRACE, attributes, send, spans, viewing

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A dashboard with a quarter of an hour of a shop, of which the last minute is missing."""
    folder = tmp_path_factory.mktemp("dashboard")
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(folder / "home")}}) as client:
        fill(client)
        with viewing(folder / "seen", operations=Operations(client)) as instance:
            for signal, request in telemetry(time.time_ns() - 60 * 10**9):
                assert send(instance, signal, request).status == 200
            yield instance


@pytest.fixture
def page(browser: Chrome, viewer: Viewer) -> Iterator[Page]:
    browser.get_log("browser")
    yield Page(browser, viewer.address)
    assert browser.get_log("browser") == []


def choose(page: Page, name: str, value: str) -> None:
    """Fill a field of the filters, as its user does."""
    script = (
        "const on = document.forms.filters.elements[arguments[0]]; on.value = arguments[1];"
        "on.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.run(script, name, value)


def test_an_address_that_is_no_view(page: Page) -> None:
    """Names that each object of JavaScript has are none."""
    for name in ("hasOwnProperty", "__proto__", "constructor", "nowhere"):
        page.open(f"#/{name}")
        page.holds("h2", "Dead letters")


def test_a_span_of_time_stands_in_the_address(page: Page) -> None:
    page.open("#/traces")
    until(lambda: len(page.texts("tbody tr")) == 60)
    choose(page, "range", "5m")
    until(lambda: 10 < len(page.texts("tbody tr")) < 20)
    assert page.fragment == "#/traces?range=5m"
    page.click("#tab-logs")
    until(lambda: page.fragment == "#/logs?range=5m")
    until(lambda: len(page.texts("tbody tr")) == 5)
    page.click("#tab-metrics")
    page.holds(".series strong", "queue.depth")
    page.open("#/map?range=5m")
    page.holds("tbody td", "bank")
    assert page.run("return document.forms.filters.elements.range.value") == "5m"
    # from – to: fields in the browser's zone, an address with its own
    assert page.run("return getComputedStyle(document.querySelector('[name=from]').closest('label')).display") == "none"
    page.open("#/traces?range=between")
    until(lambda: len(page.texts("tbody tr")) == 60)
    minutes = "return [...Array(2)].map((_, n) => new Date(Date.now() - (6 - 2 * n) * 60000 - new Date().getTimezoneOffset() * 60000).toISOString().slice(0, 19))"
    begin, end = page.run(minutes)
    choose(page, "from", begin)
    until(lambda: 20 < len(page.texts("tbody tr")) < 30)
    choose(page, "to", end)
    until(lambda: 5 < len(page.texts("tbody tr")) < 12)
    assert page.fragment.count("Z") == 2
    page.browser.refresh()
    until(lambda: 5 < len(page.texts("tbody tr")) < 12)
    assert page.run("return document.forms.filters.elements.from.value") == begin


def test_conditions_on_attributes(page: Page) -> None:
    page.open("#/traces")
    field = page.browser.find_element(By.NAME, "attributes")
    field.send_keys("http.response.status_code>=500 tier!=paid")
    until(lambda: len(page.texts("tbody tr")) == 10)
    field.send_keys(" nonsense")
    page.holds("#trouble", "'nonsense': write key=value, key!=value, key>1")
    time.sleep(2.5)  # looks for what is new, which do not take it away
    page.holds("#trouble", "'nonsense'")
    page.browser.get_log("browser")  # of the status, 400
    choose(page, "attributes", "tier=free")
    until(lambda: len(page.texts("tbody tr")) == 30)
    assert page.texts("#trouble") == [""]
    page.open("#/logs?attributes=process.pid%3D4000")
    until(lambda: len(page.texts("tbody tr")) == 2)
    page.open("#/logs?attributes=tier%3Dnone")
    page.holds(".empty", "No logs match")


def test_what_was_not_searched_is_told(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.dashboard.queries.MAX_LOOKED", 300)
    monkeypatch.setattr("cloud_runtimes.dashboard.queries._PIECE", 10)
    page.open("#/traces?name=nowhere")
    page.holds(".reach", "The newest 300 spans were searched.")


def test_processes_are_told_apart(page: Page) -> None:
    page.open("#/traces")
    page.holds("tbody td", "web web-1:4000")
    page.holds("tbody td", "web web-1:4001")
    page.open(f"#/trace/{TRACE}")
    page.click(".span")
    page.holds(".detail dd", "web-1:4000")
    page.open("#/logs")
    page.holds("tbody td", "shop shop-1:4001")
    page.open("#/metrics")
    page.holds(".legend td", "shop shop-1:4001")


def test_from_a_span_to_its_topic_and_its_dead_letters_and_back(page: Page, viewer: Viewer) -> None:
    trace = "1" * 32
    about = {"cloud_runtimes__component": "bus", "messaging__destination__name": "orders"}
    assert send(viewer, "traces", spans({"traceId": trace, "attributes": attributes(**about)})).status == 200
    page.open(f"#/trace/{trace}")
    page.click(".span")
    page.click('.detail a[href="#/topic/bus/orders"]')
    page.holds("h2", "orders")
    page.click("[data-key='bus/orders/billing']")
    page.click('.detail a[href="#/topic/bus/orders.dead"]')
    page.holds("h2", "orders.dead")
    page.click("tbody:last-of-type .mono[data-key]")
    page.click('.detail a[href="#/topic/bus/orders"]')
    page.holds("h2", "orders")


def test_charts_have_lines_axes_and_quantiles(page: Page) -> None:
    page.open("#/metrics")
    page.shows(".series strong", "orders", "queue.depth", "rpc.server.duration")
    lines = "return [...document.querySelectorAll('.series')].map((each) => each.querySelectorAll('path').length)"
    assert page.run(lines) == [4, 1, 3]
    assert page.texts(".series:nth-child(3) .legend tbody td:first-child") == ["p50", "p90", "p99"]
    p50, p90, p99 = (float(each.split()[0]) for each in page.texts(".series:nth-child(3) .legend td.number"))
    assert 0.02 < p50 < p90 < p99 < 1
    axes = page.texts(".series:nth-child(3) .up span")
    assert [each.split()[1] for each in axes] == ["s", "s", "s"]
    assert page.texts(".series:nth-child(1) .up span")[0].endswith("/s")
    assert all(":" in each for each in page.texts(".along span"))
    assert page.texts(".series:nth-child(1) .legend .chip") == ["tier=free", "tier=free", "tier=paid", "tier=paid"]


def test_the_map_is_drawn_and_is_a_table(page: Page) -> None:
    page.open("#/map")
    page.holds("tbody tr", "shop")
    rows = [each.split() for each in page.texts("tbody tr")]
    assert [each[:3] for each in rows][:2] == [["outside", "web", "60"], ["web", "shop", "60"]]
    assert rows[0][3:5] == ["17", "%"]
    boxes = page.run("return [...document.querySelectorAll('.map rect')].map((each) => Number(each.getAttribute('x')))")
    assert len(boxes) == 6
    assert len({*boxes}) == 4  # outside, web, shop, and the three that it calls
    assert page.run("return document.querySelectorAll('.map .call.failing').length") == 3
    page.click("tbody a")
    until(lambda: page.fragment == "#/traces?service=web")


def test_files_and_configuration(page: Page) -> None:
    page.open("#/stores")
    page.holds("tbody a", "reports")
    page.click("tbody a[href*='files']")
    page.shows("tbody a", "2026/", "readme.txt")
    page.click("tbody a")
    page.shows("tbody a", "2026/november.csv", "2026/october.csv", "2026/raw/")
    page.click("tbody a")
    page.holds("dd", "2026/november.csv")
    assert page.texts("pre") == []
    page.click("dl + p a")
    page.holds("pre", "day,orders,total")
    page.click("p a", 1)
    page.shows("tbody a", "2026/", "readme.txt")
    page.open("#/configuration?store=settings")
    rows = {row.split()[0]: row for row in until(lambda: page.texts("tbody tr"))}
    assert "2.5" in rows["checkout.timeout"]
    assert "(hidden)" in rows["mail.password"]
    quiet(page)


def test_all_of_it_on_a_phone(page: Page) -> None:
    """Nothing is wider than the screen but what scrolls by itself."""
    size: dict[str, Any] = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for fragment in (
        "#/traces?range=between",
        f"#/trace/{TRACE}",
        "#/logs",
        "#/metrics",
        "#/map",
        "#/files?store=reports",
        "#/overview",
        "#/topic/bus/orders",
        "#/jobs",
        "#/locks?store=locks",
    ):
        page.open(fragment)
        until(lambda: page.run("return document.querySelector('main').childElementCount"))
        assert page.run("return document.documentElement.scrollWidth") <= 390, fragment
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
