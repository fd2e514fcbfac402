"""Settings of the component, for its drivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...config import duration, setting
from .address import SCHEMES


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Settings of the component.

    Attributes:
        url: of the server, as redis-py has it: ``redis://user:password@host:6379/0``, ``rediss://…`` for TLS with ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_cert_reqs`` and ``ssl_check_hostname`` as parameters, or ``unix:///path?db=0``. Of Sentinels: ``redis+sentinel://user:password@host:26379,host:26379/master/0``, where ``sentinel_username`` and ``sentinel_password`` are parameters. Of a cluster: ``redis+cluster://user:password@host:6379,host:6379``; a cluster is also recognized by ``redis://…`` of one of its nodes. Both have a form with ``rediss+``.
        prefix: of all keys; applications with the same one share their data.
        max_connections: of one process for calls of the sync API. A waiter for a free one waits to its deadline.
        wait_replicas: how many replicas must have a write before it counts (``WAIT``). With fewer within ``wait_timeout`` it fails, and ``maybe_applied`` is true.
        wait_timeout: seconds for that.
        layout: of published events: ``"event"``: one CloudEvent a message, which everybody can read; ``"frame"``: many events a message, for throughput among our own clients. Consumers read both. ``"dapr"``: state and events are where Dapr's own components have them, for applications of both.
        key_prefix: with ``layout = "dapr"``, what stands before ``||`` in the keys of state: ``"appid"``, ``"name"`` (the store's), ``"none"``, or any other text.
        max_value_bytes: largest value of state or configuration, or event payload, encoded.
        retention: seconds that an event stays at least, settled or not.
        group_expiry: seconds after which a consumer group that nobody asked for holds nothing back.
        history: seconds that the record of a job's run stays.
        history_runs: how many records of one job stay at most.
    """

    url: str = setting(None, help="of the server")
    prefix: str = setting("cr", help="of all keys")
    max_connections: int = setting(32, help="of one process")
    wait_replicas: int = setting(0, help="how many replicas must have a write")
    wait_timeout: float = setting(1.0, parse=duration, help="how long a write waits for replicas")
    layout: Literal["event", "frame", "dapr"] = setting("event", help="of published events, and of state")
    key_prefix: str = setting("appid", help="of keys of state in Dapr's layout")
    max_value_bytes: int = setting(16 * 1024 * 1024, help="largest value or event")
    retention: float = setting(86400.0, parse=duration, help="how long events stay at least")
    group_expiry: float = setting(7 * 86400.0, parse=duration, help="when an unseen group holds nothing")
    history: float = setting(7 * 86400.0, parse=duration, help="how long records of runs stay")
    history_runs: int = setting(1000, help="records of runs of one job")

    def __post_init__(self) -> None:
        if not self.url or self.url.partition("://")[0] not in SCHEMES:
            raise ValueError(
                'give url = "redis://user:password@host:6379/0", or one with rediss://, unix://, redis+sentinel:// or redis+cluster://'
            )
        if not self.prefix.isprintable() or not 1 <= len(self.prefix) <= 64 or set("{}") & set(self.prefix):
            raise ValueError("prefix must be 1 to 64 printable characters without braces")
        if not 1 <= self.max_connections <= 1000:
            raise ValueError("max_connections must be 1 to 1,000")
        if not 1 <= self.max_value_bytes <= 256 * 1024 * 1024:
            raise ValueError("max_value_bytes must be 1 to 268,435,456")
        if "||" in self.key_prefix or not self.key_prefix or (self.key_prefix != "appid" and self.layout != "dapr"):
            raise ValueError('key_prefix is for layout = "dapr": "appid", "name", "none", or text without ||')
        if not 0 <= self.wait_replicas <= 100:
            raise ValueError("wait_replicas must be 0 to 100")
        if self.wait_timeout < 0.001:
            raise ValueError("wait_timeout must be at least 0.001 s")
        if self.history_runs < 1:
            raise ValueError("history_runs must be at least 1")
