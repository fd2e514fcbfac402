"""Operation of a server: an account with the rights of the guide has every service, and no more."""

from __future__ import annotations

import re
import shlex
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.errors import PermissionDeniedError
from tests.support import Make
from tests.support.redis import Serve

GUIDES = Path(__file__).parents[2] / "docs" / "how-to"


def _account() -> list[str]:
    """The command of the guide that makes the account."""
    match = re.search(r"^ACL SETUSER shop .*$", (GUIDES / "run-on-redis.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None
    return match[0].split()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_an_account_with_few_rights_has_every_service(served: Serve, client: Make, kind: str) -> None:
    server = served(kind)
    assert server.command(*_account()) == b"+OK\r\n"
    url = f"redis://shop:secret@127.0.0.1:{server.port}/1"
    with client(url) as one:
        with one.lock.hold("l", "printer") as lease, one.state.transaction("s") as tx:
            tx.save("order", {"total": 1}, fence=lease.token, ttl=60)
            tx.save("other", 2)
        one.state.delete("s", "other")
        assert one.state.list_keys("s") == ["order"]
        with one.configuration.subscribe_configuration("c", ["colour"]) as feed:
            one.configuration.save_configuration("c", {"colour": "red"})
            changed = next(change for change in feed if change)  # the first is what was there
            assert changed["colour"].value == "red"
        done = threading.Event()

        @one.schedule.job("report")
        def report(data: Any) -> None:
            done.set()

        one.schedule.schedule_job("report", due_time=0.01)
        with one.schedule.running():
            assert done.wait(30)
        one.pubsub.publish("bus", "orders", 1, delay=0.01)
        one.pubsub.publish("bus", "orders", 2)
        options: dict[str, Any] = {"start": "earliest", "max_deliveries": 2, "dead_letter_topic": "dead"}
        with one.pubsub.subscribe("bus", "orders", **options) as subscription:
            for _ in range(4):
                event = subscription.receive(30.0)
                assert event is not None
                event.retry(0.01)
            assert subscription.receive(0.2) is None
        with one.pubsub.subscribe("bus", "orders", group="g", start=datetime.now(UTC) - timedelta(hours=1)):
            assert one.pubsub.lag("bus", "orders", group="g") == 2
            assert [each.lag for each in one.admin.groups("bus", "orders")] == [2, 0]
            assert len(one.admin.peek("bus", "orders", group="g")) == 2
        assert [topic.name for topic in one.admin.topics("bus")] == ["dead", "orders"]
        assert [event.data for event in one.admin.peek("bus", "orders", start="latest", limit=1)] == [1]
        assert [letters.count for letters in one.admin.dead_letters("bus", "dead")] == [2]
        assert one.admin.redrive("bus", "dead", limit=1).count == one.admin.discard("bus", "dead") == 1
        one.admin.seek("bus", "orders", "g", "earliest")
        one.admin.pause("bus", "orders", "g")
        assert one.admin.delete_group("bus", "orders", "g") == one.admin.purge("bus", "orders") == 2
        assert one.admin.delete_topic("bus", "dead") == 0
    assert server.command("ACL", "LOG") == b"*0\r\n", "nothing was refused"
    with client(url, prefix="other") as other, pytest.raises(PermissionDeniedError):
        other.state.save("s", "order", 1)
    with client(url, layout="dapr") as other, pytest.raises(PermissionDeniedError):
        other.state.save("s", "order", 1)
    assert b"\r\nkey\r\n" in server.command("ACL", "LOG")


def test_the_rest_of_the_guide_is_what_servers_take(served: Serve) -> None:
    text = (GUIDES / "run-on-redis.md").read_text(encoding="utf-8")
    commands = re.findall(
        r"^(?:redis-cli )?((?:CONFIG|INFO|XINFO|XLEN|ZCARD|HGETALL|BGSAVE|LASTSAVE)\b.*)$", text, re.MULTILINE
    )
    assert len(commands) == 11
    server = served()
    server.command("XADD", "{cr:pubsub:bus}:topic:orders", "*", "data", "1")
    for command in commands:
        assert not server.command(*shlex.split(command)).startswith(b"-"), command
