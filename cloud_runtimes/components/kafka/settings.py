"""Settings of the component, and the librdkafka properties derived from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote

from ...config import duration, setting

_SERVERS: Final = re.compile(r"[^\s,:@/]+:[0-9]{1,5}(,[^\s,:@/]+:[0-9]{1,5})*|(\[[0-9a-fA-F:]+\]:[0-9]{1,5},?)+")
_PORT: Final = re.compile(r":[0-9]{1,5}$")
_OURS: Final = {
    "bootstrap.servers": "servers",
    "metadata.broker.list": "servers",
    "sasl.username": "username",
    "sasl.password": "password",
    "sasl.mechanism": "mechanism",
    "sasl.mechanisms": "mechanism",
    "security.protocol": "tls",
    "ssl.ca.location": "tls_ca",
    "ssl.certificate.location": "tls_certificate",
    "ssl.key.location": "tls_key",
    "session.timeout.ms": "session_timeout",
    "group.instance.id": "instance",
    "group.id": "group= of subscribe",
}
_FIXED: Final = frozenset(
    [
        "acks",
        "auto.offset.reset",
        "delivery.report.only.error",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "error_cb",
        "group.protocol",
        "logger",
        "on_commit",
        "partition.assignment.strategy",
        "request.required.acks",
        "share.acknowledgement.mode",
        "transactional.id",
    ]
)
"""Properties on which the promises of this component stand."""


def read_url(url: str) -> dict[str, Any]:
    """Return the settings in ``kafka://user:password@host:9092,host:9092``; with ``kafkas://`` for TLS."""
    scheme, _, rest = url.partition("://")
    login, at, addresses = rest.rstrip("/").rpartition("@")
    servers = ",".join(address if _PORT.search(address) else f"{address}:9092" for address in addresses.split(","))
    user, colon, password = login.partition(":")
    if not _SERVERS.fullmatch(servers) or (at and not colon):
        raise ValueError("give a URL such as kafka://user:password@host:9092,host:9092")
    options: dict[str, Any] = {"servers": servers, **({"tls": True} if scheme == "kafkas" else {})}
    return {**options, "username": unquote(user), "password": unquote(password)} if at else options


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """Settings of the component.

    Attributes:
        servers: some of the cluster's brokers, ``host:9092,host:9092``.
        username: of a login by SASL; with ``password``.
        password: of this user.
        mechanism: of the login.
        tls: connect by TLS.
        tls_ca: file of the certificates that the brokers' must descend from, else those of the system.
        tls_certificate: file of this client's own certificate.
        tls_key: file of its key.
        prefix: of the names of all topics and consumer groups; without one they are what the application calls them.
        ensure: ``"check"``: a topic that is missing is an error; ``"create"``: it is made.
        partitions: of a topic that is made, else the broker's ``num.partitions``.
        replicas: of a topic that is made, else the broker's ``default.replication.factor``.
        layout: of published events: ``"event"``: one CloudEvent a message, which everybody can read; ``"frame"``: many events a message, for throughput among our own clients. Consumers read both.
        content_mode: of a message in the layout ``"event"``: ``"structured"``: JSON with all attributes; ``"binary"``: the payload alone, and the attributes in headers. Consumers read both.
        group_type: what a group is. ``"consumer"``: a consumer group, of at most as many members as the topic has partitions. ``"share"``: a share group, whose members share a partition's messages one by one, in no order; it needs Kafka 4.2 and ``confluent-kafka`` 2.16, which calls it a preview and not for production.
        retry: where an event waits that failed. ``"topic"``: in the topic ``<topic>.<group>.retry``, while others go on. ``"in_order"``: in the memory of its member, which hands out no later event of the same key until it is settled: all subscriptions have ``order="key"``.
        session_timeout: seconds after which the partitions of a member that died go to others.
        handover: seconds that a member may still take to settle what it holds of a partition that goes to another.
        instance: name of this process for static membership: a restart within ``session_timeout`` moves no partition. Each process of a group needs another.
        options: other properties of librdkafka, such as ``"compression.type" = "zstd"``.
    """

    servers: str = setting(None, help="some of the brokers")
    username: str | None = setting(None, help="of a login by SASL")
    password: str | None = setting(None, help="of this user")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = setting("SCRAM-SHA-512", help="of the login")
    tls: bool = setting(False, help="connect by TLS")
    tls_ca: str | None = setting(None, help="file of trusted certificates")
    tls_certificate: str | None = setting(None, help="file of the client's certificate")
    tls_key: str | None = setting(None, help="file of its key")
    prefix: str = setting("", help="of topics and groups")
    ensure: Literal["check", "create"] = setting("check", help="whether topics are made")
    partitions: int | None = setting(None, help="of a topic that is made")
    replicas: int | None = setting(None, help="of a topic that is made")
    layout: Literal["event", "frame"] = setting("event", help="of published events")
    content_mode: Literal["structured", "binary"] = setting("structured", help="of an event alone in a message")
    group_type: Literal["consumer", "share"] = setting("consumer", help="of what type groups are")
    retry: Literal["topic", "in_order"] = setting("topic", help="where an event waits that failed")
    session_timeout: float = setting(30.0, parse=duration, help="when a member that died loses its partitions")
    handover: float = setting(30.0, parse=duration, help="for what is held of a partition that moves")
    instance: str | None = setting(None, help="name of this process for static membership")
    options: Mapping[str, Any] | None = setting(None, help="other properties of librdkafka")

    def __post_init__(self) -> None:
        if not self.servers or not _SERVERS.fullmatch(self.servers):
            raise ValueError('give servers = "host:9092,host:9092"')
        if (self.username is None) != (self.password is None):
            raise ValueError("give username and password together")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give tls_certificate and tls_key together")
        if not self.tls and (self.tls_ca or self.tls_certificate):
            raise ValueError("tls_ca, tls_certificate and tls_key need tls = true")
        for name in ("partitions", "replicas"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10_000:
                raise ValueError(f"{name} must be 1 to 10,000")
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", self.prefix):
            raise ValueError("prefix must be at most 64 ASCII letters, digits, dots, hyphens and underscores")
        if not 6 <= self.session_timeout <= 1800:
            raise ValueError("session_timeout must be 6s to 30m")
        if not self.handover <= 240:
            raise ValueError("handover must be at most 4m")
        if self.group_type == "share" and self.retry == "in_order":
            raise ValueError('retry = "in_order" needs group_type = "consumer": a share group has no order')
        if self.group_type == "share" and self.instance is not None:
            raise ValueError('instance needs group_type = "consumer": the members of a share group have no names')
        for name in self.options or {}:
            if name in _OURS:
                raise ValueError(f"options: {name} is this component's {_OURS[name]}")
            if name in _FIXED:
                raise ValueError(f"options: {name} is not to choose: what this component promises depends on it")

    def properties(self) -> dict[str, Any]:
        """Return what every client of librdkafka is given; with the password."""
        protocol = ("SASL_" if self.username is not None else "") + ("SSL" if self.tls else "PLAINTEXT")
        options = {
            "bootstrap.servers": self.servers,
            "security.protocol": protocol,
            "client.id": "cloud-runtimes",
            "log_level": 0,  # what goes wrong comes by error_cb, and in results
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1000,  # a broker that is back is found soon
            "topic.metadata.refresh.sparse": True,
            "sasl.username": self.username,
            "sasl.password": self.password,
            "sasl.mechanism": None if self.username is None else self.mechanism,
            "ssl.ca.location": self.tls_ca,
            "ssl.certificate.location": self.tls_certificate,
            "ssl.key.location": self.tls_key,
            **(self.options or {}),
        }
        return {name: value for name, value in options.items() if value is not None}
