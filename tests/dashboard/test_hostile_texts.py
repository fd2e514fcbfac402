"""Hostile texts in every name, payload and attribute, in every view of the page: none runs, none breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from selenium.webdriver import Chrome

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dashboard.operations import Operations
from cloud_runtimes.errors import CloudRuntimesError
from tests.dashboard.test_page import TOKEN, broken
from tests.support import Rounds
from tests.support.hostile_texts import hostile_texts
from tests.telemetry.test_viewer_page import Page
from tests.telemetry.viewing import START, TRACE, gauge, logs, metrics, send, spans, text, viewing

pytestmark = pytest.mark.process
LOT = 200
# what the page makes elements of, each as text; whatever else is there came out of a text
_OPEN = """
const [fragment, drawn, seed, done] = arguments;
document.querySelector("main").replaceChildren();
location.hash = fragment;
const wait = (left) => (document.querySelector(drawn) || !left ? setTimeout(() => done(watch(left)), 50) : setTimeout(wait, 50, left - 1));
wait(400);
"""
_WATCH = """
function watch(left) {
const tags = new Set("a button circle code dd div dl dt g h2 h3 input label li line option p path pre rect select small span "
  .concat("strong svg table tbody td text th thead title tr ul dialog").split(" "));
// each is drawn with all others anew
const closed = [...document.querySelectorAll("[aria-expanded=false]")];
for (let at = 0; at < Math.min(20, closed.length); at++) closed[(at + seed * 20) % closed.length].click();
const faults = left ? [] : [`nothing is drawn: ${document.getElementById("trouble").textContent}`];
for (const each of document.querySelectorAll("main *, form *, datalist *, header nav *, #trouble *")) {
  if (!tags.has(each.localName)) faults.push(`element ${each.localName}`);
  for (const { name, value } of each.attributes) {
    if (name.startsWith("on") || name === "src" || name === "srcdoc" || name === "action") faults.push(`attribute ${name}=${value}`);
    if (name === "href" && !value.startsWith("#/")) faults.push(`address ${value}`);
  }
}
if (document.querySelectorAll("script").length !== 1) faults.push("a script");
if (document.querySelectorAll("main, nav, header, form#filters, #live").length !== 5) faults.push("parts of the page are gone");
if (window.pwned !== undefined || ({}).pwned !== undefined) faults.push("executed");
if (Object.keys(Object.prototype).length) faults.push("a prototype was changed");
if (getComputedStyle(document.querySelector("header")).display === "none") faults.push("hidden");
return faults;
}
"""


def _attributes(given: str) -> list[dict[str, Any]]:
    nested = {"kvlistValue": {"values": [{"key": given, "value": {"stringValue": given}}]}}
    return [{"key": given, "value": {"stringValue": given}}, {"key": "nested", "value": nested}]


def _requests(texts: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Return a request for each signal, with each text in all of its places."""
    whole: dict[str, dict[str, list[Any]]] = {}
    for signal, request in _parts(texts):
        for key, parts in request.items():
            whole.setdefault(signal, {}).setdefault(key, []).extend(parts)
    return whole


def _parts(texts: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, each in enumerate(texts):
        about = _attributes(each)
        span = {
            "name": each,
            "kind": 2,
            "status": {"code": 2, "message": each},
            "traceState": each,
            "attributes": about,
            "events": [{"name": each, "timeUnixNano": str(START), "attributes": about}],
            "links": [{"traceId": "1" * 32, "spanId": "2" * 16, "attributes": about}],
        }
        own = {"traceId": f"{number + 1:032x}", "spanId": f"{1:016x}", "startTimeUnixNano": str(START + number)}
        chain = {"traceId": TRACE, "spanId": f"{number + 1:016x}", "startTimeUnixNano": str(START - 1)}
        if number:  # each service calls the next
            chain["parentSpanId"] = f"{number:016x}"
        request = spans({**span, **own}, {**span, **chain}, service=each)
        resource = request["resourceSpans"][0]["resource"]["attributes"]
        resource += [{"key": key, "value": {"stringValue": each}} for key in ("host.name", "process.pid")]
        request["resourceSpans"][0]["scopeSpans"][0]["scope"] = {"name": each, "version": each, "attributes": about}
        yield "traces", request
        record = {"severityText": each, "eventName": each, "attributes": about, "traceId": TRACE}
        yield "logs", logs({**text(each), **record}, service=each)
        measured = gauge(each, number, number + 1)
        measured["gauge"]["dataPoints"][0]["attributes"] = measured["gauge"]["dataPoints"][1]["attributes"] = about
        yield "metrics", metrics({**measured, "unit": each, "description": each}, service=each)


def _fill(client: CloudRuntimesClient, texts: Sequence[str]) -> None:
    """Store each text as name, key and value of each service; what refuses it does so by an error of its own."""
    broken(client, error=texts[0])
    names: tuple[Callable[[str], Any], ...] = (
        lambda each: client.pubsub.publish("bus", each, {each: each}, key=each),
        lambda each: client.pubsub.publish("bus", "orders", {each: each}),
        lambda each: client.state.save("carts", each, each),
        lambda each: client.lock.try_lock("locks", each, each, expiry=3600),
        lambda each: client.file.put_file("reports", each, each.encode()),
        lambda each: client.configuration.save_configuration("settings", {each: each}),
        lambda each: client.schedule.schedule_job(each, schedule="@daily"),
    )
    for store in names:
        taken = 0
        for each in texts:
            try:
                store(each)
                taken += 1
            except CloudRuntimesError:
                continue
        assert taken
    for each in texts[:20]:
        try:
            client.pubsub.subscribe("bus", "orders", group=each).close()
        except CloudRuntimesError:
            continue


def test_no_text_runs_or_breaks_the_page(browser: Chrome, tmp_path: Path, rounds: Rounds) -> None:
    for seed in range(rounds(1, 50)):
        texts = hostile_texts(LOT, seed)
        home = {"capa": {"home": str(tmp_path / f"home{seed}")}}
        with CloudRuntimesClient(app_id="shop", config=home) as client:
            _fill(client, texts)
            with viewing(":memory:", operations=Operations(client, token=TOKEN)) as viewer:
                for signal, request in _requests(texts).items():
                    assert send(viewer, signal, request).status == 200
                browser.get_log("browser")
                page = Page(browser, viewer.address)
                page.open(f"#token={TOKEN}")
                page.holds("nav a", "Overview")
                for fragment, drawn in _views(client, texts):
                    faults = browser.execute_async_script(_OPEN + _WATCH, fragment, drawn, seed)
                    said = [each for each in browser.get_log("browser") if "status of 4" not in each["message"]]
                    assert (faults, said) == ([], []), (seed, fragment)


def _views(client: CloudRuntimesClient, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield addresses, each with what is there once it is drawn."""
    yield "#/overview", "tbody td"
    for tab in ("topics?store=bus", "topic/bus/orders", "topic/bus/orders.dead", "jobs", "stores", "locks?store=locks"):
        yield f"#/{tab}", "tbody td"
    for name in [each.name for each in client.admin.topics("bus") if each.name != "orders"][:5]:
        yield f"#/topic/bus/{quote(name, safe='')}", "tbody td"
    for key in client.state.list_keys("carts", limit=5):
        yield f"#/keys?store=carts&key={quote(key, safe='')}", "dd"
    for file in client.file.list_files("reports", limit=5):
        yield f"#/files?store=reports&content=1&name={quote(file.name, safe='')}", "pre"
    yield "#/configuration?store=settings", "tbody td"
    for tab in ("traces", "logs", "map", f"logs?trace={TRACE}"):
        yield f"#/{tab}", "tbody td"
    yield f"#/trace/{TRACE}", ".waterfall .span"
    yield "#/metrics", ".series path"
    for each in texts[:10]:
        # a tab, a trace, a filter and a condition that somebody was sent as a link
        told = quote(each[:500], safe="")  # a longer address ends the connection
        for tab in (f"{told}", f"trace/{told}", f"topic/{told}/{told}", f"keys?store={told}&key={told}"):
            yield f"#/{tab}", "main > *, #trouble:not([hidden])"
        query = "&".join(f"{name}={told}" for name in ("service", "name", "text", "attributes", "range", "from", "min"))
        yield f"#/traces?{query}", "main > *, #trouble:not([hidden])"
