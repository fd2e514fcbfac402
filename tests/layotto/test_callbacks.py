"""Events by callbacks: the application serves, and the sidecar asks once, when it starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import AlreadyExistsError, UnavailableError
from cloud_runtimes.testing import Api
from tests.support.fake_layotto import FakeLayotto
from tests.support.ports import reserved_port

SOON = 20.0


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as number:
        yield number


@contextmanager
def client_on(address: str, port: int) -> Iterator[CloudRuntimesClient]:
    config = {"layotto": {"callback_port": port}}
    with CloudRuntimesClient(f"grpc://{address}", runtime="layotto", app_id="suite", config=config) as client:
        yield client


@pytest.fixture
def address() -> Iterator[str]:
    with reserved_port() as number:
        yield f"127.0.0.1:{number}"


def test_events_come_back(beneath: CloudRuntimesClient, address: str, port: int, api: Api) -> None:
    with client_on(address, port) as client, ExitStack() as stack:
        # the application first, since the sidecar asks but once
        sub = stack.enter_context(api.opened(api.call(client.pubsub, "subscribe", "bus", "t")))
        other = stack.enter_context(api.opened(api.call(client.pubsub, "subscribe", "bus", "u")))
        stack.enter_context(FakeLayotto(beneath, address=address, callback_port=port))
        api.call(client.pubsub, "publish_bulk", "bus", "t", [1, 2.5, b"\xff"])
        api.call(client.pubsub, "publish", "bus", "u", "other", attributes={"subject": "s"})
        events = [api.call(sub, "receive", SOON) for _ in range(3)]
        assert sorted((event.data for event in events), key=repr) == sorted([1, 2.5, b"\xff"], key=repr)
        for event in events[1:]:
            event.ack()
        events[0].retry(0)
        again = api.call(sub, "receive", SOON)
        assert again.data == events[0].data
        again.ack()
        told = api.call(other, "receive", SOON)
        assert (told.data, told.subject, told.topic) == ("other", "s", "u")
        told.ack()


def test_members_share(beneath: CloudRuntimesClient, address: str, port: int, api: Api) -> None:
    with client_on(address, port) as one, client_on(address, port) as two, ExitStack() as stack:
        subs = [
            stack.enter_context(api.opened(api.call(each.pubsub, "subscribe", "bus", "t", max_in_flight=1)))
            for each in (one, two)
        ]
        stack.enter_context(FakeLayotto(beneath, address=address, callback_port=port))
        api.call(one.pubsub, "publish_bulk", "bus", "t", [1, 2])
        got = [api.call(sub, "receive", SOON) for sub in subs]
        assert sorted(event.data for event in got) == [1, 2]
        for event in got:
            event.ack()


def test_what_is_subscribed_to_too_late_is_refused(
    beneath: CloudRuntimesClient, address: str, port: int, api: Api
) -> None:
    with client_on(address, port) as client, api.opened(api.call(client.pubsub, "subscribe", "bus", "t")):
        with FakeLayotto(beneath, address=address, callback_port=port):
            with pytest.raises(AlreadyExistsError, match="before there was 'late'"):
                api.call(client.pubsub, "subscribe", "bus", "late")


def test_the_port_is_taken(address: str, port: int, api: Api) -> None:
    with client_on(address, port) as client:
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(UnavailableError, match=f"{port} is taken.*callback_port") as caught:
                api.call(client.pubsub, "subscribe", "bus", "t")
            assert not caught.value.retryable
        # what failed has left nothing behind
        with api.opened(api.call(client.pubsub, "subscribe", "bus", "t")):
            pass


def test_a_sidecar_that_starts_again_asks_again(
    beneath: CloudRuntimesClient, address: str, port: int, api: Api
) -> None:
    with client_on(address, port) as client, api.opened(api.call(client.pubsub, "subscribe", "bus", "t")) as sub:
        for number in range(2):
            with FakeLayotto(beneath, address=address, callback_port=port):
                api.call(client.pubsub, "publish", "bus", "t", number, timeout=SOON)
                event = api.call(sub, "receive", SOON)
                assert event.data == number
                event.ack()
                assert api.until(lambda: _settled(beneath))


def _settled(beneath: CloudRuntimesClient) -> bool:
    with beneath.pubsub.subscribe("bus", "t", group="suite") as probe:
        return probe.receive(0.05) is None
