"""Handlers of the shop's orders, in whichever process they run."""

import csv
import io
from collections import Counter

from pydantic import BaseModel

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import DropEvent, Event
from cloud_runtimes.schedule import JobRun

client = CloudRuntimesClient(app_id="shop")


class Order(BaseModel):
    """Order of a customer."""

    id: str
    item: str
    quantity: int


class Shipment(BaseModel):
    """Shipped order."""

    order: str
    parcels: int


async def place(order: Order, client: CloudRuntimesClient) -> None:
    """Store an order and announce it, both or neither."""
    async with client.state.transaction("orders") as tx:
        tx.save(order.id, order, concurrency="first-write")
        tx.publish("bus", "orders", order, key=order.id)


@client.pubsub.subscription("bus", "orders", group="shipping", dead_letter_topic="orders.dead")
def ship(event: Event[Order]) -> None:
    """Ship an order, once."""
    order = event.data
    if order.quantity < 1:
        raise DropEvent("nothing to ship")
    parcels = -(-order.quantity // 10)
    with event.transaction("shipments") as tx:  # settles the event in the same commit
        tx.save(order.id, Shipment(order=order.id, parcels=parcels))


@client.schedule.job("report")
def report(run: JobRun, client: CloudRuntimesClient) -> None:
    """Write what was ordered, by item."""
    sold: Counter[str] = Counter()
    for item in client.state.get_bulk("orders", client.state.list_keys("orders"), type=Order).values():
        sold[item.value.item] += item.value.quantity
    lines = io.StringIO()
    csv.writer(lines).writerows([("item", "quantity"), *sorted(sold.items())])
    client.file.put_file("reports", f"{run.fire_time:%Y-%m-%d}.csv", lines.getvalue().encode(), content_type="text/csv")
