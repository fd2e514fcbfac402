"""Envelope: CloudEvents 1.0 as structured JSON."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import orjson
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from cloud_runtimes._native import events
from cloud_runtimes.codec import cloudevents


def by_hand(event: Any) -> bytes:
    """Write an event as one does without a library for it."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": "/bench",
            "type": "bench.event",
            "time": datetime.datetime.now(datetime.UTC).isoformat(),
            "datacontenttype": "application/json",
            "data": event,
        }
    )


def bench_write(beside: Any, event: dict[str, Any]) -> None:
    def ours() -> bytes:
        return cloudevents.encode(event, "/bench", "bench.event")

    def sdk() -> Any:
        attributes = {
            "id": str(uuid.uuid4()),
            "source": "/bench",
            "type": "bench.event",
            "specversion": "1.0",
            "time": datetime.datetime.now(datetime.UTC),
            "datacontenttype": "application/json",
        }
        return JSONFormat().write(CloudEvent(attributes=attributes, data=event))

    texts = [orjson.loads(write()) for write in (ours, lambda: by_hand(event), sdk)]
    assert all(text["data"] == event and text.keys() == texts[0].keys() for text in texts)
    beside(
        "envelope with a fresh id and time",
        ours,
        {"orjson, uuid4 and now by hand": lambda: by_hand(event), "cloudevents SDK": sdk},
        goals={"orjson, uuid4 and now by hand": 5, "cloudevents SDK": 22},
    )


def bench_read(beside: Any, event: dict[str, Any]) -> None:
    text = cloudevents.encode(event, "/bench", "bench.event")
    assert cloudevents.decode(text).id == orjson.loads(text)["id"] == JSONFormat().read(None, text).get_id()
    assert cloudevents.decode(text).data == event
    beside(
        "parse and read the id",
        lambda: cloudevents.decode(text).id,
        {"orjson": lambda: orjson.loads(text)["id"], "cloudevents SDK": lambda: JSONFormat().read(None, text).get_id()},
        goals={"orjson": 2, "cloudevents SDK": 16},
    )


def bench_id(beside: Any) -> None:
    assert len(events.uuid7()) == 16
    beside("an id", events.uuid7, {"uuid4": uuid.uuid4})
