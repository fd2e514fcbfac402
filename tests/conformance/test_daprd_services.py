"""The runtime dapr over a real daprd, whose binary the variable ``DAPRD`` names: what the suites do not ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ComponentNotFoundError, LeaseLostError, UnsupportedError
from cloud_runtimes.lock import UnlockStatus
from cloud_runtimes.testing import Api
from tests.support.daprd import Beneath, redis_call
from tests.support.harnesses.daprd import DAPRD, DaprdGrpc, DaprdHttp

pytestmark = pytest.mark.process
if not os.environ.get("DAPRD"):
    pytest.skip("DAPRD names no daprd", allow_module_level=True)
SOON = 20.0


@pytest.fixture(params=sorted(DAPRD))
def client(request: pytest.FixtureRequest, daprd: Beneath) -> Iterator[CloudRuntimesClient]:
    harness = DAPRD[request.param](daprd)
    yield harness.client()
    harness.close()


@pytest.fixture
def over_grpc(daprd: Beneath) -> Iterator[CloudRuntimesClient]:
    harness = DaprdGrpc(daprd)
    yield harness.client()
    harness.close()


@pytest.fixture
def redis(daprd: Beneath) -> int:
    if daprd.redis is None:
        pytest.skip("there is no redis-server")
    return daprd.redis


def test_ready(client: CloudRuntimesClient, api: Api) -> None:
    api.call(client, "wait_ready")


def test_no_such_component(client: CloudRuntimesClient, api: Api) -> None:
    for service, method, *arguments in (
        ("state", "get", "none", "k"),
        ("state", "save", "none", "k", 1),
        ("pubsub", "publish", "none", "t", 1),
        ("pubsub", "publish_bulk", "none", "t", [1, 2]),
        ("secret", "get_secret", "none", "k"),
        ("secret", "get_bulk_secret", "none"),
    ):
        with pytest.raises(ComponentNotFoundError):
            api.call(getattr(client, service), method, *arguments)


def test_no_such_pubsub_to_subscribe_to(over_grpc: CloudRuntimesClient, api: Api) -> None:
    with pytest.raises(ComponentNotFoundError):
        api.call(over_grpc.pubsub, "subscribe", "none", "t")


def test_events(client: CloudRuntimesClient, over_grpc: CloudRuntimesClient, api: Api) -> None:
    sent = [b"", b"\x00\xff", 1, 2**63 - 1, 0.1, 1e300, 2.0, None, "", "text", "ünïcødé", {"a": [1.5, None]}, [1, True]]
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = {
        "id": "mine",
        "subject": "s",
        "time": "2025-01-15T09:30:12Z",
        "level": 7,
        "urgent": True,
        "traceparent": trace,
    }
    events: list[Any] = []
    # by a handler, since publishing to daprd's memory waits for the answers to what came before
    handler = api.handler(events.append)
    topic = f"t-{client._context.runtime().transport.exact}-{api.name}"
    with api.opened(api.call(over_grpc.pubsub, "subscribe", "bus", topic, handler)):
        for value in sent:
            api.call(client.pubsub, "publish", "bus", topic, value)
        api.call(client.pubsub, "publish_bulk", "bus", topic, sent)
        api.call(client.pubsub, "publish", "bus", topic, "x", key="k", attributes=given)
        assert api.until(lambda: len(events) >= 2 * len(sent) + 1)
    # daprd's memory delivers while it is published, in no order
    by_key = sorted((event.data for event in events if event.id != "mine"), key=repr)
    assert by_key == sorted([*sent, *sent], key=repr)
    assert [type(value) for value in by_key] == [type(value) for value in sorted([*sent, *sent], key=repr)]
    [last] = [event for event in events if event.id == "mine"]
    assert (last.data, last.subject, last.key, last.traceparent, last.source) == ("x", "s", "k", trace, "suite")
    assert last.type == "cloud_runtimes.event"
    assert {name: last.extensions[name] for name in ("level", "urgent")} == {"level": 7, "urgent": True}


def test_many_events_are_each_answered_once(over_grpc: CloudRuntimesClient, api: Api) -> None:
    seen: list[int] = []
    handler = api.handler(lambda event: seen.append(event.data))
    topic = f"many-{api.name}"
    with api.opened(api.call(over_grpc.pubsub, "subscribe", "bus", topic, handler, workers=4, max_in_flight=100)):
        api.call(over_grpc.pubsub, "publish_bulk", "bus", topic, list(range(500)))
        assert api.until(lambda: len(seen) >= 500)
        api.pause(0.3)
    assert sorted(seen) == list(range(500))


def test_a_retry_comes_again_where_a_policy_says_so(over_grpc: CloudRuntimesClient, api: Api, redis: int) -> None:
    topic = f"again-{api.name}"
    with api.opened(api.call(over_grpc.pubsub, "subscribe", "again", topic)) as sub:
        sent = api.call(over_grpc.pubsub, "publish", "again", topic, {"n": 1})
        for number in range(4):
            event = api.call(sub, "receive", SOON)
            assert (event.id, event.data) == (sent, {"n": 1})
            event.retry(0.1 * number) if number < 3 else event.ack()
        assert api.call(sub, "receive", 0.5) is None


def test_over_http_there_is_no_subscribing_to_configuration(daprd: Beneath, api: Api) -> None:
    harness = DaprdHttp(daprd)
    with pytest.raises(UnsupportedError, match="grpc://"):
        api.call(harness.client().configuration, "subscribe_configuration", "settings")
    harness.close()


def test_no_such_store(client: CloudRuntimesClient, api: Api, redis: int) -> None:
    for service, method, *arguments in (
        ("configuration", "get_configuration", "none"),
        ("lock", "try_lock", "none", "r"),
        ("lock", "unlock", "none", "r", "me"),
    ):
        with pytest.raises(ComponentNotFoundError):
            api.call(getattr(client, service), method, *arguments)


def test_versions_of_configuration(daprd: Beneath, client: CloudRuntimesClient, api: Api, redis: int) -> None:
    store = daprd.store("configuration")
    database = daprd.database_of(store)
    redis_call(redis, "SET", "a", "1||v1", database=database)
    redis_call(redis, "SET", "b", "2", database=database)
    items = api.call(client.configuration, "get_configuration_items", store, ["a", "b", "c"])
    assert {key: (item.value, item.version) for key, item in items.items()} == {"a": ("1", "v1"), "b": ("2", None)}


def test_owners_of_locks(daprd: Beneath, client: CloudRuntimesClient, api: Api, redis: int) -> None:
    """To Dapr a holder is its owner's name: a lease that has ended releases nothing of another with the same."""
    store = daprd.store("lock")
    first = api.call(client.lock, "try_lock", store, "r", "me", expiry=1)
    assert api.until(lambda: first.lost)
    assert api.until(lambda: api.call(client.lock, "try_lock", store, "r", "me", expiry=600) is not None, SOON)
    with pytest.raises(LeaseLostError):
        api.call(first, "release")
    assert api.call(client.lock, "try_lock", store, "r", "you") is None
    assert api.call(client.lock, "unlock", store, "r", "me") is UnlockStatus.SUCCESS
