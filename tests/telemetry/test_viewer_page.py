"""The viewer's page in a real browser: what a person sees, by mouse and by keyboard, and what hostile telemetry and other pages cannot do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cloud_runtimes.dashboard import queries
from cloud_runtimes.dashboard.server import Viewer
from tests.support import Make
from tests.support.browsing import OtherOrigin
from tests.support.ports import reserved_port
from tests.support.waiting import until
from tests.telemetry.viewing import START, TRACE, ask, attributes, gauge, logs, metrics, send, spans, text, viewing

pytestmark = pytest.mark.process

HOSTILE = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    with viewing(tmp_path / "seen") as instance:
        yield instance


class Page:
    """Viewer page in the browser; each check queries it again because the page is redrawn."""

    def __init__(self, browser: Chrome, address: str) -> None:
        self.browser = browser
        self.address = address

    def open(self, fragment: str = "") -> None:
        self.browser.get("about:blank")
        self.browser.get(f"{self.address}/{fragment}")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of elements."""
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)"
        result: list[str] = self.browser.execute_script(script, selector)
        return result

    def shows(self, selector: str, *wanted: str) -> None:
        """Wait for elements with exactly these texts."""
        try:
            until(lambda: self.texts(selector) == list(wanted))
        except AssertionError:
            raise AssertionError(f"{selector}: {self.texts(selector)}, not {list(wanted)}") from None

    def holds(self, selector: str, wanted: str) -> None:
        """Wait for an element that has a text in it."""
        try:
            until(lambda: any(wanted in each for each in self.texts(selector)))
        except AssertionError:
            raise AssertionError(f"{selector}: {self.texts(selector)}, without {wanted!r}") from None

    def click(self, selector: str, number: int = 0) -> None:
        """Click with the mouse; again if it was drawn anew meanwhile."""

        def attempt() -> bool:
            elements = self.browser.find_elements(By.CSS_SELECTOR, selector)
            if len(elements) <= number:
                return False
            try:
                elements[number].click()
            except StaleElementReferenceException:
                return False
            return True

        until(attempt)

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    @property
    def fragment(self) -> str:
        """Fragment of the URL, as in ``location.hash``."""
        return str(self.run("return location.hash"))


@pytest.fixture
def page(browser: Chrome, viewer: Viewer) -> Iterator[Page]:
    browser.get_log("browser")
    instance = Page(browser, viewer.address)
    instance.open()
    yield instance
    loaded = instance.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    browser.get("about:blank")
    assert [each for each in loaded if not each.startswith(viewer.address)] == []


def quiet(page: Page) -> None:
    """See that the browser complained of nothing: no violated policy, no exception."""
    assert page.browser.get_log("browser") == []
    assert page.run("return window.pwned") is None


def at(number: int, name: str, parent: int | None, start: int, length: int, **more: Any) -> dict[str, Any]:
    """Return a span; times in milliseconds."""
    begin = START + start * 1_000_000
    times = {"startTimeUnixNano": str(begin), "endTimeUnixNano": str(begin + length * 1_000_000)}
    up = {} if parent is None else {"parentSpanId": f"{parent:016x}"}
    return {"spanId": f"{number:016x}", "name": name, **up, **times, **more}


def a_trace() -> dict[str, Any]:
    return spans(
        at(1, "GET /orders", None, 0, 100),
        at(2, "load", 1, 0, 50, attributes=attributes(db__system="sqlite")),
        at(3, "query", 2, 25, 25, status={"code": 2, "message": "locked"}, events=[
            {"timeUnixNano": str(START + 30_000_000), "name": "waits", "attributes": attributes(for_="lock")}
        ]),
        at(4, "render", 1, 75, 25),
    )  # fmt: skip


def test_traces_appear_by_themselves_and_open_as_a_waterfall(page: Page, viewer: Viewer) -> None:
    page.holds(".empty", f"OTEL_EXPORTER_OTLP_ENDPOINT={viewer.address}")
    send(viewer, "traces", a_trace())
    page.shows("tbody a", "GET /orders")  # without a reload
    page.shows("tbody td.number", "100 ms", "4", "1")
    page.holds("#kept", "4 spans")
    page.click("tbody tr")
    page.holds("h2", "GET /orders")
    assert page.fragment == f"#/trace/{TRACE}"
    labels = [re.sub(r"\s+", " ", each).removesuffix(" shop") for each in page.texts(".span .label")]
    assert labels == ["GET /orders", "load", "✕ query", "render"]
    assert page.texts(".span .time") == ["100 ms", "50.0 ms", "25.0 ms", "25.0 ms"]
    # bars in the proportions of the times, deeper spans further to the right, failed ones in another colour
    boxes = page.run(
        "return [...document.querySelectorAll('.span')].map((row) => {"
        " const lane = row.querySelector('.lane').getBoundingClientRect(),"
        " bar = row.querySelector('.bar').getBoundingClientRect(),"
        " text = row.querySelector('.dot').getBoundingClientRect();"
        " return [(bar.left - lane.left) / lane.width, bar.width / lane.width, text.left,"
        " getComputedStyle(row.querySelector('.bar')).backgroundColor] })"
    )
    for (offset, width, _, _), (start, length) in zip(
        boxes, [(0, 1), (0, 0.5), (0.25, 0.25), (0.75, 0.25)], strict=True
    ):
        assert offset == pytest.approx(start, abs=0.01)
        assert width == pytest.approx(length, abs=0.01)
    assert boxes[0][2] < boxes[1][2] < boxes[2][2]
    assert boxes[1][2] == boxes[3][2]
    assert boxes[0][3] == boxes[1][3] != boxes[2][3]
    # a span tells what it is when it is clicked, and no more when it is clicked again
    page.click(".span", 1)
    page.holds(".detail dd", "sqlite")
    page.click(".span", 2)
    page.holds(".detail dd", "error: locked")
    page.holds(".detail p", "waits")
    page.click(".span", 1)
    until(lambda: len(page.texts(".detail")) == 1)
    page.click("p a")
    page.shows("tbody a", "GET /orders")
    quiet(page)


def test_telemetry_is_text_and_nothing_else(page: Page, viewer: Viewer) -> None:
    evil = attributes(**{HOSTILE: HOSTILE, "__proto__": HOSTILE})
    span = at(1, HOSTILE, None, 0, 1, attributes=evil, status={"code": 2, "message": HOSTILE}, traceState=HOSTILE)
    span["events"] = [{"name": HOSTILE, "timeUnixNano": str(START), "attributes": evil}]
    span["links"] = [{"traceId": "1" * 32, "spanId": "2" * 16, "attributes": evil}]
    send(viewer, "traces", spans(span, service=HOSTILE))
    send(viewer, "logs", logs({**text(HOSTILE), "severityText": HOSTILE, "attributes": evil}, service=HOSTILE))
    send(viewer, "metrics", metrics({**gauge(HOSTILE, 1, 2), "unit": HOSTILE, "description": HOSTILE}, service=HOSTILE))
    page.shows("tbody a", HOSTILE)
    page.click("tbody a")
    page.click(".span")
    page.holds(".detail dd", HOSTILE)
    page.holds(".detail dt", HOSTILE)
    page.open("#/logs")
    page.click("tbody tr")
    page.holds("td.detail dd", HOSTILE)
    page.open("#/metrics")
    page.holds(".series strong", HOSTILE)
    assert page.run("return document.querySelectorAll('main script, main img').length") == 0
    assert page.run("return document.querySelectorAll('body script').length") == 0
    quiet(page)


def test_the_policy_stops_what_would_become_html(page: Page) -> None:
    """If the page ever made HTML of text, the browser would refuse it."""
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.createElement('script').src = 'data:text/javascript,window.pwned=1'",
        "document.createElement('script').textContent = 'window.pwned=1'",
        "document.createElement('button').setAttribute('onclick', 'window.pwned=1')",
        "document.write('<script>window.pwned=1</script>')",
    ):
        assert page.run(f"try {{ {attempt} }} catch (error) {{ return error.name }} return 'made'") == "TypeError"
    assert page.run("return window.pwned") is None
    page.browser.get_log("browser")


def test_logs_with_their_severity_and_trace(page: Page, viewer: Viewer) -> None:
    send(viewer, "traces", a_trace())
    ids = {"traceId": TRACE, "spanId": f"{3:016x}"}
    send(viewer, "logs", logs({**text("all is well"), **ids}, {**text("it broke"), "severityNumber": 17, **ids}))
    send(viewer, "logs", logs({**text("elsewhere"), "severityNumber": 13, "attributes": attributes(k="v1")}))
    page.click("#tab-logs")
    page.shows("tbody td[role=button]", "it broke", "elsewhere", "all is well")
    page.click("tbody tr", 1)
    page.holds("td.detail dd", "v1")
    # what comes at that very moment does not undo the choice
    page.run(
        "const s = document.querySelector('select'); s.value = '13'; s.dispatchEvent(new Event('input', {bubbles: true}));"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.shows("tbody td[role=button]", "it broke", "elsewhere")
    assert page.fragment == "#/logs?severity=13"
    page.click("tbody a")
    page.holds("h2", "GET /orders")
    page.click("h2 + p a")
    page.shows("tbody td[role=button]", "it broke", "all is well")
    assert page.fragment == f"#/logs?trace={TRACE}"
    page.open(f"#/trace/{TRACE}")
    page.click(".span", 2)
    page.holds(".detail p a", "2 log records")
    quiet(page)


def test_metrics_with_their_last_value_and_a_line(page: Page, viewer: Viewer) -> None:
    points = [{"timeUnixNano": str(START + n * 10**9), "asInt": str(n * 5)} for n in range(3)]
    counter = {"name": "orders", "unit": "By", "sum": {"dataPoints": points, "isMonotonic": True}}
    distribution = {"dataPoints": [{"timeUnixNano": str(START), "count": "4", "sum": 10.0, "min": 1, "max": 5}]}
    send(viewer, "metrics", metrics(counter, gauge("level", 1, 3, 2), {"name": "time", "histogram": distribution}))
    page.click("#tab-metrics")
    page.shows(".series strong", "level", "orders", "time")
    values = page.texts(".series .value")
    assert values[0].startswith("2\n")
    assert values[1].startswith("10 By\n5/s")
    assert values[2] == "mean 2.5\n4 recorded, 1 to 5"
    paths = page.run("return [...document.querySelectorAll('.series path')].map((each) => each.getAttribute('d'))")
    # highest is uppermost: 1, 3, 2
    heights = [float(each) for each in re.findall(r" ([0-9.]+)", paths[0])]
    assert len(heights) == 3
    assert heights[1] < heights[2] < heights[0]
    send(viewer, "metrics", metrics({"name": "level", "gauge": {"dataPoints": [
        {"timeUnixNano": str(START + 9 * 10**9), "asDouble": 7}
    ]}}))  # fmt: skip
    until(lambda: page.texts(".series .value")[0].startswith("7\n"))
    quiet(page)


def test_a_line_of_the_largest_numbers_has_no_hole(page: Page, viewer: Viewer) -> None:
    points = [
        {"timeUnixNano": str(START + n * 10**9), "count": str(n + 1), "sum": s} for n, s in enumerate((-1e308, 1e308))
    ]
    send(
        viewer,
        "metrics",
        metrics(gauge("level", -1e308, 1e308, 0), {"name": "time", "histogram": {"dataPoints": points}}),
    )
    page.click("#tab-metrics")
    page.shows(".series strong", "level", "time")
    paths = page.run("return [...document.querySelectorAll('.series path')].map((each) => each.getAttribute('d'))")
    assert re.findall(r"[A-Za-z]+", "".join(paths)) == ["M", "L", "L", "M", "h"]
    quiet(page)


def test_all_of_it_by_keyboard(page: Page, viewer: Viewer) -> None:
    send(viewer, "traces", a_trace())
    send(viewer, "traces", spans(at(1, "older", None, -10, 1, traceId="5" * 32)))
    page.shows("tbody a", "GET /orders", "older")
    page.run("document.getElementById('tab-traces').focus()")
    page.press(Keys.ARROW_RIGHT)
    until(lambda: page.fragment == "#/logs")
    page.press(Keys.ARROW_LEFT)
    page.shows("tbody a", "GET /orders", "older")
    page.run("document.activeElement.blur()")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert page.run("return document.activeElement.innerText") == "GET /orders"
    page.press(Keys.ENTER)
    page.holds("h2", "GET /orders")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    page.holds(".detail dd", "sqlite")
    # what is drawn anew meanwhile leaves the focus and what is open alone
    send(viewer, "traces", spans(at(9, "late", 1, 90, 5)))
    page.holds(".span .label", "late")
    assert "load" in page.run("return document.activeElement.innerText")
    assert len(page.texts(".detail")) == 1
    page.press(Keys.ENTER)
    until(lambda: not page.texts(".detail"))
    page.press(Keys.ESCAPE)
    page.shows("tbody a", "GET /orders", "older")
    quiet(page)


def test_filters_stand_in_the_address(page: Page, viewer: Viewer) -> None:
    send(viewer, "traces", a_trace())
    send(viewer, "traces", spans(at(1, "pay", None, 5, 2, traceId="5" * 32), service="bank"))
    page.shows("tbody a", "pay", "GET /orders")
    page.browser.find_element(By.NAME, "name").send_keys("QUERY")
    until(lambda: page.fragment == "#/traces?name=QUERY")
    page.shows("tbody a", "GET /orders")
    page.browser.refresh()
    page.shows("tbody a", "GET /orders")
    assert page.run("return document.querySelector('[name=name]').value") == "QUERY"
    page.browser.find_element(By.NAME, "service").send_keys("bank")
    page.holds(".empty", "No traces match")
    page.browser.find_element(By.NAME, "name").clear()
    page.shows("tbody a", "pay")
    page.click("[name=errors]")
    page.holds(".empty", "No traces match")
    page.open("#/traces?min=50")
    page.shows("tbody a", "GET /orders")
    quiet(page)


def test_without_live_nothing_moves(page: Page, viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    page.holds(".empty", "No traces yet")
    asked, answer = threading.Event(), threading.Event()
    status = queries.status

    def late(*arguments: Any) -> Any:
        asked.set()
        assert answer.wait(60)
        return status(*arguments)

    monkeypatch.setattr(queries, "status", late)
    assert asked.wait(60)
    page.click("#live")  # while a look is under way, which brings something new
    send(viewer, "traces", a_trace())
    answer.set()
    # a look every second: after three of them by the page's own clock it would have come
    page.browser.set_script_timeout(60)
    page.browser.execute_async_script("setTimeout(arguments[0], 3000)")
    page.holds(".empty", "No traces yet")
    page.click("#live")
    page.shows("tbody a", "GET /orders")
    quiet(page)


def luminance(colour: str) -> float:
    parts = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_light_and_dark(page: Page, viewer: Viewer, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    send(
        viewer, "logs", logs({**text("broken"), "severityNumber": 17}, {**text("odd"), "severityNumber": 13}, text("x"))
    )
    page.open("#/logs")
    page.holds("tbody td", "broken")
    back = luminance(page.run("return getComputedStyle(document.body).backgroundColor"))
    assert (back > 0.5) == (scheme == "light")
    for selector in ("td.bad", "td.warn", "td.dim", "td[role=button]", "h1", "nav a", "th"):
        front = luminance(page.run("return getComputedStyle(document.querySelector(arguments[0])).color", selector))
        ratio = (max(back, front) + 0.05) / (min(back, front) + 0.05)
        assert ratio >= 4.5, f"{selector}: {ratio:.1f}"  # WCAG 2.2, 1.4.3
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_it_says_when_the_receiver_is_gone_and_goes_on_when_it_is_back(browser: Chrome, tmp_path: Path) -> None:
    with reserved_port() as port:
        with Viewer(str(tmp_path / "one"), port=port) as viewer:
            page = Page(browser, viewer.address)
            page.open()
            page.holds(".empty", "No traces yet")
        page.holds("#trouble", "does not answer")
        with Viewer(str(tmp_path / "two"), port=port) as second:
            send(second, "traces", a_trace())
            page.shows("tbody a", "GET /orders")
            page.shows("#trouble", "")
            browser.get("about:blank")
    browser.get_log("browser")  # the connections that were refused


def test_a_trace_of_our_own_client(page: Page, viewer: Viewer, client: Make) -> None:
    telemetry = client(endpoint=viewer.address).telemetry
    with telemetry.tracer("lib").span("outer"):
        with telemetry.tracer("lib").span("inner", attributes={"n": 2**62}):
            telemetry.logger("app").error("told inside")
    assert telemetry.flush(30)
    page.shows("tbody a", "outer")
    page.click("tbody a")
    page.click(".span", 1)
    page.holds(".detail dd", str(2**62))
    page.click(".detail p a")
    page.shows("tbody td[role=button]", "told inside")
    quiet(page)


def test_a_page_of_another_origin_can_neither_read_nor_send(browser: Chrome, viewer: Viewer) -> None:
    send(viewer, "traces", a_trace())
    script = """
        const [url, body, done] = arguments;
        const attempt = (path, options) => fetch(url + path, options).then((reply) => reply.text()).catch(() => "refused");
        Promise.all([
            attempt("/api/status"),
            attempt("/api/status", {mode: "no-cors"}),
            attempt("/v1/traces", {method: "POST", body, headers: {"content-type": "application/json"}}),
            attempt("/v1/traces", {method: "POST", body, mode: "no-cors"}),
            attempt("/v1/traces", {method: "POST", body: new Blob([body], {type: "application/json"}), mode: "no-cors"}),
            Promise.resolve(String(navigator.sendBeacon(url + "/v1/traces", body))),
        ]).then(done)
    """
    body = json.dumps(spans(at(7, "forged", None, 0, 1, traceId="7" * 32)))
    with OtherOrigin() as other:
        browser.get(other.url())
        results = browser.execute_async_script(script, viewer.address, body)
        assert "GET /orders" not in str(results)
        assert "generation" not in str(results)
        assert results[0] == results[2] == "refused"
        # nor show it in a frame
        browser.execute_script(
            "const f = document.createElement('iframe'); f.src = arguments[0]; document.body.append(f)", viewer.address
        )
        until(
            lambda: any("frame" in each["message"] or "403" in each["message"] for each in browser.get_log("browser"))
        )
        browser.get("about:blank")
    names = [each["name"] for each in ask(viewer, "/api/traces").json()["traces"]]
    assert names == ["GET /orders"]
