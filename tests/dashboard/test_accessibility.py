"""axe-core on each view of the dashboard, light and dark."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dashboard.operations import Operations
from cloud_runtimes.dashboard.server import Viewer
from tests.dashboard.test_page import TOKEN, broken
from tests.support.waiting import until
from tests.telemetry.test_viewer_page import Page, a_trace, at
from tests.telemetry.viewing import TRACE, gauge, logs, metrics, send, spans, text, viewing

pytestmark = pytest.mark.process
_RUN = "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((found) => done(found.violations))"
VIEWS = {
    "#/overview": "h2",
    "#/topics?store=bus": "tbody td",
    "#/topic/bus/orders": "tbody td",
    "#/topic/bus/orders.dead": "tbody td",
    "#/jobs": "tbody td",
    "#/locks?store=locks": "tbody td",
    "#/services": ".empty",
    "#/stores": "tbody td",
    "#/keys?store=carts&key=one": "dd",
    "#/files?store=reports&name=a.txt&content=1": "pre",
    "#/configuration?store=settings": "tbody td",
    "#/traces": "tbody td",
    "#/traces?range=between&attributes=db.system%3Dsqlite": "tbody td",
    "#/traces?attributes=free": "#trouble:not([hidden])",
    "#/map": ".map svg",
    f"#/trace/{TRACE}": ".waterfall",
    "#/logs": "tbody td",
    "#/metrics": ".series",
}
"""Views, each with what is there once it is drawn."""


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A dashboard with something in each view."""
    folder = tmp_path_factory.mktemp("dashboard")
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(folder / "home")}}) as client:
        broken(client)
        client.schedule.schedule_job("nightly", schedule="@daily")
        client.state.save("carts", "one", {"total": 1})
        client.file.put_file("reports", "a.txt", b"text\n" * 100)
        client.configuration.save_configuration("settings", {"timeout": "5", "password": "5"})
        client.lock.try_lock("locks", "lamp", "worker", expiry=600)
        with viewing(folder / "seen", operations=Operations(client, token=TOKEN)) as instance:
            for signal, request in (
                ("traces", a_trace()),
                ("logs", logs(text("it failed"))),
                ("traces", spans(at(7, "charge", 2, 5, 20, kind=2), service="bank")),
                ("metrics", metrics(gauge("load", 1.0, 2.0))),
                ("metrics", metrics(gauge("load", 3.0, 2.0), service="bank")),
            ):
                assert send(instance, signal, request).status == 200
            yield instance


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault(browser: Chrome, viewer: Viewer, scheme: str) -> None:
    found = importlib.util.find_spec("axe_core_python")
    assert found is not None
    assert found.origin is not None
    axe = (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    page = Page(browser, viewer.address)
    page.open(f"#token={TOKEN}")
    faults: list[str] = []
    for fragment, drawn in VIEWS.items():
        page.open(fragment)
        until(lambda drawn=drawn: page.texts(drawn))
        page.run(axe)
        violations: list[dict[str, Any]] = browser.execute_async_script(_RUN)
        for each in violations:
            if each["impact"] in ("serious", "critical"):
                faults.append(f"{fragment}: {each['id']}: {json.dumps([node['html'] for node in each['nodes']][:3])}")
    assert faults == []
