"""Publishing to Layotto, and what a subscription does beyond the suite, by a stream or by callbacks."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.errors import AlreadyExistsError, ComponentNotFoundError, UnavailableError
from cloud_runtimes.protocols.layotto.messages import messages
from cloud_runtimes.pubsub import _lanes
from cloud_runtimes.runtimes._sidecar.pubsub import StreamSubscription
from cloud_runtimes.testing import Api
from tests.support.attempts import attempts_that_ran_out
from tests.support.fake_layotto import FakeLayotto, Quirks
from tests.support.ports import reserved_port

SOON = 20.0


class Ahead(Clocks):
    """A minute ahead."""

    def wall_ms(self) -> int:
        return super().wall_ms() + 60_000


def test_who_has_no_room_sleeps(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    inner = StreamSubscription._look

    def counted(self: StreamSubscription) -> float | None:
        looks.append(None)
        return inner(self)

    monkeypatch.setattr(StreamSubscription, "_look", counted)
    with client.pubsub.subscribe("bus", "t", max_in_flight=10) as sub:
        for number in range(200):
            client.pubsub.publish("bus", "t", number)
        first = sub.receive(SOON)
        assert first is not None
        # about one for each event, each settlement and each 50 ms; a loop without a sleep would be at tens of thousands
        assert len(looks) < 2000
        assert first.data == 0


def test_members_of_a_process_share_one_stream(clients: Any, fake: FakeLayotto, api: Api) -> None:
    one, two = clients(), clients()
    with api.opened(api.call(one.pubsub, "subscribe", "bus", "t", max_in_flight=1)) as first:
        with api.opened(api.call(two.pubsub, "subscribe", "bus", "t", max_in_flight=1)) as second:
            api.call(one.pubsub, "publish_bulk", "bus", "t", [1, 2])
            got = [api.call(each, "receive", SOON) for each in (first, second)]
            assert sorted(event.data for event in got) == [1, 2]
            got[0].ack()
        # what a member that leaves has not answered for goes to the other
        again = api.call(first, "receive", SOON)
        assert again.data == got[1].data
        again.ack()


def test_the_stream_outlives_whoever_opened_it(clients: Any, api: Api) -> None:
    one, two = clients(), clients()
    with api.opened(api.call(two.pubsub, "subscribe", "bus", "t")) as second:
        first = api.call(one.pubsub, "subscribe", "bus", "t")
        api.call(first, "close")
        api.call(one, "close")
        api.call(two.pubsub, "publish", "bus", "t", "still there")
        assert api.call(second, "receive", SOON).data == "still there"


def test_exact_data_and_attributes(client: CloudRuntimesClient, api: Api) -> None:
    sent = [b"", b"\x00\xff", 2**63 - 1, 9007199254740993, 3.14159265, 1.2e-7, 1e300, None, "ünïcødé", [1, True]]
    given = {"id": "mine", "subject": "s", "time": "2025-01-15T09:30:12Z", "level": 7, "urgent": True}
    with api.opened(api.call(client.pubsub, "subscribe", "bus", "t")) as sub:
        for value in sent:
            api.call(client.pubsub, "publish", "bus", "t", value)
        api.call(client.pubsub, "publish", "bus", "t", {"a": 0.1}, key="k", attributes=given)
        events = [api.call(sub, "receive", SOON) for _ in range(len(sent) + 1)]
    assert [event.data for event in events[:-1]] == sent
    assert [type(event.data) for event in events[:-1]] == [type(value) for value in sent]
    last = events[-1]
    assert (last.id, last.subject, last.key, last.source, last.data) == ("mine", "s", "k", "suite", {"a": 0.1})
    assert last.extensions == {"level": 7, "urgent": True}
    assert last.time.isoformat() == "2025-01-15T09:30:12+00:00"


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        ("application/json", b'{"n":9007199254740993}', {"n": 9007199254740992}),  # the sidecar's own damage
        ("text/plain", "grüße".encode(), "grüße"),
        ("application/octet-stream", b'{"not": "an event"}', b'{"not": "an event"}'),
        ("application/octet-stream", b"\xff", b"\xff"),
    ],
)
def test_events_of_others(client: CloudRuntimesClient, api: Api, content_type: str, data: bytes, expected: Any) -> None:
    runtime: Any = client._context.runtime()
    with api.opened(api.call(client.pubsub, "subscribe", "bus", "t")) as sub:
        from cloud_runtimes.spi.operation import Method, Operation

        flow = runtime.transport.publish("bus", "t", data, content_type, {})
        runtime.transport.run(Operation(Method("pubsub", "publish", repeatable=True), "bus", SOON), flow)
        event = api.call(sub, "receive", SOON)
    assert event.data == expected
    assert (event.topic, event.type) == ("t", "com.dapr.event.sent")


def test_what_has_expired_does_not_come(client: CloudRuntimesClient, fake: FakeLayotto, api: Api) -> None:
    api.call(client.pubsub, "publish", "bus", "t", "short", ttl=5)
    # and what is no event at all, from past the sidecar
    api.call(fake.client.pubsub, "publish", "bus", "t", b"\xff no JSON", content_type="application/octet-stream")
    api.call(client.pubsub, "publish", "bus", "t", "long", ttl=600)
    fake.pubsub.clocks = Ahead()
    with api.opened(api.call(client.pubsub, "subscribe", "bus", "t", dead_letter_topic="dead")) as sub:
        event = api.call(sub, "receive", SOON)
        assert event.data == "long"
        event.ack()
        assert api.call(sub, "receive", 0.3) is None
    assert api.until(lambda: fake.pubsub.settled == 3)
    assert fake.pubsub.panics == 0


def test_dead_letters_are_ours(client: CloudRuntimesClient, api: Api) -> None:
    with api.opened(api.call(client.pubsub, "subscribe", "bus", "dead")) as graves:
        with api.opened(api.call(client.pubsub, "subscribe", "bus", "t", dead_letter_topic="dead")) as sub:
            api.call(client.pubsub, "publish", "bus", "t", {"n": 1}, attributes={"id": "mine", "level": 2})
            api.call(sub, "receive", SOON).drop()
            buried = api.call(graves, "receive", SOON)
            assert (buried.id, buried.data, buried.topic) == ("mine", {"n": 1}, "t")
            says = {"level": 2, "dlreason": "dropped", "dltopic": "t", "dlgroup": "suite"}
            assert buried.extensions == {**says, "dllast": buried.extensions["dllast"]}
            buried.ack()


def test_no_such_component(client: CloudRuntimesClient, api: Api) -> None:
    api.fails(ComponentNotFoundError)(client.pubsub, "subscribe", "none", "t")
    api.fails(ComponentNotFoundError)(client.pubsub, "publish", "none", "t", 1)


def test_a_sidecar_that_starts_again_in_mid_stream(beneath: CloudRuntimesClient, api: Api) -> None:
    with reserved_port() as port:
        _starts_again(beneath, api, f"127.0.0.1:{port}")


def _starts_again(beneath: CloudRuntimesClient, api: Api, address: str) -> None:
    fake = FakeLayotto(beneath, address=address)
    with CloudRuntimesClient(fake.endpoint, runtime="layotto", app_id="suite") as client:
        with api.opened(api.call(client.pubsub, "subscribe", "bus", "t")) as sub:
            api.call(client.pubsub, "publish_bulk", "bus", "t", list(range(20)))
            seen = []
            for _ in range(10):
                event = api.call(sub, "receive", SOON)
                seen.append(event.data)
                event.ack()
            fake.close()
            fake = FakeLayotto(beneath, address=address)
            try:
                api.call(client.pubsub, "publish", "bus", "t", 20, timeout=SOON)
                while set(seen) != set(range(21)):
                    event = api.call(sub, "receive", SOON)
                    assert event is not None, f"only {sorted(set(seen))} came"
                    seen.append(event.data)
                    event.ack()
                # only what was under way when it ended comes twice
                assert len(seen) <= 21 + 20
            finally:
                fake.close()


def test_a_stream_that_another_process_has_is_asked_for_again(
    fake: FakeLayotto, client: CloudRuntimesClient, api: Api
) -> None:
    runtime: Any = client._context.runtime()
    kinds = messages()
    first = kinds.SubscribeTopicEventsRequest(initial_request={"pubsub_name": "bus", "topic": "t"})
    live = threading.Event()
    other = runtime.transport.open_alone("events", first, lambda message: live.set(), lambda why: None)
    assert live.wait(SOON)
    with api.opened(api.call(client.pubsub, "subscribe", "bus", "t")) as sub:
        other.cancel()
        assert other.join(SOON)
        api.call(client.pubsub, "publish", "bus", "t", 1)
        assert api.call(sub, "receive", SOON).data == 1


def test_quirks_can_be_switched_off(beneath: CloudRuntimesClient, api: Api) -> None:
    gentle = Quirks(one_stream=False, stays_subscribed=False, spoils_numbers=False)
    with FakeLayotto(beneath, gentle) as fake:
        with CloudRuntimesClient(fake.endpoint, runtime="layotto", app_id="suite") as client:
            with api.opened(api.call(client.pubsub, "subscribe", "bus", "t")) as sub:
                api.call(client.pubsub, "publish", "bus", "t", 0.125)
                assert api.call(sub, "receive", SOON).data == 0.125


# -- events by callbacks: the application serves, and the sidecar asks once, when it starts


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
        received = api.call(other, "receive", SOON)
        assert (received.data, received.subject, received.topic) == ("other", "s", "u")
        received.ack()


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
            api.fails(AlreadyExistsError, match="before there was 'late'")(client.pubsub, "subscribe", "bus", "late")


def test_the_port_is_taken(address: str, port: int, api: Api) -> None:
    with client_on(address, port) as client:
        with socket.create_server(("127.0.0.1", port)):
            error = api.fails(UnavailableError, match=f"{port} is taken.*callback_port")(
                client.pubsub, "subscribe", "bus", "t"
            )
            assert not error.retryable
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


# -- A publisher over Layotto, where each event is a request


def test_a_slow_answer_to_each_event(
    fake: FakeLayotto, client: CloudRuntimesClient, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: Counter[int] = Counter()
    inner = fake.pubsub._envelope

    def slow(request: Any) -> Any:
        came[json.loads(request.data)["data"]] += 1
        time.sleep(0.002)
        return inner(request)

    monkeypatch.setattr(fake.pubsub, "_envelope", slow)
    # of a batch's 500 events an attempt's time is enough for fifty, if that
    monkeypatch.setattr(_lanes, "ATTEMPT", 0.1)
    monkeypatch.setattr(_lanes, "_SLOW", 0.4)
    ended = attempts_that_ran_out(monkeypatch)
    with api.opened(client.pubsub.publisher("bus", "t")) as publisher:
        for number in range(500):
            publisher.send(number, key="k")
        api.call(publisher, "flush", SOON)
        assert publisher.stats().delivered == 500
    assert list(came) == list(range(500))
    # those that were under way when an attempt ended
    assert came.total() - 500 <= len(ended)
