"""Results as IPython and notebooks show them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.notebook import Listing, line, table
from cloud_runtimes.pubsub import Event
from cloud_runtimes.spi.admin import TopicInfo
from tests.support.waiting import until

HOSTILE = "<script>alert(1)</script>\n\x1b[31m&'\""


@pytest.fixture
def client(clean_environment: None) -> Any:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}}) as client:
        yield client


def taken(client: CloudRuntimesClient, data: Any, **options: Any) -> Event[Any]:
    with client.pubsub.subscribe("bus", "orders", group="g", start="earliest") as events:
        client.pubsub.publish("bus", "orders", data, **options)
        event = events.receive(timeout=30)
        assert event is not None
        event.ack()
    return event


def test_handles_say_what_they_are_of(client: CloudRuntimesClient) -> None:
    client.state.save("s", "k", 1)
    assert repr(client) == "<CloudRuntimesClient runtime=capa at :memory:>"
    assert repr(client.state) == f"<StateService of {client!r}>"
    subscription = client.pubsub.subscribe("bus", "orders", group="billing")
    assert repr(subscription) == "<Subscription of bus/orders, group 'billing'>"
    subscription.close()
    assert repr(subscription) == "<Subscription of bus/orders, group 'billing', closed>"
    with client.pubsub.publisher("bus", "orders") as publisher:
        assert repr(publisher) == "<Publisher to bus/orders>"
    assert repr(publisher) == "<Publisher to bus/orders, closed>"
    lease = client.lock.try_lock("locks", "r", "me")
    assert lease is not None
    with lease:
        assert repr(lease) == f"<Lease 'r' owner='me' token={lease.token} held>"


def test_an_event_tells_no_more_than_a_line(client: CloudRuntimesClient) -> None:
    event = taken(client, {"secret": "x" * 5000}, key="<b>&" * 200)
    shown = repr(event)
    assert re.match(rf"<Event {event.id} type=.* topic=orders key=.* delivery_count=1, [5-9],\d\d\d bytes>$", shown)
    assert "secret" not in shown
    assert "<b>" not in event._repr_html_()
    assert shown.isprintable()
    assert len(shown) < 400


def test_a_job_tells_no_more_than_a_line(client: CloudRuntimesClient) -> None:
    client.schedule.schedule_job("nightly", schedule="0 3 * * *", data=["x" * 5000])
    (job,) = jobs = client.schedule.list_jobs()
    assert repr(job).startswith("<Job 'nightly' of 0 3 * * *, next run 20")
    assert len(repr(job)) < 300
    assert len(job._repr_html_()) < 900
    assert "<td>nightly</td>" in jobs._repr_html_()  # type: ignore[attr-defined]


def test_lists_are_tables(client: CloudRuntimesClient) -> None:
    @client.schedule.job("nightly")
    def fail() -> None:
        raise ValueError(HOSTILE)

    async def listed() -> Any:
        return await client.schedule.list_runs_async("nightly"), await client.admin.topics_async("bus")

    client.schedule.schedule_job("nightly", schedule="0 3 * * *", failure_policy="drop")
    client.schedule.run_now("nightly")
    taken(client, HOSTILE)
    with client.schedule.running():
        assert until(lambda: [run.status for run in client.schedule.list_runs("nightly")] == ["failed"])
    runs, topics = asyncio.run(listed())
    lists: Any = (
        runs,
        topics,
        client.schedule.list_runs("nightly"),
        client.admin.topics("bus"),
        client.admin.groups("bus", "orders"),
        client.admin.peek("bus", "orders"),
    )
    for each in lists:
        html = each._repr_html_()
        assert html.startswith("<table><thead><tr><th>")
        assert set(re.findall(r"<(\w+)", html)) <= {"table", "thead", "tbody", "tr", "th", "td"}
        assert "\x1b" not in html
    assert "&lt;script&gt;" in runs._repr_html_()
    assert "&lt;script&gt;" in client.admin.peek("bus", "orders")._repr_html_()  # type: ignore[attr-defined]
    assert "<td>orders</td>" in topics._repr_html_()


def test_what_cannot_be_decoded_is_told_and_what_is_long_is_cut(client: CloudRuntimesClient) -> None:
    event = taken(client, b"{", content_type="application/json")
    assert "<td>PayloadError: " in event._repr_html_()
    with client.pubsub.subscribe("bus", "orders", group="all", start="earliest", batch=5) as batches:
        batch = batches.receive(timeout=30)
        assert batch is not None
        assert "<td>PayloadError: " in batch._repr_html_()
    topics = Listing(TopicInfo(f"t{number}", number, None, None, None, None) for number in range(150))
    assert topics._repr_html_().count("<tr>") == 101
    assert topics._repr_html_().endswith("<i>and 50 more</i>")
    assert table([]) == "<i>nothing</i>"


@pytest.mark.parametrize("value", ["x" * 10**6, b"\0" * 10**6, list(range(10**6)), {"k": "x" * 10**6}, HOSTILE, None])
def test_a_line_is_bounded(value: Any) -> None:
    text = line(value)
    assert text.isprintable()
    assert len(text) <= 80
