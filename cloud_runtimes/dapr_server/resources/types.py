"""The types of component files: Dapr's names, and ours as ``<kind>.<component>``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode

from ... import registry
from ...errors import CloudRuntimesError
from ...protocols.dapr.documents import go_duration
from . import buckets

__all__ = ["ComponentType", "component_type", "is_true", "known_types", "plain"]

SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "bindings": ("file", "database"),
    "configuration": ("configuration",),
    "lock": ("lock",),
    "pubsub": ("pubsub",),
    "secretstores": ("secret",),
    "state": ("state",),
}
"""The first part of a type → the services of ours that such a component can be of."""
MEMORY: Final = "in-memory"


@dataclass(frozen=True, slots=True)
class ComponentType:
    """What a type stands for.

    Attributes:
        service, component: of ours.
        fields: Dapr's name of a field, as `plain` makes it → our setting and what makes its value of the text.
        memory: in the process.
        format: of a file whose name does not tell it, ``None``: it must be told.
        parts: Dapr's fields that say together where a server is → what they are to `url`.
        url: makes our setting of the same name of them; a `ValueError` tells no value.
        settings: that such a type has unless they are given.
        without_effect: Dapr's fields that are warned of → why they have none.
        refused: those that cannot be had → what to do instead. One that turns something off may be there.
        note: what is other than with Dapr, a warning.
    """

    service: str
    component: str
    fields: Mapping[str, tuple[str, Callable[[str], str]]] = field(default_factory=dict)
    memory: bool = False
    format: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    url: Callable[[Mapping[str, str]], str] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    without_effect: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


_TRUE: Final = frozenset(["1", "on", "t", "true", "y", "yes"])
_FALSE: Final = frozenset(["0", "f", "false", "n", "no", "off"])


def is_true(text: str) -> bool:
    """Read a switch.

    Raises:
        ValueError: it is none.
    """
    lower = text.lower()
    if lower in _TRUE or lower in _FALSE:
        return lower in _TRUE
    raise ValueError("expected true or false")


def plain(name: str) -> str:
    """Return a field's name as it is compared: Dapr does not mind case, and ours have underscores."""
    return name.lower().replace("_", "")


def sqlite_path(text: str) -> str:
    """Return the file of a connection string of SQLite.

    Raises:
        ValueError: it has parameters.
    """
    path = text.removeprefix("file:")
    if path == ":memory:":
        raise ValueError("give a file, or the type with in-memory in its name")
    if "?" in path:
        raise ValueError("give the file without parameters")
    return path


_PAIR: Final = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")


def postgres_url(text: str) -> str:
    """Return the URL of a connection string of PostgreSQL, which is one or ``name=value`` pairs (libpq, "Connection Strings").

    Raises:
        ValueError: neither; the text, which holds the password, is not told.
    """
    if "://" in text:
        scheme, _, rest = text.partition("://")
        return f"postgresql://{rest}" if scheme == "postgres" else text
    values: dict[str, str] = {}
    place = 0
    while place < len(text):
        match = _PAIR.match(text, place)
        if match is None:
            raise ValueError("expected postgresql://user:password@host/name, or name=value pairs")
        value = match[2][1:-1] if match[2].startswith("'") else match[2]
        values[match[1]] = re.sub(r"\\(.)", r"\1", value)
        place = match.end()
    user, password = values.pop("user", ""), values.pop("password", "")
    host, port = values.pop("host", "localhost"), values.pop("port", "5432")
    name = values.pop("dbname", values.pop("database", user))
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = f"?{urlencode(values)}" if values else ""
    return f"postgresql://{who}{'@' if who else ''}{host}:{port}/{quote(name, safe='')}{query}"


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
    return f"{scheme}://{_login(parts)}{','.join(hosts)}{path}{f'?{urlencode(query)}' if query else ''}"


def _login(parts: Mapping[str, str]) -> str:
    user, password = (quote(parts.get(name, ""), safe="") for name in ("user", "password"))
    return f"{user}:{password}@" if password else f"{user}@" if user else ""


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
        url = f"{parts.get('protocol') or 'amqp'}://{_login(parts)}{parts['host']}"
    if beat := parts.get("heartbeat"):
        url += f"{'&' if '?' in url else '?'}heartbeat={round(go_duration(beat))}"
    return url


def _seconds(text: str) -> str:
    return f"{go_duration(text)}"


_POSTGRES: Final = ComponentType(
    "database", "sqlalchemy", {"connectionstring": ("url", postgres_url), "url": ("url", postgres_url)}
)
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
_HELD: Final = "the sidecar holds an event for as long as the application works on it"
_MANY: Final = "the sidecar chooses how many are under way"


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
            **dict.fromkeys(("processingtimeout", "redeliverinterval"), _HELD),
            **dict.fromkeys(("concurrency", "queuedepth"), _MANY),
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
            "ackwait": _HELD,
            "concurrency": _MANY,
            "name": "connections are called cloud-runtimes",
        },
        refused={
            "apiprefix": "give domain, or natsURL of a server of that account",
            **dict.fromkeys(("jwt", "seedkey"), "give credentials, the name of a .creds file"),
            "memorystorage": "leave it out: what is acknowledged is in files",
        },
        note=note,
    )


def kafka_servers(text: str) -> str:
    """Return brokers with their ports."""
    hosts = [host.strip() for host in text.split(",")]
    return ",".join(host if host.rpartition(":")[2].isdecimal() else f"{host}:9092" for host in hosts)


def kafka_mechanism(text: str) -> str:
    """Return the name of a SASL mechanism.

    Raises:
        ValueError: it is none of Dapr's.
    """
    found = {"PLAINTEXT": "PLAIN", "SHA-256": "SCRAM-SHA-256", "SHA-512": "SCRAM-SHA-512"}.get(text.upper())
    if found is None:
        raise ValueError("expected SHA-512, SHA-256 or PLAINTEXT")
    return found


def _negated(text: str) -> str:
    return "false" if is_true(text) else "true"


_KAFKA: Final = ComponentType(
    "pubsub",
    "kafka",
    {
        "brokers": ("servers", kafka_servers),
        "disabletls": ("tls", _negated),
        "saslmechanism": ("mechanism", kafka_mechanism),
        "saslpassword": ("password", str),
        "saslusername": ("username", str),
    },
    settings={"ensure": "create"},
    without_effect={
        **dict.fromkeys(
            [
                "channelbuffersize",
                "clientconnectionkeepaliveinterval",
                "clientconnectiontopicmetadatarefreshinterval",
                "clientid",
                "consumerfetchdefault",
                "consumerfetchmin",
                "heartbeatinterval",
                "maxmessagebytes",
                "version",
            ],
            "librdkafka has values of its own: give options in a table of the configuration",
        ),
        **dict.fromkeys(("consumeretryenabled", "consumeretryinterval"), "an event that failed comes again"),
        "authtype": "saslUsername and tls say how the client logs in",
        "initialoffset": "a new group begins where the subscription says",
        "sessiontimeout": "give session_timeout",
    },
    refused={
        **dict.fromkeys(("consumergroup", "consumerid"), "the consumer group is the app id: start with that --app-id"),
        **dict.fromkeys(
            ("cacert", "clientcert", "clientkey"), "give tls_ca, tls_certificate and tls_key, the names of files"
        ),
        **dict.fromkeys(("oidcclientid", "oidctokenendpoint", "awsregion"), "give saslUsername and saslPassword"),
        "skipverify": "give tls_ca",
    },
)
_RABBITMQ: Final = ComponentType(
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
        **dict.fromkeys(("concurrency", "concurrencymode", "prefetchcount"), _MANY),
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
)  # fmt: skip


def _no_prefix(text: str) -> str:
    if is_true(text):
        raise ValueError("leave it out")
    return ""


_VAULT: Final = ComponentType(
    "secret",
    "vault",
    {
        "cacert": ("ca_file", str),
        "enginepath": ("mount", str),
        "vaultaddr": ("url", str),
        "vaultkvprefix": ("path", str),
        "vaultkvuseprefix": ("path", _no_prefix),
        "vaulttoken": ("token", str),
        "vaulttokenmountpath": ("token_file", str),
    },
    settings={"path": "dapr"},
    refused={
        **dict.fromkeys(("capath", "capem"), "give caCert, the name of a file"),
        "skipverify": "give caCert, by which the server's certificate is checked",
        "tlsservername": "let vaultAddr have the name of the certificate",
        "vaultvaluetype": "leave it out: a secret has its entries",
    },
)

_DAPR: Final[Mapping[str, ComponentType]] = {
    "bindings.aws.s3": ComponentType(
        "file",
        "objectstore",
        buckets.FIELDS,
        parts=buckets.PARTS,
        url=buckets.s3_url,
        without_effect=buckets.WITHOUT_EFFECT,
        refused=buckets.REFUSED,
        note=buckets.NOTE,
    ),
    "bindings.localstorage": ComponentType("file", "local", {"rootpath": ("path", str)}),
    "bindings.postgres": _POSTGRES,
    "bindings.postgresql": _POSTGRES,
    "configuration.redis": _redis(
        "configuration", "it has what client.configuration saves, and not the keys that others set in this Redis"
    ),
    "lock.redis": _redis("lock", "locks that daprd has in this Redis are others: let no daprd use them meanwhile"),
    "pubsub.jetstream": _jetstream("pubsub", "it has streams of its own, which daprd neither reads nor writes"),
    "pubsub.kafka": _KAFKA,
    "pubsub.rabbitmq": _RABBITMQ,
    "pubsub.redis": _redis(
        "pubsub",
        fields={"streamttl": ("retention", _seconds)},
        consumerid="the consumer group is the app id: leave it out, or start with that --app-id",
    ),
    "secretstores.hashicorp.vault": _VAULT,
    "secretstores.local.env": ComponentType("secret", "env"),
    "secretstores.local.file": ComponentType(
        "secret",
        "config_file",
        {
            "secretsfile": ("path", str),
            "nestedseparator": ("separator", str),
            "multivalued": ("multi_valued", str),
        },
        format="json",
    ),
    "state.jetstream": _jetstream("state", "it has a bucket of its own, which daprd neither reads nor writes"),
    "state.redis": _redis("state", ttlinseconds="give it with each save"),
    "state.sqlite": ComponentType("state", "sqlite", {"connectionstring": ("path", sqlite_path)}),
}


def component_type(name: str) -> ComponentType | None:
    """Return what a type stands for; ``None``: there is no such one."""
    known = _DAPR.get(name)
    if known is not None:
        return known
    kind, _, component = name.partition(".")
    services = SERVICES.get(kind, ())
    if component == MEMORY:
        made = _of("sqlite", services)
        return made and ComponentType(made.service, made.component, memory=True)
    return _of(component, services)


def _of(component: str, services: tuple[str, ...]) -> ComponentType | None:
    if not services:
        return None
    try:
        there = registry.find(registry.COMPONENTS, component).services
    except CloudRuntimesError:
        return None
    service = next((each for each in services if each in there), None)
    return None if service is None else ComponentType(service, component)


def known_types() -> list[str]:
    """List the types there are; components whose packages are missing are left out."""
    found = set(_DAPR)
    for kind, services in SERVICES.items():
        for component in (*registry.names(registry.COMPONENTS), MEMORY):
            if component_type(f"{kind}.{component}") is not None and services:
                found.add(f"{kind}.{component}")
    return sorted(found)
