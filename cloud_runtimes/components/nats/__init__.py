"""NATS with JetStream: a home for many machines. Its key-value buckets carry state, configuration, locks and jobs, its streams events, its object store files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from ...config import duration, setting
from .._net.engines import EngineComponent

if TYPE_CHECKING:
    from .engine import NatsEngine

__all__ = ["NatsComponent", "NatsSettings", "component"]


_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings:
    """Settings of the component.

    Attributes:
        url: of the server, ``nats://user:password@host:4222``, with ``tls://`` for TLS, which any of the settings of TLS asks for too; ``nats://token@host`` has a token. Several servers of a cluster: ``nats://user:password@a:4222,b:4222``.
        prefix: of the names of all buckets and streams; applications with the same one share their data.
        inbox_prefix: of the subjects where answers arrive. One for each user, and permissions for it alone, keep users from reading each other's answers.
        ensure: ``"create"``: a bucket or stream that is missing is made; ``"check"``: it is an error, and the application needs no rights to make one.
        domain: of the JetStream that has the buckets, where it is not that of the servers in the URL: on the other side of a leaf node.
        replicas: of a bucket or stream that is made, 1 to 5.
        max_value_bytes: largest value of state, payload of an event, data of a job, and all keys of one group and label of configuration, encoded. The server's ``max_payload``, 1 MiB by default, is a limit too.
        layout: of published events: ``"event"``: one CloudEvent a message, which everybody can read; ``"frame"``: many events a message, for throughput among our own clients. Consumers read both.
        duplicate_window: seconds within which an event that is published again after an error is kept once. 0: it may be kept twice, if it is not in a frame. It costs the server half as much again for each event, and memory.
        retention: seconds that an event stays at least, settled or not.
        group_expiry: seconds after which a consumer group that nobody asked for holds nothing back.
        history: seconds that the record of a job's run stays.
        history_runs: how many records of one job stay at most.
        credentials: path of a ``.creds`` file, with a JWT and the seed of its user. It is read at every login. Needs the extra ``nats``.
        nkey: path of a file with the seed of a user's NKey, ``SU…``; likewise.
        tls_ca: file of the certificates that the server's must descend from, else those of the system.
        tls_certificate: file of this client's own certificate.
        tls_key: file of its key.
        tls_first: the server expects TLS before it says anything (``handshake_first``).
    """

    url: str = setting(None, help="of the server")
    prefix: str = setting("cr", help="of the names of all buckets")
    inbox_prefix: str = setting("_INBOX", help="of the subjects where answers arrive")
    ensure: Literal["create", "check"] = setting("create", help="whether buckets are made")
    domain: str | None = setting(None, help="of the JetStream that has the buckets")
    replicas: int = setting(1, help="of a bucket that is made")
    max_value_bytes: int = setting(16 * 1024 * 1024, help="largest value")
    credentials: str | None = setting(None, help="path of a .creds file")
    nkey: str | None = setting(None, help="path of a file with the seed of an NKey")
    history: float = setting(7 * 86400.0, parse=duration, help="how long records of runs stay")
    history_runs: int = setting(1000, help="records of runs of one job")
    layout: Literal["event", "frame"] = setting("event", help="of published events")
    duplicate_window: float = setting(0.0, parse=duration, help="in which an event sent again is kept once")
    retention: float = setting(86400.0, parse=duration, help="how long events stay at least")
    group_expiry: float = setting(7 * 86400.0, parse=duration, help="when an unseen group holds nothing")
    tls_ca: str | None = setting(None, help="file of trusted certificates")
    tls_certificate: str | None = setting(None, help="file of the client's certificate")
    tls_key: str | None = setting(None, help="file of its key")
    tls_first: bool = setting(False, help="TLS before the server says anything")

    def __post_init__(self) -> None:
        if not self.url or not self.url.startswith(("nats://", "tls://")):
            raise ValueError('give url = "nats://user:password@host:4222", or one with tls://')
        if not self.prefix.isascii() or not self.prefix.replace("-", "").isalnum() or len(self.prefix) > 32:
            raise ValueError("prefix must be 1 to 32 ASCII letters, digits and hyphens")
        if self.domain is not None and not self.domain.replace("-", "").replace("_", "").isalnum():
            raise ValueError("domain must be letters, digits, hyphens and underscores")
        if not _SUBJECT.fullmatch(self.inbox_prefix):
            raise ValueError(
                "inbox_prefix must be letters, digits, hyphens and underscores, in parts with dots between"
            )
        if not 1 <= self.replicas <= 5:
            raise ValueError("replicas must be 1 to 5")
        if not 1 <= self.max_value_bytes <= 64 * 1024 * 1024:
            raise ValueError("max_value_bytes must be 1 to 67,108,864")
        if self.credentials is not None and self.nkey is not None:
            raise ValueError("give credentials or nkey, not both")
        if self.history_runs < 1:
            raise ValueError("history_runs must be at least 1")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give tls_certificate and tls_key together")


class NatsComponent(EngineComponent["NatsEngine"]):
    """Drivers over one cluster."""

    name = "nats"
    Settings = NatsSettings
    engine_class = ("engine", "NatsEngine")
    drivers: ClassVar = {
        "configuration": "NatsConfiguration",
        "file": "NatsFiles",
        "lock": "NatsLock",
        "pubsub": "NatsPubSub",
        "rpc": "NatsRpc",
        "schedule": "NatsSchedule",
        "state": "NatsState",
    }
    services = tuple(drivers)
    home_schemes = ("nats", "tls")

    settings: NatsSettings
    _engine: NatsEngine | None


component = NatsComponent
