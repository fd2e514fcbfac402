"""Subscriptions that are streams, over raw gRPC."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.dapr_server.settings import ComponentInfo
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import SERVICE, call, send
from tests.support.running import declared, serving
from tests.support.waiting import until


class Stream:
    """Client side of one stream."""

    def __init__(self, channel: grpc.Channel, metadata: Any = ()) -> None:
        self._outgoing: queue.Queue[Any] = queue.Queue()
        rpc = channel.stream_stream(
            f"{SERVICE}SubscribeTopicEventsAlpha1",
            lambda message: message.SerializeToString(),
            messages().SubscribeTopicEventsResponseAlpha1.FromString,
        )
        self.call: Any = rpc(iter(self._outgoing.get, None), metadata=metadata)

    def begin(self, topic: str = "t", pubsub_name: str = "store", **more: Any) -> None:
        kinds = messages()
        initial = kinds.SubscribeTopicEventsRequestInitialAlpha1(pubsub_name=pubsub_name, topic=topic, **more)
        self._outgoing.put(kinds.SubscribeTopicEventsRequestAlpha1(initial_request=initial))

    def opened(self, *args: Any, **more: Any) -> Stream:
        self.begin(*args, **more)
        assert next(self.call).HasField("initial_response")
        return self

    def event(self) -> Any:
        reply = next(self.call)
        assert reply.HasField("event_message")
        return reply.event_message

    def answer(self, id: str, status: int = 0) -> None:
        kinds = messages()
        processed = kinds.SubscribeTopicEventsRequestProcessedAlpha1(
            id=id, status=kinds.TopicEventResponse(status=status)
        )
        self._outgoing.put(kinds.SubscribeTopicEventsRequestAlpha1(event_processed=processed))

    def half_close(self) -> None:
        self._outgoing.put(None)

    def ended(self) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            next(self.call)
        return caught.value.code().name, caught.value.details()


@contextmanager
def streaming(sidecar: Sidecar) -> Iterator[Stream]:
    with grpc.insecure_channel(sidecar.grpc_address) as channel:
        stream = Stream(channel)
        yield stream
        stream.half_close()
        stream.call.cancel()


def publish(sidecar: Sidecar, topic: str, data: Any, query: str = "") -> None:
    headers = {"content-type": "application/json"}
    body = json.dumps(data).encode()
    assert send(sidecar.http_address, "POST", f"/v1.0/publish/store/{topic}?{query}", body, headers).status == 204


def test_events_come_and_are_settled_by_their_ids(sidecar: Sidecar) -> None:
    with streaming(sidecar) as stream:
        stream.opened()
        assert [(each.topic, each.kind) for each in sidecar.context.subscriptions] == [("t", "STREAMING")]
        for number in range(20):
            publish(sidecar, "t", number, f"metadata.cloudevent.id=id{number}")
        events = [stream.event() for _ in range(20)]  # many may be under way
        assert [json.loads(each.data) for each in events] == list(range(20))
        assert {(each.path, each.topic, each.pubsub_name, each.type) for each in events} == {
            ("/", "t", "store", "com.dapr.event.sent")
        }
        for each in reversed(events):
            stream.answer(each.id)
        publish(sidecar, "t", "last")
        last = stream.event()
        stream.answer(last.id)
        until(lambda: not claims(sidecar), "all to be settled")
        stream.answer("no such id")
    until(lambda: not sidecar.context.subscriptions, "the end")


def claims(sidecar: Sidecar) -> list[Any]:
    from cloud_runtimes.spi.operation import Method, Operation

    op = Operation(Method("pubsub", "look", repeatable=True, writes=False), "store", 30.0)
    rows: list[Any] = sidecar.context.driver("pubsub", "store")._engine.query(op, "SELECT 1 FROM claims", ())
    return rows


def test_another_try_and_dead_letters(sidecar: Sidecar) -> None:
    with streaming(sidecar) as stream:
        stream.opened()
        publish(sidecar, "t", 1)
        first = stream.event()
        stream.answer(first.id, 1)
        second = stream.event()
        assert second.id == first.id
        stream.answer(second.id, 2)  # away
        until(lambda: not claims(sidecar))
    with streaming(sidecar) as stream, streaming(sidecar) as dead:
        stream.opened("u", dead_letter_topic="dead")
        dead.opened("dead")
        for status in (1, 2):
            publish(sidecar, "u", status)
            stream.answer(stream.event().id, status)
            letter = dead.event()
            assert json.loads(letter.data) == status
            assert letter.topic == "dead"
            assert dict(letter.extensions)["topic"] == "u"
            dead.answer(letter.id)


def test_a_dead_letter_of_its_own_topic_comes_again(sidecar: Sidecar) -> None:
    with streaming(sidecar) as stream:
        stream.opened(dead_letter_topic="t")
        publish(sidecar, "t", 1)
        stream.answer(stream.event().id, 2)
        again = stream.event()
        assert again.data == b"1"
        stream.answer(again.id)
        until(lambda: not claims(sidecar), "its end")


def test_raw_payloads(sidecar: Sidecar) -> None:
    with streaming(sidecar) as stream:
        stream.opened(metadata={"rawPayload": "true"})
        publish(sidecar, "t", 1, "metadata.rawPayload=true")
        event = stream.event()
        assert (event.data, event.data_content_type, event.source) == (b"1", "application/octet-stream", "Dapr")


@pytest.mark.parametrize("how", ["cancel", "half close"])
def test_what_has_no_answer_goes_back(sidecar: Sidecar, how: str) -> None:
    with streaming(sidecar) as stream:
        stream.opened()
        publish(sidecar, "t", 1)
        first = stream.event()
        if how == "cancel":
            stream.call.cancel()
        else:
            stream.half_close()
            assert list(stream.call) == []
    with streaming(sidecar) as stream:
        stream.opened()
        again = stream.event()
        assert again.id == first.id
        stream.answer(again.id)
        until(lambda: not claims(sidecar))


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"topic": ""}, "UNKNOWN", "topic is required"),
        ({"pubsub_name": ""}, "UNKNOWN", "pubsubName is required"),
        ({"pubsub_name": "gone"}, "INVALID_ARGUMENT", "pubsub gone is not found"),
    ],
)
def test_what_cannot_be_subscribed_to(sidecar: Sidecar, options: dict[str, Any], kind: str, text: str) -> None:
    with streaming(sidecar) as stream:
        stream.begin(**options)
        code, said = stream.ended()
        assert code == kind
        assert said.startswith(text)


def test_the_first_request_is_the_initial_one_and_the_only(sidecar: Sidecar) -> None:
    with streaming(sidecar) as stream:
        stream.answer("x")
        assert stream.ended() == ("UNKNOWN", "initial request is required")
    with streaming(sidecar) as stream:
        stream.half_close()
        assert stream.ended() == ("UNKNOWN", "initial request is required")
    with streaming(sidecar) as stream:
        stream.opened()
        stream.begin()
        assert stream.ended() == ("UNKNOWN", "duplicate initial request received")


def test_no_more_streams_than_a_sidecar_can_bear(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a thread; one that has ended makes room."""
    monkeypatch.setattr("cloud_runtimes.dapr_server.pubsub.streaming.MAX_OPEN", 2)
    with streaming(sidecar) as first, streaming(sidecar) as second:
        first.opened()
        second.opened("other")
        with streaming(sidecar) as third:
            third.begin()
            code, said = third.ended()
            assert code == "RESOURCE_EXHAUSTED"
            assert "close those that are not needed" in said
        first.half_close()
        assert next(first.call, None) is None
        with streaming(sidecar) as third:
            third.opened()


def test_at_the_end_of_the_sidecar_answers_still_count(tmp_path: Path) -> None:
    config = declared(str(tmp_path / "home"))
    with serving(config, grace=0.5) as sidecar:
        with grpc.insecure_channel(sidecar.grpc_address) as channel:
            stream = Stream(channel).opened()
            for number in (1, 2):
                publish(sidecar, "t", number)
            events = [stream.event(), stream.event()]
            sidecar.stop()
            stream.answer(events[0].id)
            assert stream.ended()[0] in ("UNKNOWN", "UNAVAILABLE")
            stream.half_close()
            sidecar.close()
    with serving(config) as sidecar, streaming(sidecar) as stream:
        stream.opened()
        assert json.loads(stream.event().data) == 2


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    with serving(declared(str(tmp_path / "home")), api_token="secret") as sidecar:
        with grpc.insecure_channel(sidecar.grpc_address) as channel:
            stream = Stream(channel)
            stream.begin()
            assert stream.ended() == ("UNAUTHENTICATED", "invalid api token")
            stream.half_close()
            stream = Stream(channel, (("dapr-api-token", "secret"),)).opened()
            stream.half_close()
            request = messages().PublishEventRequest(pubsub_name="store", topic="t", data=b"1")
            assert call(sidecar.grpc_address, "PublishEvent", request).code == "UNAUTHENTICATED"


def test_streams_of_dapr_s_memory_each_get_all(tmp_path: Path) -> None:
    """As in daprd, where it has no groups; elsewhere the streams of an application share its events."""
    components = (ComponentInfo("store", "pubsub.in-memory"),)
    with serving(declared(":memory:each-gets-all"), components=components) as sidecar:
        publish(sidecar, "t", 0)  # before they are open
        with streaming(sidecar) as one, streaming(sidecar) as two:
            for stream in (one, two):
                stream.opened()
            for number in (1, 2):
                publish(sidecar, "t", number)
            for stream in (one, two):
                events = [stream.event() for _ in range(2)]
                assert sorted(json.loads(event.data) for event in events) == [1, 2]
                for event in events:
                    stream.answer(event.id)
