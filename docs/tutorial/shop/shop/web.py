"""The shop's HTTP API."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from cloud_runtimes import CloudRuntimesClient, lifespan
from cloud_runtimes.errors import ConflictError

from . import handlers
from .handlers import Order, Shipment

app = FastAPI(title="Shop", lifespan=lifespan(handlers.client))


def get_client() -> CloudRuntimesClient:
    """Return the client of the process; tests put another in its place."""
    return handlers.client


Client = Annotated[CloudRuntimesClient, Depends(get_client)]


@app.post("/orders", status_code=201)
async def place_order(order: Order, client: Client) -> Order:
    """Take an order."""
    try:
        await handlers.place(order, client)
    except ConflictError:
        raise HTTPException(409, f"there is an order {order.id} already") from None
    return order


@app.get("/orders/{id}")
async def get_order(id: str, client: Client) -> dict[str, Order | Shipment | None]:
    """Return an order, and its shipment once there is one."""
    order = await client.state.get_async("orders", id, type=Order)
    if order is None:
        raise HTTPException(404, f"there is no order {id}")
    return {"order": order, "shipment": await client.state.get_async("shipments", id, type=Shipment)}


@app.get("/healthz")
async def healthz(client: Client) -> dict[str, str]:
    """Answer probes: the home can be reached."""
    await client.wait_ready_async(timeout=2)
    return {"status": "ok"}
