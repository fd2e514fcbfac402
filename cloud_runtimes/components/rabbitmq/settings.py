"""Settings of the component, for its driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...config import duration, setting
from .address import SCHEMES


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) and each.strip() for each in value):
        raise ValueError("expected a list of names")
    return tuple(each.strip() for each in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitmqSettings:
    """Settings of the component.

    Attributes:
        url: of the server, as pika and aio-pika have it: ``amqp://user:password@host:5672/vhost``, with ``amqps://`` for TLS; several servers of a cluster: ``amqp://user:password@a,b:5673/vhost``. Parameters: ``heartbeat`` and ``connection_timeout`` in seconds, and for TLS ``cafile``, ``certfile``, ``keyfile``, ``verify=verify_none`` and ``server_name_indication``. With a ``certfile`` and no user, the certificate is the login (``EXTERNAL``).
        prefix: of the names of exchanges and queues; ``{name}`` is that of the pub/sub. With ``""`` a topic is the exchange of its name.
        groups: consumer groups that have a queue of every topic from its first event on. Another group has one from its first subscription on, and events before are not for it.
        kind: of topics: ``"queue"``: its groups have queues; ``"stream"``: it also has a stream, from which a group that begins later gets what was published before.
        retention: seconds that an event stays in the stream at least.
        unrouted: what becomes of an event of a topic without any group: ``"refuse"``: it is an error; ``"drop"``: it is taken, and gone.
        ensure: ``"create"``: exchanges and queues that are missing are made; ``"check"``: that is an error, and the application needs no right to make them.
        layout: of published events: ``"event"``: one CloudEvent a message, which everybody can read; ``"frame"``: many events a message, for throughput among our own clients. Consumers read both.
        content_mode: of an event in the layout ``"event"``: ``"structured"``: JSON with all attributes; ``"binary"``: the payload, with the attributes as headers ``cloudEvents:…``. Consumers read both.
        max_value_bytes: largest payload of an event, encoded. The server's ``max_message_size``, 128 MiB by default, is a limit too.
    """

    url: str = setting(None, help="of the server")
    prefix: str = setting("cr.{name}.", help="of exchanges and queues")
    groups: tuple = setting((), parse=_names, help="groups that have a queue from the first event on")  # type: ignore[type-arg]
    kind: Literal["queue", "stream"] = setting("queue", help="whether topics have a stream")
    retention: float = setting(7 * 86400.0, parse=duration, help="how long events stay in a stream at least")
    unrouted: Literal["refuse", "drop"] = setting("refuse", help="what becomes of an event for nobody")
    ensure: Literal["create", "check"] = setting("create", help="whether exchanges and queues are made")
    layout: Literal["event", "frame"] = setting("event", help="of published events")
    content_mode: Literal["structured", "binary"] = setting("structured", help="of an event a message")
    max_value_bytes: int = setting(16 * 1024 * 1024, help="largest event")

    def __post_init__(self) -> None:
        if not self.url or self.url.partition("://")[0] not in SCHEMES:
            raise ValueError('give url = "amqp://user:password@host:5672/vhost", or one with amqps://')
        if not self.prefix.isprintable() or len(self.prefix.encode()) > 100:
            raise ValueError("prefix must be at most 100 bytes of printable characters")
        if self.retention < 1:
            raise ValueError("retention must be at least 1 s")
        if not 1 <= self.max_value_bytes <= 512 * 1024 * 1024:
            raise ValueError("max_value_bytes must be 1 to 536,870,912")
