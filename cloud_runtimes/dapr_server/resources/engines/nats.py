"""Types of NATS JetStream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from ..types import HELD, MANY, ComponentType


def nats_url(parts: Mapping[str, str]) -> str:
    """Return the URL of servers, with a token where there is one.

    Raises:
        ValueError: it cannot be made; no value is told.
    """
    url = parts.get("url", "")
    if not url:
        raise ValueError("give metadata natsURL, nats://host:4222")
    scheme, _, rest = url.partition("://") if "://" in url else ("nats", "", url)
    token = quote(parts.get("token", ""), safe="")
    if token and "@" in rest:
        raise ValueError("natsURL has a user, and there is a token")
    return f"{scheme}://{f'{token}@' if token else ''}{rest}"


def _jetstream(service: str, note: str) -> ComponentType:
    events = "ackpolicy backoff deliverpolicy durablename flowcontrol heartbeat maxackpending maxdeliver queuegroupname ratelimit startsequence starttime"
    return ComponentType(
        service,
        "nats",
        {"tlsclientcert": ("tls_certificate", str), "tlsclientkey": ("tls_key", str)},
        parts={"natsurl": "url", "token": "token"},
        url=nats_url,
        without_effect={
            **dict.fromkeys(events.split(), "each application of a topic is a durable consumer"),
            **dict.fromkeys(("bucket", "streamname"), "streams and buckets have names of their own"),
            "ackwait": HELD,
            "concurrency": MANY,
            "name": "connections are called cloud-runtimes",
        },
        refused={
            "apiprefix": "give domain, or natsURL of a server of that account",
            **dict.fromkeys(("jwt", "seedkey"), "give credentials, the name of a .creds file"),
            "memorystorage": "leave it out: what is acknowledged is in files",
        },
        note=note,
    )


TYPES: Final[Mapping[str, ComponentType]] = {
    "pubsub.jetstream": _jetstream("pubsub", "it has streams of its own, which daprd neither reads nor writes"),
    "state.jetstream": _jetstream("state", "it has a bucket of its own, which daprd neither reads nor writes"),
}
