"""``client.admin`` on Redis: an account that may only read looks at everything, and looking leaves no trace that ``redis-cli`` would show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes.errors import PermissionDeniedError
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.harnesses.redis import RedisHome
from tests.support.redis import Serve
from tests.support.waiting import until

_LOOKING = ("+@read", "+@connection", "+@scripting", "+time", "+info")


def fill(client: Any) -> Callable[[], None]:
    """Fill a bus with two groups, one of which has an order; returns what looks at all of it."""
    client.pubsub.publish_bulk("bus", "t", list(range(6)))
    with client.pubsub.subscribe("bus", "t", group="g", dead_letter_topic="dead") as events:
        taken = [events.receive(timeout=10) for _ in range(4)]
        taken[0].drop()
        taken[1].retry(delay=60)
        taken[2].ack()
        assert until(lambda: client.pubsub.lag("bus", "t", group="g") == 4)
    with client.pubsub.subscribe("bus", "t", group="ordered", order="key"):
        pass

    def look() -> None:
        assert [topic.name for topic in client.admin.topics("bus")] == ["dead", "t"]
        first, second = client.admin.groups("bus", "t")
        assert (first.name, second.name, second.lag) == ("g", "ordered", 6)
        assert first.lag == client.pubsub.lag("bus", "t", group="g") in (3, 4)  # what is given back may share a message
        assert sorted(event.data for event in client.admin.peek("bus", "t", group="g")) == [1, 3, 4, 5]
        assert len(client.admin.peek("bus", "t", group="ordered")) == 6
        assert len(client.admin.peek("bus", "t", start="latest", limit=3)) == 3
        assert [each.count for each in client.admin.dead_letters("bus", "dead")] == [1]

    return look


def test_looking_leaves_no_trace(home: RedisHome) -> None:
    look = fill(home.client())
    command = home.server.command
    head = f"{{{home.prefix}:pubsub:bus}}:"

    def state() -> list[bytes]:
        keys = [f"{head}topic:t", f"{head}retry:g:t"]
        told = [command("XINFO", "GROUPS", key) + command("XPENDING", key, "g") + command("XLEN", key) for key in keys]
        return [*told, command("ZCARD", f"{head}later:g:t"), command("HGETALL", f"{head}seen:t"), command("DBSIZE")]

    before = state()
    assert b"last-delivered-id" in before[0]
    look()
    assert state() == before


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_an_account_that_may_only_read(kind: str, served: Serve, client: Make, api: Api) -> None:
    server = served(kind)
    fill(client(server.url, prefix="few"))
    server.command("ACL", "SETUSER", "looker", "on", ">right", "~{few:*", *_LOOKING)
    looker = client(f"redis://looker:right@127.0.0.1:{server.port}", prefix="few")
    api.fails(PermissionDeniedError)(looker.pubsub, "publish", "bus", "t", 1)
    assert api.call(looker.admin, "topics", "bus")
    assert [each.name for each in api.call(looker.admin, "groups", "bus", "t")] == ["g", "ordered"]
    assert len(api.call(looker.admin, "peek", "bus", "t", group="g")) == 4
    assert len(api.call(looker.admin, "dead_letters", "bus", "dead")) == 1
