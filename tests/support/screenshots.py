"""Pictures of the dashboard for its page in the docs: ``python -m tests.support.screenshots [FOLDER]``."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dashboard.operations import Operations
from tests.dashboard.test_page import TOKEN, broken
from tests.support.browsing import chrome
from tests.telemetry.test_viewer_page import Page
from tests.telemetry.viewing import send, viewing

IMAGES = Path(__file__).parents[2] / "docs/images"
_FORMAT = {"format": "webp", "quality": 85}
# to the end of what is drawn
_HEIGHT = "return Math.min(innerHeight, Math.max(200, 24 + document.querySelector('#view').lastElementChild.getBoundingClientRect().bottom))"
WIDTH, HEIGHT, PHONE = 1280, 620, 390
TRACE = "0af7651916cd43dd8448eb211c80319c"
VIEWS = {
    "overview": ("#/overview", "h2"),
    "topic": ("#/topic/bus/orders", ".spark"),
    "dead-letters": ("#/topic/bus/orders.dead", "td .buttons"),
    "jobs": ("#/jobs", "tbody td"),
    "locks": ("#/locks?store=locks", "tbody td"),
    "services": ("#/services", "tbody td, .empty"),
    "stores": ("#/stores", "tbody td"),
    "keys": ("#/keys?store=carts&key=anna", "dd"),
    "files": ("#/files?store=reports&prefix=2026/&name=2026/november.csv&content=1", "pre"),
    "configuration": ("#/configuration?store=settings", "tbody td"),
    "traces": ("#/traces?range=15m&attributes=http.response.status_code%3E%3D400", "tbody td"),
    "trace": (f"#/trace/{TRACE}", ".waterfall"),
    "logs": ("#/logs?range=1h", "tbody td"),
    "metrics": ("#/metrics?range=15m", ".series path"),
    "map": ("#/map", ".map svg"),
}
"""Picture → its view, and what is there once it is drawn."""


def main(folder: Path = IMAGES, *, everything: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as own, chrome(Path(own) / "profile") as browser:
        home = {"capa": {"home": f"{own}/home"}}
        with CloudRuntimesClient(app_id="shop", config=home) as client:
            fill(client)
            client.rpc.register_method("place-order", lambda data: data)
            client.rpc.register_method("cancel-order", lambda data: data)
            operations = Operations(client, token=TOKEN)
            with client.rpc.serving(port=0), viewing(f"{own}/seen", operations=operations) as viewer:
                for signal, request in telemetry(time.time_ns()):
                    assert send(viewer, signal, request).status == 200
                page = Page(browser, viewer.address)
                for width in (WIDTH, PHONE) if everything else (WIDTH,):
                    size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
                    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                    page.open(f"#token={TOKEN}")
                    for name, (fragment, drawn) in VIEWS.items():
                        page.open(fragment)
                        while not page.texts(drawn):
                            pass
                        suffix = f"-{width}" if everything else ""
                        clip = {"x": 0, "y": 0, "width": width, "height": browser.execute_script(_HEIGHT), "scale": 1}
                        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {**_FORMAT, "clip": clip})
                        (folder / f"dashboard-{name}{suffix}.webp").write_bytes(b64decode(shot["data"]))


def fill(client: CloudRuntimesClient) -> None:
    """Have something in each view of services."""
    broken(client)
    client.pubsub.subscribe("bus", "orders", group="mail", start="earliest").close()
    client.schedule.schedule_job("nightly-report", schedule="@daily")
    client.schedule.schedule_job("clean-up", schedule="*/15 * * * *")
    client.lock.try_lock("locks", "import", "worker-1", expiry=600)
    for name in ("anna", "ben", "carla"):
        client.state.save("carts", name, {"items": [{"sku": "A-1", "count": 2}], "total": 39.8})
    for name in ("2026/november.csv", "2026/october.csv", "2026/raw/a.json", "readme.txt"):
        client.file.put_file("reports", name, b"day,orders,total\n2026-11-01,812,20311.50\n" * 40)
    settings = {
        "checkout.timeout": "2.5",
        "checkout.retries": "3",
        "mail.password": "hidden",
        "mail.from": "a@b.example",
    }
    client.configuration.save_configuration("settings", settings)


# -- telemetry that looks like a shop's -------------------------------------


def _attributes(**given: Any) -> list[dict[str, Any]]:
    forms = {int: "intValue", float: "doubleValue", str: "stringValue"}
    return [{"key": key.replace("__", "."), "value": {forms[type(value)]: value}} for key, value in given.items()]


def _resource(service: str, pid: int) -> dict[str, Any]:
    return {"attributes": _attributes(service__name=service, host__name=f"{service}-1", process__pid=pid)}


_STEPS = (
    # number, parent, service, name, kind, start, milliseconds
    (1, 0, "web", "POST /orders", 2, 0, 120),
    (2, 1, "web", "call shop.create", 3, 6, 108),
    (3, 2, "shop", "create", 2, 10, 100),
    (4, 3, "shop", "state.get carts", 3, 14, 8),
    (5, 3, "shop", "call bank.charge", 3, 26, 50),
    (6, 5, "bank", "charge", 2, 30, 42),
    (7, 6, "bank", "SELECT accounts", 3, 34, 12),
    (8, 3, "shop", "publish orders", 4, 84, 9),
    (9, 8, "mail", "orders process", 5, 96, 14),
    (10, 8, "stock", "orders process", 5, 97, 9),
)


def telemetry(now: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield requests of OTLP, of the last quarter of an hour."""
    chance = random.Random(4)
    spans: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number in range(60):
        trace = TRACE if number == 0 else f"{number:032x}"
        begin, stretch, fails = now - number * 14_000_000_000, chance.uniform(0.6, 2.2), number % 6 == 0
        for span, parent, service, name, kind, start, length in _STEPS:
            status = 502 if fails and service in ("web", "shop") else 200
            spans.setdefault((service, 4000 + number % 2), []).append(
                {
                    "traceId": trace,
                    "spanId": f"{span:016x}",
                    **({"parentSpanId": f"{parent:016x}"} if parent else {}),
                    "name": name,
                    "kind": kind,
                    "startTimeUnixNano": str(begin + int(start * stretch * 1e6)),
                    "endTimeUnixNano": str(begin + int((start + length) * stretch * 1e6)),
                    "attributes": _attributes(http__response__status_code=status, tier=("free", "paid")[number % 2]),
                    **({"status": {"code": 2, "message": "card refused"}} if fails and span in (1, 3, 6) else {}),
                }
            )
    for (service, pid), own in spans.items():
        yield "traces", {"resourceSpans": [{"resource": _resource(service, pid), "scopeSpans": [{"spans": own}]}]}
    for service, pid, offset, severity, body in (
        ("shop", 4000, 2, 9, "order 812 accepted"),
        ("bank", 4000, 3, 17, "card refused: limit reached"),
        ("shop", 4001, 9, 13, "retrying bank.charge in 0.2 s"),
        ("mail", 4001, 11, 9, "sent confirmation of order 811"),
        ("shop", 4001, 14, 9, "order 811 accepted"),
    ):
        record = {
            "timeUnixNano": str(now - offset * 10**9),
            "severityNumber": severity,
            "body": {"stringValue": body},
            "traceId": TRACE,
            "spanId": f"{3:016x}",
            "attributes": _attributes(tier="paid"),
        }
        yield "logs", {"resourceLogs": [{"resource": _resource(service, pid), "scopeLogs": [{"logRecords": [record]}]}]}
    for pid in (4000, 4001):
        metrics = [*_metrics(now, chance, pid)]
        scopes = [{"metrics": metrics}]
        yield "metrics", {"resourceMetrics": [{"resource": _resource("shop", pid), "scopeMetrics": scopes}]}


def _metrics(now: int, chance: random.Random, pid: int) -> Iterator[dict[str, Any]]:
    times = [now - (59 - step) * 15_000_000_000 for step in range(60)]
    bounds, counts = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0], [0] * 9
    orders, sent, distribution, depth = [], 0, [], []
    for at in times:
        sent += chance.randrange(20, 60)
        depth.append({"timeUnixNano": str(at), "asDouble": 40 + 30 * chance.random()})
        for tier, part in (("free", 0.7), ("paid", 0.3)):
            point = {"timeUnixNano": str(at), "asInt": str(int(sent * part))}
            orders.append({**point, "attributes": _attributes(tier=tier)})
        for _ in range(40):
            value = chance.lognormvariate(-3, 0.8)
            counts[sum(value > bound for bound in bounds)] += 1
        distribution.append(
            {
                "timeUnixNano": str(at),
                "count": str(sum(counts)),
                "sum": sum(counts) * 0.07,
                "explicitBounds": bounds,
                "bucketCounts": [str(count) for count in counts],
            }
        )
    cumulative = {"aggregationTemporality": 2}
    yield {
        "name": "orders",
        "unit": "{order}",
        "description": "Accepted",
        "sum": {"isMonotonic": True, **cumulative, "dataPoints": orders},
    }
    if pid == 4000:
        yield {"name": "queue.depth", "gauge": {"dataPoints": depth}}
        yield {"name": "rpc.server.duration", "unit": "s", "histogram": {**cumulative, "dataPoints": distribution}}


if __name__ == "__main__":
    main(Path(sys.argv[1]), everything=True) if len(sys.argv) > 1 else main()
