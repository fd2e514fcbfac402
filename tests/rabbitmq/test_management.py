"""The management interface: what it lists of queues, for an account that may only read too, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.harnesses.rabbitmq import ManagedQueues
from tests.support.listening import Answer, HttpServer
from tests.support.rabbitmq import management_of, serve_managed
from tests.support.waiting import until


@pytest.fixture
def managed(managed_rabbitmq_url: str) -> Iterator[ManagedQueues]:
    """Topics with queues, on a server with the interface."""
    harness = ManagedQueues(managed_rabbitmq_url)
    yield harness
    harness.close()


def lags(client: CloudRuntimesClient, topic: str) -> dict[str, int | None]:
    return {each.name: each.lag for each in client.admin.groups("bus", topic)}


def test_topics_and_groups_of_queues(managed: ManagedQueues, api: Api) -> None:
    """Names with colons and percent signs, delays, groups with an order: nothing else looks like a topic or a group."""
    client = managed.client()
    topic, group = "a:b%3A", "g:1%"
    with (
        api.opened(client.pubsub.subscribe("bus", topic, group=group)) as sub,
        api.opened(client.pubsub.subscribe("bus", topic, group="keyed", order="key")),
        api.opened(client.pubsub.subscribe("bus", "orders", group="g", dead_letter_topic="dead")),
    ):
        for number in range(4):
            api.call(client.pubsub, "publish", "bus", topic, number, key=str(number))
        api.call(client.pubsub, "publish", "bus", topic, "late", delay=300)
        api.call(sub, "receive", 10).retry(delay=300)
        client.admin.pause("bus", topic, "keyed")
        names = ["dead", "orders", topic]
        assert sorted(each.name for each in api.call(client.admin, "topics", "bus")) == sorted(names)
        assert [each.name for each in client.admin.topics("bus", prefix="a:")] == [topic]
        assert {each.name: each.groups for each in client.admin.topics("bus")} == {topic: 2, "orders": 1, "dead": 1}
        assert until(lambda: lags(client, topic) == {group: 3, "keyed": 4})  # what waits for its retry is not counted
        plain, keyed = api.call(client.admin, "groups", "bus", topic)
        assert ((plain.order, plain.paused), (keyed.order, keyed.paused)) == (("", False), ("key", True))
        assert until(lambda: [len(each.members or ()) for each in client.admin.groups("bus", topic)] == [1, 1])
        assert until(
            lambda: [each.members for each in client.admin.groups("bus", "orders")] != [()]
        )  # each is told by itself
        ((member,),) = [each.members for each in client.admin.groups("bus", "orders")]
        assert member.host == "127.0.0.1"
        backlogs = [each.group for each in client.admin.overview().groups]
        assert {(each.topic, each.name): each.lag for each in backlogs}[topic, group] == 3
        assert {each.name: each.events for each in client.admin.topics("bus")} == {topic: 4, "orders": 0, "dead": 0}


def test_a_topic_is_purged_and_deleted(managed: ManagedQueues, api: Api) -> None:
    client = managed.client()
    topic = "orders:eu"
    with (
        api.opened(client.pubsub.subscribe("bus", topic, group="g")) as sub,
        api.opened(client.pubsub.subscribe("bus", f"{topic}2", group="g")) as other,
    ):
        client.pubsub.publish_bulk("bus", topic, list(range(5)))
        client.pubsub.publish("bus", topic, "late", delay=300)
        client.pubsub.publish("bus", f"{topic}2", "stays")
        for _ in range(5):
            api.call(sub, "receive", 10).ack()
        sub.close()
        client.pubsub.publish_bulk("bus", topic, list(range(3)))
        assert api.call(client.admin, "purge", "bus", topic, dry_run=True) == 4
        assert api.call(client.admin, "purge", "bus", topic) == 4
        assert api.call(client.admin, "purge", "bus", topic) == 0
        assert api.call(other, "receive", 10).data == "stays"
        with pytest.raises(ConflictError, match="the group 'g' has members"):
            api.call(client.admin, "delete_topic", "bus", f"{topic}2")
    with api.opened(client.pubsub.subscribe("bus", topic, group="keyed", order="key")):
        client.pubsub.publish_bulk("bus", topic, list(range(2)))
    assert api.call(client.admin, "delete_topic", "bus", topic, dry_run=True) == 4
    assert api.call(client.admin, "delete_topic", "bus", topic) == 4
    with pytest.raises(NotFoundError):
        api.call(client.admin, "delete_topic", "bus", topic)
    assert [each.name for each in client.admin.topics("bus")] == [f"{topic}2"]
    client.pubsub.publish("bus", topic, 1)  # it is made again, by the same client
    assert [each.name for each in client.admin.topics("bus", prefix=topic)] == [topic, f"{topic}2"]


def test_a_topic_with_a_stream_is_deleted(managed: ManagedQueues, api: Api) -> None:
    managed.home["kind"] = "stream"
    client = managed.client()
    client.pubsub.publish_bulk("bus", "t", list(range(5)))
    with api.opened(client.pubsub.subscribe("bus", "t", group="g")) as sub:
        api.call(sub, "receive", 20).ack()
    # beside events a stream has two marks of a group that began
    assert until(lambda: [each.events for each in client.admin.topics("bus")] == [7])
    assert api.call(client.admin, "delete_topic", "bus", "t", dry_run=True) == 7
    assert api.call(client.admin, "delete_topic", "bus", "t") == 7
    assert client.admin.topics("bus") == []
    with pytest.raises(UnsupportedError, match="purge"):
        client.admin.purge("bus", "t")


def test_an_account_that_may_only_read_looks_at_everything(managed: ManagedQueues, api: Api) -> None:
    with api.opened(managed.client().pubsub.subscribe("bus", "t", group="g")):
        url = str(managed.home["url"]).replace("guest:guest", "reader:reader")
        managed.home |= {"url": url, "ensure": "check"}
        reader = managed.client()
        assert [each.name for each in api.call(reader.admin, "topics", "bus")] == ["t"]
        assert [each.name for each in api.call(reader.admin, "groups", "bus", "t")] == ["g"]
    with pytest.raises(PermissionDeniedError):
        reader.admin.delete_group("bus", "t", "g")


@pytest.mark.parametrize(
    ("login", "path", "error", "match"),
    [
        ("guest:wrong", "", UnauthenticatedError, "refuses the user 'guest'"),
        ("nobody:nobody", "", UnauthenticatedError, "rabbitmqctl set_user_tags nobody management"),
        (
            "guest:guest",
            "/absent",
            NotFoundError,
            "no virtual host 'absent'.*rabbitmq-plugins enable rabbitmq_management",
        ),
    ],
)
def test_what_the_interface_refuses(
    managed: ManagedQueues, api: Api, login: str, path: str, error: type[CloudRuntimesError], match: str
) -> None:
    managed.home["url"] = str(managed.home["url"]).replace("guest:guest", login) + path
    with pytest.raises(error, match=match) as caught:
        api.call(managed.client().admin, "topics", "bus")
    assert "wrong" not in str(caught.value)


class Another(HttpServer):
    """No management interface."""

    def answered(self, method: str, path: str, headers: Any, body: bytes) -> Answer | None:
        if path.startswith("/down/"):
            return 503, b"{}", ()
        pages = {"page": b"<html>", "api": b'{"error": "not_found"}'}
        page = pages.get(path.split("/")[1])
        return (404, b"{}", ()) if page is None else (200, page, ())


def test_another_server_at_its_address(managed: ManagedQueues, api: Api) -> None:
    with closing(Another()) as server:
        for path, error in (
            ("/page", NotFoundError),
            ("/down", UnavailableError),
            ("/absent", NotFoundError),
            ("", NotFoundError),
        ):
            managed.home["management"] = f"{server.url}{path}"
            with pytest.raises(error, match="management"):
                api.call(managed.client().admin, "topics", "bus")
    managed.home["management"] = f"{server.url}/gone"  # no connection is there yet
    with pytest.raises(UnavailableError, match="cannot be reached"):
        api.call(managed.client().admin, "topics", "bus")


def test_a_server_that_collects_no_statistics() -> None:
    """It does not list consumers."""
    with serve_managed(management_agent__disable_metrics_collector="true") as server:
        home = {"url": server.url, "management": management_of(server.url), "groups": ["g"]}
        with CloudRuntimesClient(app_id="suite", config={"capa": {"home": home}}) as client:
            client.pubsub.publish_bulk("bus", "t", list(range(3)))
            assert until(lambda: lags(client, "t") == {"g": 3})
            (group,) = client.admin.groups("bus", "t")
            assert (group.members, group.paused) == (None, False)


@pytest.mark.parametrize("url", ["ftp://host", "http://user:password@host:15672", "host:15672", ""])
def test_an_address_that_is_none(client: Make, port: int, url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="management") as caught:
        client(f"amqp://guest:guest@127.0.0.1:{port}", management=url).admin.topics("bus")
    assert "password" not in str(caught.value)


def test_a_password_for_tls_goes_nowhere_without_it(client: Make) -> None:
    with pytest.raises(InvalidArgumentError, match="give an address with https://"):
        client("amqps://guest:guest@127.0.0.1", management="http://127.0.0.1:15672").admin.topics("bus")
