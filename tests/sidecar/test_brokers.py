"""Component files of Dapr's types on Redis and NATS, beside real servers: settings, secrets, and data where daprd has it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from cloud_runtimes.components.nats import NatsComponent
from cloud_runtimes.dapr_server.resources import load
from cloud_runtimes.dapr_server.resources.engines.nats import nats_url
from cloud_runtimes.dapr_server.resources.engines.rabbitmq import rabbitmq_url as make_rabbitmq_url
from cloud_runtimes.dapr_server.resources.engines.redis import redis_url
from cloud_runtimes.dapr_server.resources.engines.stores import etcd_url
from cloud_runtimes.errors import InvalidArgumentError
from tests.sidecar.raw import send
from tests.sidecar.test_resources import SUBSCRIPTION, component, open_client, refusal, write
from tests.support.apps import App, Got, Reply
from tests.support.etcd import EtcdServer
from tests.support.nats import serve as serve_nats
from tests.support.needs import present
from tests.support.redis import RedisServer, serve
from tests.support.running import serving
from tests.support.waiting import until

PASSWORD = "hunter2-canary"
SECRETS = component("vault", "secretstores.local.file", "{name: secretsFile, value: secrets.json}")
REFERENCE = "{name: redisPassword, secretKeyRef: {name: redis, key: redis}}"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets.json").write_text(f'{{"redis": "{PASSWORD}"}}')
    return tmp_path


def item(name: str, value: object) -> str:
    return f"{{name: {name}, value: {value}}}"


def test_a_file_of_daprs_serves_the_data_that_daprd_has(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve("valkey", requirepass=PASSWORD) as server:
        monkeypatch.setenv("REDIS_HOST", f"127.0.0.1:{server.port}")
        metadata = ["{name: redisHost, envRef: REDIS_HOST}", REFERENCE, item("redisDB", 3), item("dialTimeout", "5s")]
        bus = [item("redeliverInterval", "15s"), item("streamTTL", "1h30m"), item("consumerID", "app")]
        loaded = load(
            write(
                files,
                SECRETS,
                *[component(*each, more="auth: {secretStore: vault}") for each in (
                    ("orders", "state.redis", *metadata),
                    ("mine", "state.redis", *metadata, item("keyPrefix", "Name")),
                    ("bus", "pubsub.redis", *metadata, *bus),
                    ("locks", "lock.redis", *metadata, item("keyPrefix", "none")),
                    ("settings", "configuration.redis", *metadata),
                )],
            ),
            "app",
        )  # fmt: skip
        assert [
            warning.split("': ")[-1].split(": ", 1)[-1] for warning in loaded.warnings if "metadata" not in warning
        ] == [
            "locks that daprd has in this Redis are others: let no daprd use them meanwhile",
            "it has what client.configuration saves, and not the keys that others set in this Redis",
        ]
        assert sum("'dialTimeout' has no effect" in warning for warning in loaded.warnings) == 5
        assert sum("the sidecar holds an event" in warning for warning in loaded.warnings) == 1
        assert sum("'keyPrefix' has no effect: keys begin with prefix" in warning for warning in loaded.warnings) == 1
        assert PASSWORD not in repr(loaded)
        assert loaded.config["pubsub"]["bus"]["retention"] == 5400
        capabilities = {each.name: each.capabilities for each in loaded.components}
        assert capabilities["orders"] == ("ETAG", "TRANSACTIONAL", "TTL")
        with serving(dict(loaded.config)) as one, redis.Redis(port=server.port, password=PASSWORD, db=3) as native:
            native.hset("app||theirs", mapping={"data": '{"a":1}', "version": "4"})
            assert send(one.http_address, "GET", "/v1.0/state/orders/theirs").json == {"a": 1}
            for store in ("orders", "mine"):
                assert (
                    send(one.http_address, "POST", f"/v1.0/state/{store}", [{"key": "k", "value": store}]).status == 204
                )
            assert native.hget("app||k", "data") == b'"orders"'
            assert native.hget("mine||k", "data") == b'"mine"'
            assert send(one.http_address, "POST", "/v1.0/publish/bus/news", {"n": 1}).status == 204
            ((_, fields),) = native.xrange("news")  # type: ignore[misc]
            assert b'"specversion":"1.0"' in fields[b"data"]
            lock = {"resourceId": "r", "lockOwner": "me", "expiryInSeconds": 60}
            assert send(one.http_address, "POST", "/v1.0-alpha1/lock/locks", lock).json == {"success": True}
            assert send(one.http_address, "GET", "/v1.0/configuration/settings").status == 204


def test_an_application_gets_what_daprs_publish(files: Path) -> None:
    """The group is the app id, which is daprd's ``consumerID`` too; it begins where daprd's group would."""
    with ExitStack() as resources:
        server = resources.enter_context(serve("valkey"))
        host = item("redisHost", f"127.0.0.1:{server.port}")
        subscription = SUBSCRIPTION.format(version="v2alpha1", spec="  routes: {default: /news}").replace("shop", "app")
        loaded = load(write(files, component("bus", "pubsub.redis", host), subscription), "app")
        native = resources.enter_context(redis.Redis(port=server.port))
        event = {"id": "1", "specversion": "1.0", "type": "com.dapr.event.sent", "source": "other", "data": {"n": 1}}
        native.xadd("orders", {"data": json.dumps(event), "metadata": "{}"})
        got: list[Got] = []

        def answer(request: Got) -> Reply | None:
            got.append(request)
            return None

        app = resources.enter_context(App(answer=answer))
        settings = {"app_port": app.port, "subscriptions": loaded.subscriptions, "components": loaded.components}
        one = resources.enter_context(serving(dict(loaded.config), **settings))
        assert send(one.http_address, "POST", "/v1.0/publish/bus/orders", {"n": 2}).status == 204
        until(lambda: len([each for each in got if each.path == "/news"]) == 2)
        bodies = [json.loads(each.body) for each in got if each.path == "/news"]
        assert sorted(each["data"]["n"] for each in bodies) == [1, 2]
        assert "1" in {each["id"] for each in bodies}
        (group,) = cast("list[dict[str, Any]]", native.xinfo_groups("orders"))
        assert group["name"] == b"app"


def test_nats(files: Path) -> None:
    with ExitStack() as resources:
        server = resources.enter_context(present(serve_nats(authorization={"token": PASSWORD})))
        (files / "secrets.json").write_text(f'{{"nats": "{PASSWORD}"}}')
        token = "{name: token, secretKeyRef: {name: nats, key: nats}}"
        metadata = [item("natsURL", server.url), token, item("name", "shop")]
        events = [item("durableName", "shop"), item("ackWait", "30s")]
        documents = [
            component(
                "orders", "state.jetstream", *metadata, item("bucket", "orders"), more="auth: {secretStore: vault}"
            )
        ]
        if "pubsub" in NatsComponent.services:
            documents.append(
                component("bus", "pubsub.jetstream", *metadata, *events, more="auth: {secretStore: vault}")
            )
        loaded = load(write(files, SECRETS, *documents), "app")
        assert any("a bucket of its own, which daprd neither" in warning for warning in loaded.warnings)
        assert any("'bucket' has no effect: streams and buckets have names" in warning for warning in loaded.warnings)
        with open_client(loaded) as client:
            client.state.save("orders", "k", 1)
            assert client.state.get("orders", "k") == 1
            if "bus" in loaded.config.get("pubsub", {}):
                with client.pubsub.subscribe("bus", "news", start="earliest") as subscription:
                    client.pubsub.publish("bus", "news", 1)
                    event = subscription.receive(5.0)
                    assert event is not None
                    assert event.data == 1


def test_etcd(files: Path, etcd_server: EtcdServer) -> None:
    where = etcd_server.url.replace("etcd://", "http://")
    metadata = [
        item("endpoints", f'"{where}, {where}/"'),
        item("keyPrefixPath", '"dapr/app/"'),
        item("tlsEnable", "false"),
    ]
    for version in ("v1", "v2"):
        loaded = load(
            write(files, component("orders", "state.etcd", *metadata).replace("version: v1", f"version: {version}")),
            "app",
        )
        assert any("keys of its own, which daprd neither" in warning for warning in loaded.warnings)
        assert loaded.config["state"]["orders"]["prefix"] == "dapr/app"
        with open_client(loaded) as client:
            client.state.save("orders", "k", version)
            assert client.state.get("orders", "k") == version


def test_kafka(files: Path) -> None:
    metadata = [item("brokers", '"a, b:9093"'), item("saslUsername", "u"), item("saslPassword", PASSWORD)]
    more = [item("saslMechanism", "SHA-256"), item("disableTls", "true"), item("authType", "password")]
    loaded = load(write(files, component("bus", "pubsub.kafka", *metadata, *more)), "app")
    assert any("'authType' has no effect" in warning for warning in loaded.warnings)
    table = loaded.config["pubsub"]["bus"]
    assert (table["servers"], table["mechanism"], table["ensure"]) == ("a:9092,b:9093", "SCRAM-SHA-256", "create")
    assert table["tls"] in (False, "false")


def test_rabbitmq(files: Path, rabbitmq_url: str) -> None:
    """Its exchanges are those of daprd: fanout, durable, called as the topic."""
    (files / "secrets.json").write_text(json.dumps({"rabbit": rabbitmq_url}))
    url = "{name: connectionString, secretKeyRef: {name: rabbit, key: rabbit}}"
    metadata = [url, item("heartBeat", "10s"), item("prefetchCount", 10), item("exchangeKind", "fanout")]
    bus = component("bus", "pubsub.rabbitmq", *metadata, more="auth: {secretStore: vault}")
    resources = load(write(files, SECRETS, bus), f"app-{os.getpid()}")
    assert any("its exchanges are those of daprd" in warning for warning in resources.warnings)
    assert any("'prefetchCount' has no effect: the sidecar chooses" in warning for warning in resources.warnings)
    topic = f"news-{os.getpid()}"
    with open_client(resources) as client, client.pubsub.subscribe("bus", topic) as subscription:
        client.pubsub.publish("bus", topic, 1)
        event = subscription.receive(10.0)
        assert event is not None
        assert event.data == 1
        event.ack()


def test_settings_of_ours_go_with_daprs_types(files: Path, valkey_server: RedisServer) -> None:
    host = item("redisHost", f"127.0.0.1:{valkey_server.port}")
    url = item("url", valkey_server.url)
    resources = load(write(files, component("a", "state.redis", host, item("layout", "event"), item("prefix", "mine")),
                           component("b", "lock.redis", url)), "shop")  # fmt: skip
    assert resources.warnings == ()
    with open_client(resources) as client:
        client.state.save("a", "k", 1, fence=1)
        assert client.state.list_keys("a") == ["k"]
        assert client.lock.try_lock("b", "r") is not None


PLAIN = item("redisHost", "a")


@pytest.mark.parametrize(
    ("kind", "metadata", "message"),
    [
        ("state.redis", [], "redisHost: give host:port"),
        ("state.redis", [item("redisHost", "a"), item("url", "redis://a")], "give url or Dapr's own fields, not both"),
        ("state.redis", [item("redisHost", "u@a")], "redisHost: give host:port"),
        ("state.redis", [item("redisHost", '"a:1"'), item("redisPort", 2)], "redisHost has a port, and redisPort another"),
        ("state.redis", [item("redisHost", '"a,b"')], "several hosts: give redisType cluster, or failover"),
        ("state.redis", [PLAIN, item("failover", "true")], "failover needs sentinelMasterName"),
        ("state.redis", [PLAIN, item("redisType", "ring")], "redisType: give node or cluster"),
        ("state.redis", [PLAIN, item("redisDB", "x")], "redisDB: expected a number"),
        ("state.redis", [PLAIN, item("enableTLS", "maybe")], "expected true or false"),
        ("state.redis", [PLAIN, item("ttlInSeconds", 60)], "'ttlInSeconds': give it with each save"),
        ("state.redis", [PLAIN, item("useEntraID", "true")], "'useEntraID': give redisUsername and redisPassword"),
        ("state.redis", [PLAIN, item("clientCert", "PEM")], "'clientCert': give a url with ssl_certfile"),
        ("state.redis", [PLAIN, item("keyPrefix", '"a||b"')], "text without ||"),
        ("lock.redis", [PLAIN, item("layout", "dapr")], "Dapr's have no token"),
        ("pubsub.redis", [PLAIN, item("consumerID", "other")], "the consumer group is the app id"),
        ("pubsub.redis", [PLAIN, item("streamTTL", "soon")], "expected a duration such as 500ms"),
        ("pubsub.kafka", [item("brokers", "a"), item("saslMechanism", "MD5")], "expected SHA-512, SHA-256 or PLAINTEXT"),
        ("pubsub.kafka", [item("brokers", "a"), item("caCert", "PEM")], "'caCert': give tls_ca"),
        ("pubsub.kafka", [item("brokers", "a"), item("consumerGroup", "g")], "the consumer group is the app id"),
        ("pubsub.rabbitmq", [], "give metadata connectionString"),
        ("pubsub.rabbitmq", [item("hostname", "a"), item("exchangeKind", "topic")], "exchangeKind: topics are exchanges of the kind fanout"),
        ("pubsub.rabbitmq", [item("hostname", "a"), item("maxLen", 5)], "'maxLen': set a policy"),
        ("pubsub.rabbitmq", [item("hostname", "a"), item("quorum", "x")], "unknown metadata"),
        ("state.etcd", [], "give metadata endpoints"),
        ("state.etcd", [item("endpoints", "a"), item("tlsEnable", "maybe")], "expected true or false"),
        ("state.etcd", [item("endpoints", "a"), item("cert", "PEM")], "'cert': give tls_certificate, the name of a file"),
        ("state.jetstream", [], "give metadata natsURL"),
        ("state.jetstream", [item("natsURL", "nats://u:p@a"), item("token", "t")], "natsURL has a user, and there is a token"),
        ("state.jetstream", [item("natsURL", "nats://a"), item("apiPrefix", "hub")], "give domain, or natsURL of a server of that account"),
        ("state.jetstream", [item("natsURL", "nats://a"), item("tls_client_cert", "c.pem")], "tls_certificate and tls_key together"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, kind: str, metadata: list[str], message: str) -> None:
    assert message in refusal(tmp_path, component("c", kind, *metadata))


def test_what_asks_for_nothing_may_be_there(tmp_path: Path) -> None:
    metadata = [PLAIN, item("ttlInSeconds", -1), item("useEntraID", "false"), item("redisPassword", '""')]
    resources = load(write(tmp_path, component("c", "state.redis", *metadata)), "shop")
    assert resources.warnings == ()
    assert resources.config["state"]["c"]["url"] == "redis://a:6379/0"


@pytest.mark.parametrize(
    ("make", "parts", "url"),
    [
        (redis_url, {"host": "a", "user": "me", "password": "p@s/"}, "redis://me:p%40s%2F@a:6379/0"),
        (redis_url, {"host": "[::1]:7000", "tls": "true", "database": "2"}, "rediss://[::1]:7000/2"),
        (redis_url, {"host": "a", "tls": "1", "insecure": "yes", "port": "1"}, "rediss://a:1/0?ssl_cert_reqs=none"),
        (redis_url, {"host": "a:1, b", "type": "cluster"}, "redis+cluster://a:1,b:6379/0"),
        (
            redis_url,
            {"host": "a,b:26379", "failover": "true", "master": "my/one", "sentinel_password": "x&y", "tls": "t"},
            "rediss+sentinel://a:6379,b:26379/my%2Fone/0?sentinel_password=x%26y",
        ),
        (make_rabbitmq_url, {"host": "a:1", "user": "me", "password": "p@/"}, "amqp://me:p%40%2F@a:1"),
        (
            make_rabbitmq_url,
            {"url": "amqps://a/v?verify=verify_none", "heartbeat": "1m"},
            "amqps://a/v?verify=verify_none&heartbeat=60",
        ),
        (etcd_url, {"endpoints": "https://a:2379, b"}, "etcd://a:2379,b"),
        (etcd_url, {"endpoints": "a", "tls": "true"}, "etcds://a"),
        (nats_url, {"url": "a:4222,b:4222"}, "nats://a:4222,b:4222"),
        (nats_url, {"url": "tls://a:4222,tls://b:4222", "token": "s/x"}, "tls://s%2Fx@a:4222,tls://b:4222"),
    ],
)
def test_urls(make: Callable[[Any], str], parts: dict[str, str], url: str) -> None:
    assert make(parts) == url


def test_no_value_is_told(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, component("c", "state.redis", item("redisHost", f"{PASSWORD}@"), item("redisDB", PASSWORD))
    )
    assert PASSWORD not in message


def test_namespaces_are_prefixes(tmp_path: Path) -> None:
    for namespace, expected in (("prod", "prod.Shop"), ("", "appid")):
        file = write(tmp_path, component("c", "state.redis", PLAIN, item("keyPrefix", "namespace")))
        resources = load(file, "Shop", namespace)
        assert resources.config["state"]["c"]["key_prefix"] == expected
    with pytest.raises(InvalidArgumentError, match="unknown metadata"):
        load(write(tmp_path, component("c", "state.redis", PLAIN, item("redisSentinel", "x"))), "shop")
