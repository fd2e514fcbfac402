"""Types of Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote, urlencode

from ....protocols.dapr.documents import go_duration
from ..types import HELD, MANY, ComponentType, is_true, login

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?")


def redis_url(parts: Mapping[str, str]) -> str:
    """Return the URL of a server, of Sentinels or of a cluster, from Dapr's fields.

    Raises:
        ValueError: they do not fit together; no value is told.
    """
    port = parts.get("port", "")
    hosts: list[str] = []
    for text in parts.get("host", "").split(","):
        match = _HOST.fullmatch(text.strip())
        if match is None:
            raise ValueError("redisHost: give host:port, several of a cluster or of Sentinels with commas")
        if match[2] and port and port != match[2]:
            raise ValueError("redisHost has a port, and redisPort another")
        hosts.append(f"{match[1]}:{match[2] or port or 6379}")
    kind = parts.get("type", "").lower() or "node"
    sentinel, database = is_true(parts.get("failover") or "false"), parts.get("database") or "0"
    if kind not in ("cluster", "node"):
        raise ValueError("redisType: give node or cluster")
    if kind == "cluster" and sentinel:
        raise ValueError("give redisType cluster or failover, not both")
    if sentinel and not parts.get("master"):
        raise ValueError("failover needs sentinelMasterName")
    if not sentinel and kind == "node" and len(hosts) > 1:
        raise ValueError("redisHost has several hosts: give redisType cluster, or failover")
    if not database.isdecimal():
        raise ValueError("redisDB: expected a number")
    tls = is_true(parts.get("tls") or "false")
    query = {"ssl_cert_reqs": "none"} if tls and is_true(parts.get("insecure") or "false") else {}
    scheme, path = "rediss" if tls else "redis", f"/{database}"
    if sentinel:
        scheme, path = f"{scheme}+sentinel", f"/{quote(parts['master'], safe='')}/{database}"
        query |= {name: parts[name] for name in ("sentinel_username", "sentinel_password") if parts.get(name)}
    elif kind == "cluster":
        scheme += "+cluster"
    return f"{scheme}://{login(parts)}{','.join(hosts)}{path}{f'?{urlencode(query)}' if query else ''}"


def _seconds(text: str) -> str:
    return f"{go_duration(text)}"


_REDIS_URL: Final = {
    "enabletls": "tls",
    "failover": "failover",
    "insecureskiptlsverify": "insecure",
    "redisdb": "database",
    "redishost": "host",
    "redispassword": "password",
    "redisport": "port",
    "redistype": "type",
    "redisusername": "user",
    "sentinelmastername": "master",
    "sentinelpassword": "sentinel_password",
    "sentinelusername": "sentinel_username",
}
_TOKENS: Final = "give redisUsername and redisPassword; tokens of identity providers are not fetched"
_FILES: Final = "give a url with ssl_certfile and ssl_keyfile, the names of files"


def _redis(
    service: str,
    note: str | None = None,
    fields: Mapping[str, tuple[str, Callable[[str], str]]] | None = None,
    **more: str,
) -> ComponentType:
    """Return what a type of Redis is; ``more``: further fields that are refused, and why."""
    client = (
        "dialtimeout idlecheckfrequency idletimeout maxconnage maxretries maxretrybackoff minidleconns poolsize pooltimeout "
        "readtimeout redismaxretries redismaxretryinterval redisminretryinterval writetimeout"
    )
    return ComponentType(
        service,
        "redis",
        fields or {},
        parts=_REDIS_URL,
        url=redis_url,
        settings={} if note else {"layout": "dapr"},
        without_effect={
            **dict.fromkeys(client.split(), "connections are made as they are needed, and each call has a deadline"),
            **dict.fromkeys(("processingtimeout", "redeliverinterval"), HELD),
            **dict.fromkeys(("concurrency", "queuedepth"), MANY),
            "maxlenapprox": "events go by their age: give streamTTL",
            "queryindexes": "there are no queries",
            **({"keyprefix": "keys begin with prefix"} if note else {}),
        },
        refused={
            **dict.fromkeys(("useazuread", "useentraid", "useoidc"), _TOKENS),
            **dict.fromkeys(("clientcert", "clientkey"), _FILES),
            **more,
        },
        note=note,
    )


TYPES: Final[Mapping[str, ComponentType]] = {
    "configuration.redis": _redis(
        "configuration", "it has what client.configuration saves, and not the keys that others set in this Redis"
    ),
    "lock.redis": _redis("lock", "locks that daprd has in this Redis are others: let no daprd use them meanwhile"),
    "pubsub.redis": _redis(
        "pubsub",
        fields={"streamttl": ("retention", _seconds)},
        consumerid="the consumer group is the app id: leave it out, or start with that --app-id",
    ),
    "state.redis": _redis("state", ttlinseconds="give it with each save"),
}
