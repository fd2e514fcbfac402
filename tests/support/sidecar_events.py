"""A sidecar beside an application that it brings events to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.spi.operation import Method, Operation
from tests.sidecar.raw import send
from tests.support.apps import App, GrpcApp
from tests.support.running import declared, serving
from tests.support.waiting import until

__all__ = ["TRACE", "beside", "publish", "settled", "taken"]

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def beside(app: App | GrpcApp, name: str, count: int = 1, **settings: Any) -> Iterator[Sidecar]:
    """Serve a sidecar beside an application, and wait until it has so many subscriptions."""
    settings.setdefault("app_protocol", "http" if isinstance(app, App) else "grpc")
    with serving(declared(f":memory:{name[:90]}"), app_port=app.port, **settings) as sidecar:
        until(lambda: len(sidecar.context.subscriptions) == count, "the subscriptions")
        yield sidecar


def publish(sidecar: Sidecar, topic: str, data: Any, content_type: str = "application/json", query: str = "") -> None:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    answer = send(
        sidecar.http_address, "POST", f"/v1.0/publish/store/{topic}?{query}", body, {"content-type": content_type}
    )
    assert answer.status == 204, answer.body


def taken(sidecar: Sidecar, topic: str) -> Any:
    """Take an event from a topic that the application does not subscribe to."""
    with sidecar.context.client.pubsub.subscribe("store", topic, group="test") as subscription:
        event = subscription.receive(timeout=60)
        assert event is not None
        return event


def settled(sidecar: Sidecar) -> bool:
    """Return whether nothing is claimed in the store."""
    engine = sidecar.context.driver("pubsub", "store")._engine
    op = Operation(Method("pubsub", "look", repeatable=True, writes=False), "store", 30.0)
    return not engine.query(op, "SELECT 1 FROM claims", ())
