"""Conformance of how drivers pause and delete groups and topics, through ``client.admin``."""

from __future__ import annotations

import time
from typing import Any

from ...errors import ConflictError, NotFoundError
from ..apis import Api
from ..harness import requires
from ._admin_mending import MendingCases
from ._base import Call
from ._pubsub_answers import collect, data

_QUIET = 1.2
"""Seconds after which a paused group is quiet, with some to spare."""


class SteeringCases(MendingCases):
    """Pausing, resuming and deleting."""

    def _paused(self, call: Call) -> list[bool | None]:
        return [group.paused for group in call("groups", "t")] if not call.lacks("admin.groups") else [None]

    @requires("admin.pause", "pubsub.group")
    def test_pause(self, call: Call, api: Api, bus: Call) -> None:
        for method in ("pause", "resume"):
            call.fails(NotFoundError, match="t has no group 'g'")(method, "t", "g")
        got: list[int] = []

        def handler(event: Any) -> None:
            time.sleep(0.01)
            got.append(event.data)

        start = {} if call.lacks("pubsub.start") else {"start": "earliest"}
        with bus.opened("subscribe", "t", api.handler(handler), group="g", **start):
            bus("publish_bulk", "t", list(range(30)))
            assert api.until(lambda: bool(got))
            for _ in range(2):
                call("pause", "t", "g")
            assert self._paused(call) in ([True], [None])
            before, number = 0, 30
            while len(got) > before:  # on a full machine members look late
                api.pause(_QUIET)
                before = len(got)
                bus("publish", "t", number)
                number += 1
                api.pause(_QUIET)
            bus("publish_bulk", "t", list(range(number, 1000)))
            api.pause(_QUIET)
            assert len(got) == before
        if not call.lacks("pubsub.lag"):
            assert bus("lag", "t", group="g") == 1000 - before
        with bus.opened("subscribe", "t", group="g") as sub, bus.opened("subscribe", "t", group="other") as other:
            assert sub_receives_nothing(api, sub)
            bus("publish", "t", 1000)
            assert len(data(api, other, 1)) == 1
            call("resume", "t", "g")
            assert self._paused(call)[:1] in ([False], [None])
            assert sorted(got + data(api, sub, 1001 - before)) == list(range(1001))
            call("resume", "t", "g")

    @requires("admin.pause", "pubsub.group", "pubsub.key_order")
    def test_pause_of_a_group_with_an_order(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g", order="key") as sub:
            for number in range(8):
                bus("publish", "t", number, key=f"k{number % 2}")
            first, second = sorted(collect(api, sub, 2, ack=False), key=lambda event: event.data)
            call("pause", "t", "g")
            api.pause(_QUIET)
            for event in (first, second):
                event.ack()
            assert sub_receives_nothing(api, sub)
            call("resume", "t", "g")
            events = data(api, sub, 6)
            assert [each for each in events if each % 2] == [3, 5, 7]
            assert [each for each in events if not each % 2] == [2, 4, 6]

    @requires("admin.delete_group", "pubsub.group", "pubsub.lag")
    def test_delete_group(self, call: Call, api: Api, bus: Call) -> None:
        call.fails(NotFoundError, match="t has no group 'g'")("delete_group", "t", "g")
        bus("publish_bulk", "t", [0, 1, 2])
        for group in ("g", "other"):
            with bus.opened("subscribe", "t", group=group, start="earliest") as sub:
                for options in ({"dry_run": True}, {}):
                    call.fails(ConflictError, match="has members")("delete_group", "t", group, **options)
                collect(api, sub, 2, ack=False)[0].retry(delay=60)
        assert call("delete_group", "t", "g", dry_run=True) == 3
        assert bus("lag", "t", group="g") == 3
        assert call("delete_group", "t", "g") == 3
        call.fails(NotFoundError, match="t has no group 'g'")("delete_group", "t", "g", dry_run=True)
        assert bus("lag", "t", group="other") == 3
        with bus.opened("subscribe", "t", group="g", start="earliest") as sub:
            assert sorted(data(api, sub, 3)) == [0, 1, 2]

    @requires("admin.delete_group", "pubsub.group", "pubsub.key_order")
    def test_delete_group_with_an_order(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g", order="key") as sub:
            for number in range(4):
                bus("publish", "t", number, key=f"k{number}")
            collect(api, sub, 1)
            call.fails(ConflictError, match="has members")("delete_group", "t", "g")
        assert call("delete_group", "t", "g") == 3
        options = {} if call.lacks("pubsub.start") else {"start": "latest"}
        with bus.opened("subscribe", "t", group="g", **options) as sub:  # of another order
            bus("publish", "t", 4)
            assert data(api, sub, 1) == [4]

    @requires("admin.delete_topic", "admin.topics", "pubsub.group", "pubsub.lag")
    def test_delete_topic(self, call: Call, api: Api, bus: Call) -> None:
        call.fails(NotFoundError, match="has no topic 't'")("delete_topic", "t")
        bus("publish_bulk", "t", [0, 1])
        bus("publish", "tt", "another")
        with bus.opened("subscribe", "t", group="g", start="earliest") as sub:
            collect(api, sub, 1)
            call.fails(ConflictError, match="has members")("delete_topic", "t")
        assert call("delete_topic", "t", dry_run=True) == 2
        assert [each.name for each in call("topics")] == ["t", "tt"]
        assert call("delete_topic", "t") == 2
        assert [each.name for each in call("topics")] == ["tt"]
        bus.fails(NotFoundError)("lag", "t", group="g")
        bus("publish", "t", 2)
        with bus.opened("subscribe", "t", group="g", start="earliest") as sub:
            assert data(api, sub, 1) == [2]
        assert [each.name for each in call("topics")] == ["t", "tt"]


def sub_receives_nothing(api: Api, subscription: Any) -> bool:
    """Return whether nothing comes for a while."""
    return api.call(subscription, "receive", timeout=_QUIET) is None
