"""``layout = "dapr"`` beside Dapr: the other side sends the commands and scripts of components-contrib (`state/redis`, `pubsub/redis`), by redis-py, which `native` gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError, InvalidArgumentError, UnsupportedError
from cloud_runtimes.testing import Api
from tests.support.harnesses.redis import DaprHome
from tests.support.ports import free_port
from tests.support.redis import Serve
from tests.support.waiting import until

# Of Dapr's state/redis/redis.go, but for white space: setDefaultQuery and delDefaultQuery
SET = """
    local etag = redis.pcall("HGET", KEYS[1], "version");
    if type(etag) == "table" then
      redis.call("DEL", KEYS[1]);
    end;
    local fwr = redis.pcall("HGET", KEYS[1], "first-write");
    if not etag or type(etag)=="table" or etag == "" or etag == ARGV[1] or (not fwr and ARGV[1] == "0") then
      redis.call("HSET", KEYS[1], "data", ARGV[2]);
      if ARGV[3] == "0" then
        redis.call("HSET", KEYS[1], "first-write", 0);
      end;
      return redis.call("HINCRBY", KEYS[1], "version", 1)
    else
      return error("failed to set key " .. KEYS[1])
    end"""
DELETE = """
    local etag = redis.pcall("HGET", KEYS[1], "version");
    if not etag or type(etag)=="table" or etag == ARGV[1] or etag == "" or ARGV[1] == "0" then
      return redis.call("DEL", KEYS[1])
    else
      return error("failed to delete " .. KEYS[1])
    end"""


class Dapr:
    """Commands that a sidecar of Dapr sends for the application ``shop``."""

    def __init__(self, connection: redis.Redis) -> None:
        self.redis = connection

    def set(self, key: str, data: bytes, etag: str = "0", *, first: bool = False, ttl: int | None = None) -> None:
        self.redis.eval(SET, 1, f"shop||{key}", etag, data, 0 if first else 1)  # type: ignore[no-untyped-call]
        if ttl is not None:
            self.redis.execute_command("EXPIRE", f"shop||{key}", ttl)  # type: ignore[no-untyped-call]

    def get(self, key: str) -> tuple[bytes, str] | None:
        fields: Any = self.redis.hgetall(f"shop||{key}")
        return (fields[b"data"], fields[b"version"].decode()) if fields else None

    def delete(self, key: str, etag: str = "0") -> None:
        self.redis.eval(DELETE, 1, f"shop||{key}", etag)  # type: ignore[no-untyped-call]

    def publish(self, topic: str, event: bytes) -> None:
        self.redis.xadd(topic, {"data": event, "metadata": b'{"ttlInSeconds":"60"}'})

    def read(self, topic: str) -> list[bytes]:
        """Return the events that are new for the group ``shop``, and acknowledge them."""
        with suppress(redis.ResponseError):  # it exists
            self.redis.xgroup_create(topic, "shop", "0", mkstream=True)
        reply: Any = self.redis.xreadgroup("shop", "shop", {topic: ">"}, count=100)
        entries = [each for _, each in reply.items()] if isinstance(reply, dict) else [each for _, each in reply]
        events = []
        for id, fields in [entry for part in entries for entry in _flat(part)]:
            events.append(fields[b"data"])
            assert self.redis.xack(topic, "shop", id) == 1
        return events


def _flat(part: Any) -> list[Any]:
    """Return the entries of a stream: RESP3 nests them once more."""
    return part[0] if part and isinstance(part[0], list) else part


def event(number: int, id: str) -> bytes:
    """Return the event that Dapr makes of a publication."""
    return json.dumps(
        {
            "id": id, "source": "shop", "specversion": "1.0", "type": "com.dapr.event.sent", "topic": "orders",
            "pubsubname": "bus", "datacontenttype": "application/json", "data": {"n": number}, "traceid": "00-1-2-01",
        }
    ).encode()  # fmt: skip


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[DaprHome]:
    harness = DaprHome(request.getfixturevalue(f"{request.param}_server"))
    yield harness
    harness.close()


@pytest.fixture
def client(home: DaprHome) -> CloudRuntimesClient:
    home.more = {}
    return home.client(app_id="shop")


@pytest.fixture
def dapr(client: CloudRuntimesClient) -> Iterator[Dapr]:
    with client.native("state", "orders") as connection:
        yield Dapr(connection)


def test_a_store_is_shared(client: CloudRuntimesClient, dapr: Dapr, api: Api) -> None:
    def call(method: str, *rest: Any, **more: Any) -> Any:
        return api.call(client.state, method, "orders", *rest, **more)

    dapr.set("theirs", b'{"total": 10}')
    item = call("get_item", "theirs")
    assert (item.value, item.etag, item.content_type) == ({"total": 10}, "1", "application/json")
    call("save", "theirs", {"total": 11}, etag="1")
    data, etag = dapr.get("theirs") or (b"", "")
    assert json.loads(data) == {"total": 11}
    with pytest.raises(redis.ResponseError, match="failed to set"):
        dapr.set("theirs", b"12", "1")
    dapr.set("theirs", b"12", etag)
    with pytest.raises(ConflictError):
        call("save", "theirs", 13, etag=etag)
    assert call("get", "theirs") == 12

    call("save", "ours", b"\x00\xff", content_type="application/pdf")
    assert (dapr.get("ours") or (None,))[0] == b"\x00\xff"
    assert call("get_item", "ours").content_type == "application/pdf"
    dapr.set("ours", b'"text"')
    assert call("get", "ours") == "text", "the content type was that of an older value"
    dapr.set("ours", b"\xff")
    assert call("get", "ours") == b"\xff"
    with pytest.raises(redis.ResponseError, match="failed to delete"):
        dapr.delete("ours", "77")
    call("delete", "ours", etag=(dapr.get("ours") or (b"", ""))[1])
    assert dapr.get("ours") is None

    old = call("get_item", "theirs").etag
    dapr.delete("theirs")
    call("save", "theirs", 1)
    assert int(call("get_item", "theirs").etag) > int(old), "no etag comes again"
    assert sorted(call("get_bulk", ["theirs", "ours", "none"])) == ["theirs"]


def test_expiry_is_shared(client: CloudRuntimesClient, dapr: Dapr, home: DaprHome) -> None:
    dapr.set("k", b"1", ttl=50)
    item = client.state.get_item("orders", "k")
    assert item is not None
    assert 30 < (item.ttl or 0) <= 50
    client.state.save("orders", "ours", 1, ttl=50)
    client.state.save("orders", "k", 2)  # for ever
    assert 30 < dapr.redis.ttl("shop||ours") <= 50
    assert dapr.redis.ttl("shop||k") == -1
    home.advance(51)
    assert (dapr.get("ours"), client.state.get("orders", "ours"), client.state.get("orders", "k")) == (None, None, 2)


def test_who_creates_is_respected(client: CloudRuntimesClient, dapr: Dapr) -> None:
    client.state.save("orders", "k", 1, concurrency="first-write")
    for etag in ("0", "7"):
        with pytest.raises(redis.ResponseError, match="failed to set"):
            dapr.set("k", b"2", etag, first=True)
    dapr.set("other", b"1", first=True)
    with pytest.raises(ConflictError, match="exists"):
        client.state.save("orders", "other", 2, concurrency="first-write")
    client.state.save("orders", "other", 3)
    assert (dapr.get("other") or (None,))[0] == b"3"


def test_transactions(client: CloudRuntimesClient, dapr: Dapr) -> None:
    dapr.set("a", b"1")
    with pytest.raises(ConflictError), client.state.transaction("orders") as tx:
        tx.save("b", 1)
        tx.delete("a", etag="9")
    assert dapr.get("b") is None
    with client.state.transaction("orders") as tx:
        tx.delete("a", etag="1")
        tx.save("a", 2)
        tx.save("b", 3, ttl=60)
    assert [(dapr.get(key) or (None,))[0] for key in "ab"] == [b"2", b"3"]


def test_what_this_layout_lacks_is_refused(home: DaprHome, client: CloudRuntimesClient, dapr: Dapr) -> None:
    with pytest.raises(UnsupportedError, match="fence"):
        client.state.save("orders", "k", 1, fence=1)
    with pytest.raises(UnsupportedError, match="list_keys"):
        client.state.list_keys("orders")
    with pytest.raises(UnsupportedError, match=r"Dapr's have no token.*layout = \"event\""):
        client.lock.try_lock("locks", "r")
    with pytest.raises(UnsupportedError, match="without changes"):
        client.configuration.get_configuration("settings", ["k"])
    assert dapr.redis.keys() == []
    for key_prefix in ("", "a||b"):
        with pytest.raises(InvalidArgumentError, match="key_prefix"):
            home.more = {"key_prefix": key_prefix}
            home.client().state.get("orders", "k")


@pytest.mark.parametrize(
    ("key_prefix", "key"), [("appid", "shop||k"), ("name", "orders||k"), ("none", "k"), ("mine", "mine||k")]
)
def test_prefixes(home: DaprHome, client: CloudRuntimesClient, dapr: Dapr, key_prefix: str, key: str) -> None:
    home.more = {"key_prefix": key_prefix}
    home.client(app_id="shop").state.save("orders", "k", 1)
    assert dapr.redis.keys() == [key.encode()]


def test_topics_are_shared(client: CloudRuntimesClient, dapr: Dapr, api: Api) -> None:
    dapr.publish("orders", event(1, "theirs"))
    subscription = api.call(client.pubsub, "subscribe", "bus", "orders", group="audit", start="earliest")
    got = api.call(subscription, "receive", 5.0)
    assert (got.id, got.source, got.data, got.type) == ("theirs", "shop", {"n": 1}, "com.dapr.event.sent")
    got.retry(0.01)
    again = api.call(subscription, "receive", 5.0)
    assert (again.id, again.delivery_count) == ("theirs", 2)
    again.ack()

    api.call(client.pubsub, "publish", "bus", "orders", {"n": 2})
    api.call(client.pubsub, "publish", "bus", "orders", {"n": 3}, delay=0.01)
    got = [api.call(subscription, "receive", 5.0) for _ in range(2)]
    assert sorted(each.data["n"] for each in got) == [2, 3]
    first, *rest = [json.loads(each) for each in dapr.read("orders")]
    assert first["id"] == "theirs", "what is to come again for one group is nobody else's"
    assert sorted(each["data"]["n"] for each in rest) == [2, 3]
    assert {(each["specversion"], each["datacontenttype"], each["source"]) for each in rest} == {
        ("1.0", "application/json", "shop")
    }
    assert dapr.read("orders") == []
    api.call(subscription, "close")


def test_a_group_is_shared(client: CloudRuntimesClient, dapr: Dapr, home: DaprHome) -> None:
    """Events that a sidecar took and did not acknowledge before it died come to us."""
    for number in range(4):
        dapr.publish("orders", event(number, str(number)))
    dapr.redis.xgroup_create("orders", "shop", "0")
    dapr.redis.xreadgroup("shop", "shop", {"orders": ">"}, count=2)
    home.advance(31)
    deliveries: dict[str, int | None] = {}
    with client.pubsub.subscribe("bus", "orders", ack_wait=30) as subscription:
        while len(deliveries) < 4:
            got = subscription.receive(5.0)
            assert got is not None
            deliveries[got.id] = got.delivery_count
            got.ack()
    assert deliveries == {"0": 2, "1": 2, "2": 1, "3": 1}
    summary: Any = dapr.redis.xpending("orders", "shop")
    assert summary["pending"] == 0


def test_dead_letters_are_where_dapr_looks(client: CloudRuntimesClient, dapr: Dapr) -> None:
    dapr.publish("orders", event(1, "bad"))
    options: dict[str, Any] = {"start": "earliest", "max_deliveries": 1, "dead_letter_topic": "poison"}
    with client.pubsub.subscribe("bus", "orders", group="g", **options) as subscription:
        got = subscription.receive(5.0)
        assert got is not None
        got.retry()
        assert subscription.receive(0.2) is None
    (letter,) = dapr.read("poison")
    assert (json.loads(letter)["id"], json.loads(letter)["data"]) == ("bad", {"n": 1})


def test_a_cluster_must_be_named(served: Serve) -> None:
    server = served(cluster_enabled="yes", cluster_port=free_port())
    assert server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"+OK\r\n"
    server.advance(2.5)  # a master that starts waits for 2 s
    until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
    home = {"url": server.url, "layout": "dapr"}
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": home}}) as client:
        with pytest.raises(UnsupportedError, match=r"redis\+cluster://"), client.state.transaction("orders") as tx:
            tx.save("a", 1)
            tx.save("b", 2)
        assert client.state.get("orders", "a") is None
