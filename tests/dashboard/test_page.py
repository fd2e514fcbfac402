"""The dashboard's page in a real browser: a failing group is found, read and mended, by mouse, with and without the token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dashboard.operations import Operations
from cloud_runtimes.pubsub import Event
from tests.support.pairs import pair
from tests.support.waiting import until
from tests.telemetry.test_viewer_page import HOSTILE, Page, quiet
from tests.telemetry.viewing import viewing

pytestmark = pytest.mark.process
TOKEN = "a-token"


def broken(client: CloudRuntimesClient, topic: str = "orders", group: str = "billing", error: str = "no price") -> None:
    """Publish six orders, of which the handler of a group fails with four."""

    def handler(event: Event[Any]) -> None:
        if event.data % 3:
            raise ValueError(error)

    client.pubsub.publish_bulk("bus", topic, list(range(6)))
    with client.pubsub.subscribe(
        "bus", topic, handler, group=group, start="earliest", dead_letter_topic=f"{topic}.dead", max_deliveries=1
    ):
        assert until(lambda: client.pubsub.lag("bus", topic, group=group) == 0)
        assert until(lambda: len(client.admin.peek("bus", f"{topic}.dead")) == 4)


@pytest.mark.parametrize("engines", ["sqlite sqlite", "sqlite postgres", "sqlite redis", "sqlite kafka"])
def test_a_failing_group_is_found_and_mended(
    engines: str, browser: Chrome, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pair(request, tmp_path, engines) as config, CloudRuntimesClient(app_id="shop", config=config) as client:
        broken(client)
        with viewing(tmp_path / "seen", operations=Operations(client, token=TOKEN)) as viewer:
            browser.get_log("browser")
            page = Page(browser, viewer.address)
            page.open(f"#token={TOKEN}")
            page.holds("h2", "Dead letters")
            assert TOKEN not in page.fragment
            page.click("td a")  # of the topic with the most dead letters
            page.holds("td", "ValueError")
            page.click("[aria-expanded=false].link")  # the error
            page.holds("dd", "ValueError: no price")
            page.holds("dd", "billing")
            page.click("td .buttons button")  # Redrive
            page.holds("dialog p", "Send 4 dead letters back to billing, and to no other group?")
            assert client.pubsub.lag("bus", "orders", group="billing") == 0
            page.click("dialog .yes")
            page.holds("#done", "Redrive: 4")
            assert client.pubsub.lag("bus", "orders", group="billing") == 4
            page.open("#/topic/bus/orders")
            page.holds("td.number.bad", "4")
            with client.pubsub.subscribe("bus", "orders", lambda event: None, group="billing"):
                assert until(lambda: client.pubsub.lag("bus", "orders", group="billing") == 0)
                until(lambda: page.texts("td.number.bad") == [])
            quiet(page)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(tmp_path / "home")}}) as client:
        yield client


def test_without_the_token_it_only_shows(browser: Chrome, client: CloudRuntimesClient, tmp_path: Path) -> None:
    broken(client)
    with viewing(tmp_path / "seen", operations=Operations(client, token=TOKEN)) as viewer:
        page = Page(browser, viewer.address)
        page.open("#/topic/bus/orders.dead")
        page.holds("td", "ValueError")
        assert page.texts(".buttons button") == []
        page.open("#token=another")
        page.open("#/topic/bus/orders.dead")
        page.click("td .buttons button")
        page.holds("#trouble", "a change needs the token")
        assert len(client.admin.peek("bus", "orders.dead")) == 4


def test_hostile_names_and_data_are_text(browser: Chrome, client: CloudRuntimesClient, tmp_path: Path) -> None:
    broken(client, topic=HOSTILE, group=f"g{HOSTILE}", error=HOSTILE)
    client.pubsub.publish("bus", "data", {HOSTILE: HOSTILE}, key=HOSTILE)
    client.state.save("carts", HOSTILE, HOSTILE)
    client.lock.try_lock("locks", HOSTILE, HOSTILE)
    with viewing(tmp_path / "seen", operations=Operations(client, token=TOKEN)) as viewer:
        browser.get_log("browser")
        page = Page(browser, viewer.address)
        page.open(f"#token={TOKEN}")
        page.holds("td", HOSTILE)
        page.click("td a")
        page.holds("td", "ValueError")
        for fragment, shown in (
            ("#/topics?store=bus", HOSTILE),
            ("#/topic/bus/data", HOSTILE),
            ("#/locks?store=locks", HOSTILE),
            ("#/keys?store=carts", HOSTILE),
            ("#/stores", "carts"),
        ):
            page.open(fragment)
            page.holds("td", shown)
        quiet(page)


@pytest.mark.parametrize("tab", ["topics", "jobs", "locks", "services", "stores"])
def test_empty_views_tell_the_next_step(browser: Chrome, client: CloudRuntimesClient, tmp_path: Path, tab: str) -> None:
    with viewing(tmp_path / "seen", operations=Operations(client)) as viewer:
        page = Page(browser, viewer.address)
        page.open(f"#/{tab}")
        until(lambda: len(page.texts(".empty")) == 1)
        page.open("")
        page.holds(".empty", "Nothing needs a look")
