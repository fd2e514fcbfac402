"""Conformance of a `PubSubDriver`: groups, and what an answer does."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from ...client import CloudRuntimesClient
from ...errors import InvalidArgumentError
from ...pubsub import Event, EventBatch
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, Suite, as_sent
from ._pubsub import NEVER, SOON, Reading, collect, nothing

__all__ = ["AnswerTests"]


class AnswerTests(Suite):
    """Redelivery, dead letters, groups, give-back, batches."""

    # -- groups -------------------------------------------------------------

    @requires("pubsub.group")
    def test_each_group_gets_all(self, call: Call, face: Face) -> None:
        one = call("subscribe", "t", group="one")
        two = call("subscribe", "t", group="two")
        call("publish_bulk", "t", list(range(20)))
        assert [event.data for event in collect(face, one, 20)] == list(range(20))
        assert [event.data for event in collect(face, two, 20)] == list(range(20))
        face.call(one, "close")
        face.call(two, "close")

    def test_members_share(
        self, call: Call, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        members = [
            face.call(each.pubsub, "subscribe", store, "t", max_in_flight=10) for each in (client, harness.client())
        ]
        sent = list(range(200 + 3 * harness.prefetch))
        call("publish_bulk", "t", sent)
        got: list[list[int]] = [[], []]
        end = time.monotonic() + SOON
        while sum(map(len, got)) < len(sent) and time.monotonic() < end:
            for mine, member in zip(got, members, strict=True):
                event = face.call(member, "receive", 0.02)
                if event is not None:
                    mine.append(event.data)
                    event.ack()
        assert sorted(got[0] + got[1]) == sent
        assert got[0]
        assert got[1]
        for member in members:
            face.call(member, "close")

    @requires("pubsub.start", "pubsub.group")
    def test_start(self, call: Call, face: Face) -> None:
        call("publish", "t", "old")
        latest = call("subscribe", "t", group="late", start="latest")
        earliest = call("subscribe", "t", group="early", start="earliest")
        default = call("subscribe", "t", group="default")
        call("publish", "t", "new")
        assert [event.data for event in collect(face, latest, 1)] == ["new"]
        assert [event.data for event in collect(face, earliest, 2)] == ["old", "new"]
        assert [event.data for event in collect(face, default, 2)] == ["old", "new"]
        for sub in (latest, earliest, default):
            face.call(sub, "close")
        # a group that exists goes on where it was, whatever start says
        with face.opened(call("subscribe", "t", group="late", start="earliest")) as sub:
            nothing(face, sub)
        call.fails(InvalidArgumentError, match="start")("subscribe", "t", start="sometime")

    # -- answers ------------------------------------------------------------

    def test_acked_is_done(self, call: Call, face: Face) -> None:
        call("publish_bulk", "t", list(range(10)))
        with face.opened(call("subscribe", "t")) as sub:
            collect(face, sub, 10)
        with face.opened(call("subscribe", "t")) as sub:
            nothing(face, sub)

    @requires("pubsub.retry_delay")
    def test_retry(self, call: Call, face: Face, harness: Harness) -> None:
        call("publish_bulk", "t", ["a", "b"])
        with face.opened(call("subscribe", "t")) as sub:
            first, second = collect(face, sub, 2, ack=False)
            first.retry(delay=0)
            second.ack()
            (again,) = collect(face, sub, 1, ack=False)
            assert (again.id, again.data, again.delivery_count) == (first.id, "a", 2)
            first.ack()  # the first answer counted, and this delivery is over
            again.retry(delay=30)
            again.ack()  # no: the first answer counts
            nothing(face, sub)
            harness.advance(31)
            (third,) = collect(face, sub, 1)
            assert third.delivery_count == 3
            nothing(face, sub)
        for bad in (-1, float("nan"), float("inf")):
            with pytest.raises(InvalidArgumentError, match="delay"):
                third.retry(bad)

    @requires("pubsub.retry_delay")
    def test_retry_backs_off(self, call: Call, face: Face, harness: Harness) -> None:
        call("publish", "t", 1)
        with face.opened(call("subscribe", "t")) as sub:
            for least, most in ((0.9, 1.2), (1.9, 2.3), (3.9, 4.4)):
                (event,) = collect(face, sub, 1, ack=False)
                event.retry()
                face.pause(0.1)
                harness.advance(least - 0.6)
                nothing(face, sub)
                harness.advance(most - least + 0.4)
            (event,) = collect(face, sub, 1)
            assert event.delivery_count == 4

    def test_drop(self, call: Call, face: Face) -> None:
        call("publish_bulk", "t", ["bad", "good"])
        with face.opened(call("subscribe", "t")) as sub:
            bad, good = collect(face, sub, 2, ack=False)
            bad.drop()
            good.ack()
            nothing(face, sub)
        with face.opened(call("subscribe", "t")) as sub:
            nothing(face, sub)

    @requires("pubsub.dead_letter")
    def test_dead_letter(self, call: Call, face: Face, harness: Harness) -> None:
        id = call("publish", "t", {"n": 1}, key="k", attributes={"tenant": "blue"})
        dead = call("subscribe", "dead")
        with face.opened(call("subscribe", "t", dead_letter_topic="dead")) as sub:
            (event,) = collect(face, sub, 1, ack=False)
            event.drop()
            (letter,) = collect(face, dead, 1)
        assert (letter.id, letter.data, letter.key, letter.topic) == (id, {"n": 1}, "k", "t")
        extensions = dict(letter.extensions)
        if harness.tells_dead:
            told = {name: extensions.pop(name) for name in ("dlreason", "dltopic", "dlgroup")}
            assert told == {"dlreason": "dropped", "dltopic": "t", "dlgroup": "suite"}
            assert datetime.fromisoformat(extensions.pop("dllast")).tzinfo is UTC
            assert (extensions.pop("dlfirst", None) is None) == (extensions.pop("dlcount", None) is None)
        assert {name: value for name, value in extensions.items() if not name.startswith("dl")} == {"tenant": "blue"}
        assert not harness.tells_dead or len(extensions) == 1
        face.call(dead, "close")
        call.fails(InvalidArgumentError, match="another topic")("subscribe", "t", dead_letter_topic="t")

    @requires("pubsub.dead_letter", "pubsub.max_deliveries", "pubsub.retry_delay")
    def test_last_delivery(self, call: Call, face: Face) -> None:
        dead = call("subscribe", "dead")
        options = {"dead_letter_topic": "dead", "max_deliveries": 3}
        with face.opened(call("subscribe", "t", **options)) as sub:
            id = call("publish", "t", "poison")
            counts = []
            for _ in range(3):
                (event,) = collect(face, sub, 1, ack=False)
                counts.append(event.delivery_count)
                event.retry(delay=0)
            assert counts == [1, 2, 3]
            (letter,) = collect(face, dead, 1)
            assert letter.id == id
            assert (letter.extensions["dlreason"], letter.extensions["dlcount"]) == ("deliveries", 3)
            assert "dlerror" not in letter.extensions
            assert letter.extensions["dlfirst"] <= letter.extensions["dllast"]
            nothing(face, sub)
        face.call(dead, "close")
        with face.opened(call("subscribe", "u", max_deliveries=2)) as sub:
            call("publish", "u", "gone")
            for _ in range(2):
                collect(face, sub, 1, ack=False)[0].retry(delay=0)
            nothing(face, sub)

    @requires("pubsub.dead_letter")
    def test_data_that_does_not_fit(self, call: Call, face: Face, harness: Harness) -> None:
        dead = call("subscribe", "dead")
        options = {"type": Reading, "dead_letter_topic": "dead"}
        with face.opened(call("subscribe", "t", **options)) as sub:
            for data in ({"sensor": 5}, Reading("ok", 1.0)):
                call("publish", "t", data)
            assert collect(face, sub, 1)[0].data == Reading("ok", 1.0)
            (letter,) = collect(face, dead, 1)
            assert letter.data == {"sensor": 5}
            if harness.tells_dead:
                assert letter.extensions["dlreason"] == "undecodable"
                assert letter.extensions["dlerror"].startswith("PayloadError: ")
        face.call(dead, "close")

    @requires("pubsub.ack_wait")
    @pytest.mark.timing
    def test_unsettled_comes_again(self, call: Call, face: Face) -> None:
        with face.opened(call("subscribe", "t", ack_wait=0.4)) as sub:
            call("publish", "t", 1)
            (event,) = collect(face, sub, 1, ack=False)
            started = time.monotonic()
            (again,) = collect(face, sub, 1)
            assert 0.3 < time.monotonic() - started < 1.4
            assert again.id == event.id
            assert again.delivery_count == 2
            event.ack()
            nothing(face, sub)

    def test_close_gives_back(self, call: Call, face: Face, store: str, harness: Harness) -> None:
        call("publish_bulk", "t", list(range(10)))
        with face.opened(call("subscribe", "t")) as sub:
            done = {event.data for event in collect(face, sub, 3)}
            (held,) = collect(face, sub, 1, ack=False)
        started = time.monotonic()
        with face.opened(face.call(harness.client().pubsub, "subscribe", store, "t")) as sub:
            events = as_sent(harness, collect(face, sub, 7))
            assert [event.data for event in events] == [number for number in range(10) if number not in done]
            counts = {event.data: event.delivery_count for event in events}
            # only what was handed out counts as delivered
            assert counts[held.data] in (2, None)
            assert all(count in (1, None) for data, count in counts.items() if data != held.data)
        assert time.monotonic() - started < 5
        assert done == {0, 1, 2} or not harness.bulk_order

    def test_max_in_flight(self, call: Call, face: Face, harness: Harness) -> None:
        call("publish_bulk", "t", list(range(20)))
        with face.opened(call("subscribe", "t", max_in_flight=4)) as sub:
            events = collect(face, sub, 4, ack=False)
            nothing(face, sub)
            for event in events:
                event.ack()
            events += collect(face, sub, 16)
        assert [event.data for event in as_sent(harness, events)] == list(range(20))

    # -- batches ------------------------------------------------------------

    def test_batch(self, call: Call, face: Face, harness: Harness) -> None:
        call("publish_bulk", "t", list(range(25)))
        with face.opened(call("subscribe", "t", batch=10)) as sub:
            got: list[int] = []
            while len(got) < 25:
                batch = face.call(sub, "receive", SOON)
                assert isinstance(batch, EventBatch)
                assert 1 <= len(batch) <= 10
                assert all(isinstance(event, Event) for event in batch)
                got += [event.data for event in batch]
                batch.ack()
            assert as_sent(harness, got, int) == list(range(25))
        with face.opened(call("subscribe", "t")) as sub:
            nothing(face, sub)

    @requires("pubsub.retry_delay")
    def test_batch_settles_the_rest(self, call: Call, face: Face) -> None:
        call("publish_bulk", "t", ["a", "b", "c"])
        with face.opened(call("subscribe", "t", batch=3)) as sub:
            batch = face.call(sub, "receive", SOON)
            assert [event.data for event in batch] == ["a", "b", "c"]
            batch[1].retry(delay=0)
            batch.ack()
            again = face.call(sub, "receive", SOON)
            assert [event.data for event in again] == ["b"]
            again.drop()
            nothing_more = face.call(sub, "receive", NEVER)
            assert nothing_more is None
