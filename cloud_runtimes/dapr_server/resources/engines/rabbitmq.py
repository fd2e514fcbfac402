"""The type of RabbitMQ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ....protocols.dapr.documents import go_duration
from ..types import MANY, ComponentType, login


def rabbitmq_url(parts: Mapping[str, str]) -> str:
    """Return the URL of a server, from Dapr's fields.

    Raises:
        ValueError: it cannot be made; no value is told.
    """
    if parts.get("kind", "fanout") != "fanout":
        raise ValueError("exchangeKind: topics are exchanges of the kind fanout")
    url = parts.get("url", "")
    if not url:
        if not parts.get("host"):
            raise ValueError("give metadata connectionString, amqp://user:password@host:5672/vhost, or hostname")
        url = f"{parts.get('protocol') or 'amqp'}://{login(parts)}{parts['host']}"
    if beat := parts.get("heartbeat"):
        url += f"{'&' if '?' in url else '?'}heartbeat={round(go_duration(beat))}"
    return url


TYPES: Final = {"pubsub.rabbitmq": ComponentType(
    "pubsub",
    "rabbitmq",
    parts={
        "connectionstring": "url", "exchangekind": "kind", "heartbeat": "heartbeat", "host": "url", "hostname": "host",
        "password": "password", "protocol": "protocol", "username": "user",
    },
    url=rabbitmq_url,
    settings={"prefix": "", "unrouted": "drop"},
    without_effect={
        **dict.fromkeys(("autoack", "requeueinfailure"), "an event is acknowledged once the application has handled it"),
        **dict.fromkeys(("deletedwhenunused", "deliverymode", "durable", "queuetype"), "queues are quorum queues, and last"),
        **dict.fromkeys(("concurrency", "concurrencymode", "prefetchcount"), MANY),
        **dict.fromkeys(("reconnectwait", "reconnectwaitseconds"), "connections are made as they are needed"),
        "clientname": "connections are called cloud-runtimes",
        "enabledeadletter": "dead letters go to the topic that a subscription names",
        "maxpriority": "quorum queues have no priorities",
        "publisherconfirm": "the server confirms each event",
        "publishmessagepropertiestometadata": "events have no metadata of messages",
    },
    refused={
        **dict.fromkeys(("cacert", "clientcert", "clientkey"), "give connectionString with cafile, certfile and keyfile, the names of files"),
        **dict.fromkeys(("maxlen", "maxlenbytes"), "set a policy: rabbitmqctl set_policy NAME PATTERN '{\"max-length\": …}'"),
        "consumerid": "the consumer group is the app id: leave it out, or start with that --app-id",
        "saslexternal": "give connectionString with certfile and keyfile, and without a user",
        "singleactiveconsumer": "order holds in a group of one member with one worker",
        "ttlinseconds": "give it with each event",
    },
    note="its exchanges are those of daprd, and its queues are others: let no daprd subscribe for the same application meanwhile",
)}  # fmt: skip
