"""The shop on data in memory: no server, no waiting."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from shop.handlers import Order, Shipment, report, ship
from shop.web import app, get_client


@pytest.fixture
def web(cloud_runtimes_client) -> Iterator[TestClient]:
    app.dependency_overrides[get_client] = lambda: cloud_runtimes_client
    yield TestClient(app)
    app.dependency_overrides.clear()


def test_an_order_is_stored_and_announced(web, cloud_runtimes_client, cloud_runtimes_events) -> None:
    order = {"id": "1", "item": "tea", "quantity": 12}
    assert web.post("/orders", json=order).status_code == 201
    assert web.post("/orders", json=order).status_code == 409
    assert web.get("/orders/1").json() == {"order": order, "shipment": None}
    assert web.get("/orders/2").status_code == 404
    (event,) = cloud_runtimes_events("bus", "orders").take(1)
    assert event.data == order


def test_an_order_is_shipped(web, cloud_runtimes_client, cloud_runtimes_events) -> None:
    shipping = {"group": "shipping", "dead_letter_topic": "orders.dead"}
    with cloud_runtimes_client.pubsub.subscribe("bus", "orders", ship, **shipping):
        web.post("/orders", json={"id": "1", "item": "tea", "quantity": 12})
        web.post("/orders", json={"id": "2", "item": "tea", "quantity": 0})
        (dead,) = cloud_runtimes_events("bus", "orders.dead").take(1)
    assert (dead.data["id"], dead.extensions["dlreason"]) == ("2", "dropped")
    assert cloud_runtimes_client.state.get("shipments", "1", type=Shipment) == Shipment(order="1", parcels=2)
    assert cloud_runtimes_client.state.get("shipments", "2") is None


def test_the_report_is_written_every_night(cloud_runtimes_client, cloud_runtimes_clock) -> None:
    client = cloud_runtimes_client
    client.schedule.job("report")(report)
    client.state.save("orders", "1", Order(id="1", item="tea", quantity=12))
    client.state.save("orders", "2", Order(id="2", item="tea", quantity=1))
    client.schedule.schedule_job("report", schedule="0 3 * * *")
    cloud_runtimes_clock.advance(24 * 3600)
    with client.schedule.running():
        while not client.file.list_files("reports"):
            pass
    (written,) = client.file.list_files("reports")
    assert client.file.get_file("reports", written.name) == b"item,quantity\r\ntea,13\r\n"
