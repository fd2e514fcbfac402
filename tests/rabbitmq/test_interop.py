"""Beside pika and the SDK of CloudEvents: each reads what the other wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest

from cloud_runtimes.testing import Api
from tests.support.harnesses.rabbitmq import RabbitHome

pika: Any = pytest.importorskip("pika")
SENT = {"n": 1, "text": "grüße"}
TIME = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
ATTRIBUTES = {"id": "A-1", "source": "/shop", "type": "com.example.made", "subject": "thing", "tenant": "blue"}


@pytest.fixture
def channel(home: RabbitHome) -> Iterator[Any]:
    # a topic is the exchange of its name
    home.home["prefix"] = home.prefix
    connection = pika.BlockingConnection(pika.URLParameters(home.url))
    yield connection.channel()
    connection.close()


def _written(binding: str, mode: str) -> tuple[str | None, dict[str, Any], bytes]:
    """Return content type, headers and body of an event, as the SDK writes it."""
    from cloudevents.core.v1.event import CloudEvent

    module = import_module(f"cloudevents.core.bindings.{binding}")
    attributes = {**ATTRIBUTES, "time": TIME, "datacontenttype": "application/json", "specversion": "1.0"}
    message = getattr(module, f"to_{mode}_event")(CloudEvent(attributes=attributes, data=SENT))
    if binding == "rabbitmq":
        return message.content_type, message.headers, message.body
    return message.properties["content-type"], message.application_properties, message.application_data


@pytest.mark.parametrize("mode", ["structured", "binary"])
@pytest.mark.parametrize("binding", ["amqp", "rabbitmq"])
def test_what_pika_and_the_sdk_wrote(home: RabbitHome, channel: Any, api: Api, binding: str, mode: str) -> None:
    kind, headers, body = _written(binding, mode)
    with api.opened(home.client().pubsub.subscribe("bus", "t")) as sub:
        # colons are the AMQP binding's first form, which other libraries write
        for prefix in ("cloudEvents_", "cloudEvents:"):
            renamed = {name.replace("cloudEvents_", prefix): value for name, value in headers.items()}
            channel.basic_publish(f"{home.prefix}t", "", body, pika.BasicProperties(content_type=kind, headers=renamed))
            event = api.call(sub, "receive", 10)
            assert (event.data, event.content_type, event.time) == (SENT, "application/json", TIME)
            known = {"id": event.id, "source": event.source, "type": event.type, "subject": event.subject}
            assert {**known, **event.extensions} == ATTRIBUTES
            event.ack()


def test_what_is_no_event(home: RabbitHome, channel: Any, api: Api) -> None:
    with api.opened(home.client().pubsub.subscribe("bus", "t")) as sub:
        properties = pika.BasicProperties(content_type="text/plain", message_id="m-1", headers={"a": [1, {"b": None}]})
        channel.basic_publish(f"{home.prefix}t", "", b"hello", properties)
        channel.basic_publish(f"{home.prefix}t", "", b"\x00")
        event, other = (api.call(sub, "receive", 10) for _ in range(2))
        assert (event.data, event.id, event.content_type) == ("hello", "m-1", "text/plain")
        assert (other.data, other.content_type) == (b"\x00", "application/octet-stream")
        event.retry(delay=0)
        other.ack()
        again = api.call(sub, "receive", 10)
        assert (again.data, again.id, again.delivery_count) == ("hello", "m-1", 2)
        again.ack()


def test_headers_that_are_nested_deep(home: RabbitHome, channel: Any, api: Api) -> None:
    """They are left out; the message is delivered, and so is the one behind it."""
    deep: Any = 1
    for number in range(60):
        deep = {"a": deep} if number % 2 else [deep]
    with api.opened(home.client().pubsub.subscribe("bus", "t")) as sub:
        headers = {"cloudEvents:deep": deep, "n": {"m": [1]}}
        properties = pika.BasicProperties(content_type="text/plain", message_id="m-1", headers=headers)
        channel.basic_publish(f"{home.prefix}t", "", b"hello", properties)
        channel.basic_publish(f"{home.prefix}t", "", b"next", pika.BasicProperties(content_type="text/plain"))
        event, following = (api.call(sub, "receive", 10) for _ in range(2))
        assert (event.data, event.id, following.data) == ("hello", "m-1", "next")
        event.ack()
        following.ack()


@pytest.mark.parametrize("mode", ["structured", "binary", "raw"])
def test_what_ours_wrote(home: RabbitHome, channel: Any, api: Api, mode: str) -> None:
    home.home["content_mode"] = "binary" if mode == "binary" else "structured"
    attributes = {name: value for name, value in ATTRIBUTES.items() if name != "id"}
    client = home.client()
    given = {} if mode == "raw" else {"attributes": attributes, "key": "k"}
    id = api.call(client.pubsub, "publish", "bus", "t", SENT, raw=mode == "raw", **given)
    method, properties, body = next(channel.consume(f"{home.prefix}t:suite", inactivity_timeout=10))
    channel.basic_ack(method.delivery_tag)
    channel.cancel()
    assert properties.delivery_mode == 2
    if mode == "raw":
        assert (json.loads(body), properties.content_type, properties.headers) == (SENT, "application/json", None)
        return
    event = _read(properties, body)
    attributes |= {"id": id, "partitionkey": "k"}
    assert event.get_data() == SENT
    assert {name: event.get_attributes()[name] for name in attributes} == attributes


def _read(properties: Any, body: bytes) -> Any:
    from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp_event

    return from_amqp_event(AMQPMessage({"content-type": properties.content_type}, properties.headers or {}, body))
