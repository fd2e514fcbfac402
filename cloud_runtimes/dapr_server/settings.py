"""Settings of a sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..resiliency.policies import Resiliency
from .limits import Limits

BULK_MESSAGES: Final = 100
BULK_WAIT: Final = 1.0


@dataclass(frozen=True, slots=True)
class ComponentInfo:
    """A component as ``GetMetadata`` tells it.

    Attributes:
        name: its store.
        type: as in a component file, e.g. ``"state.sqlite"``.
        version: e.g. ``"v1"``.
        capabilities: e.g. ``"ETAG"``, ``"TRANSACTIONAL"``, ``"TTL"``.
    """

    name: str
    type: str
    version: str = "v1"
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CronBinding:
    """A binding that calls the application at times (Dapr, ``bindings.cron``).

    Attributes:
        name: of the component.
        schedule: cron of 5 or 6 fields, ``@every`` with a duration, ``@hourly`` and so on.
        timezone: of cron text.
        route: path of the application.
        asks: the application is asked whether it takes it.
    """

    name: str
    schedule: str
    timezone: str = "UTC"
    route: str = ""
    asks: bool = True


@dataclass(frozen=True, slots=True)
class BulkSubscribe:
    """Several events in one callback (Dapr, "Publish and subscribe to bulk messages").

    Attributes:
        max_messages: most events in one callback.
        max_wait: seconds that an event may wait for others.
    """

    max_messages: int = BULK_MESSAGES
    max_wait: float = BULK_WAIT


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription (Dapr, resource ``Subscription`` and ``GET /dapr/subscribe``).

    Attributes:
        pubsub_name, topic: what is subscribed to.
        default_route: path of the events that no rule takes; ``""``: they are dropped, over gRPC sent without a path.
        rules: (``match``, path) pairs, of which the first that fits is taken; ``""`` matches all.
        dead_letter_topic: of the same component, for what is dropped or fails too often.
        metadata: for the component; ``rawPayload`` is ours.
        bulk: events come several at once.
        scopes: the app ids that it is for; empty: all. Only declared ones have it.
        kind: ``"DECLARATIVE"``, ``"PROGRAMMATIC"`` or ``"STREAMING"``, as ``GetMetadata`` tells it.
    """

    pubsub_name: str
    topic: str
    default_route: str = ""
    rules: tuple[tuple[str, str], ...] = ()
    dead_letter_topic: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    bulk: BulkSubscribe | None = None
    scopes: tuple[str, ...] = ()
    kind: str = "DECLARATIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings:
    """As the options of ``daprd`` of the same names.

    Attributes:
        app_id: the application beside it: the default consumer group, source of its events, and its name for calls.
        namespace: as ``NAMESPACE`` of daprd: what callees are told of the caller, and the second part of ``<app id>.<namespace>``.
        app_host, app_port: where the application listens; port ``None``: it does not, so there are no callbacks.
        app_protocol: ``"http"`` or ``"grpc"``.
        host: where to listen. Whoever reaches it may do all that the application may.
        allowed_hosts: further names under which callers without a token reach it over HTTP; see `RequestGuard`.
        http_port, grpc_port: 0 is a free one; gRPC ``None``: not served.
        api_token: what callers must send as ``dapr-api-token``; ``None``: none is asked for.
        app_token: what is sent to the application as ``dapr-api-token``.
        max_body: bytes of a request's body.
        limits: of one answer that is built in memory.
        timeout: seconds for the application's answer to a call or callback.
        grace: seconds that what is under way has at the end.
        subscriptions: those declared in component files.
        bindings: name → (``"file"`` or ``"database"``, store): which bindings there are.
        timers: bindings that call the application at times.
        components: what ``GetMetadata`` tells; empty: what the client's configuration declares.
        resiliency: policies declared in resource files, of which those for calls of applications are held.
    """

    app_id: str
    namespace: str = "default"
    app_host: str = "127.0.0.1"
    app_port: int | None = None
    app_protocol: str = "http"
    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    http_port: int = 3500
    grpc_port: int | None = 50001
    api_token: str | None = field(default=None, repr=False)
    app_token: str | None = field(default=None, repr=False)
    max_body: int = 4 << 20
    limits: Limits = Limits()
    timeout: float = 60.0
    grace: float = 5.0
    subscriptions: tuple[Subscription, ...] = ()
    bindings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    timers: tuple[CronBinding, ...] = ()
    components: tuple[ComponentInfo, ...] = ()
    resiliency: Resiliency | None = None
