"""Producers, consumers and the server are killed: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.harnesses.redis import RedisHome
from tests.support.loss import come_and_go, kill_all
from tests.support.redis import serve


def test_nothing_acknowledged_is_lost(rounds: Callable[[int, int], int], tmp_path: Path) -> None:
    with serve("valkey", appendonly="yes", appendfsync="always") as server:
        kill_all(server, rounds(2, 100), tmp_path)


@pytest.mark.parametrize("layout", ["event", "frame"])
def test_members_that_come_and_go_settle_all(home: RedisHome, layout: str, rounds: Callable[[int, int], int]) -> None:
    come_and_go({"url": home.server.url, "prefix": home.prefix, "layout": layout}, rounds(3_000, 500_000))
    stream = f"{{{home.prefix}:pubsub:bus}}:topic:t"
    assert home.server.command("XPENDING", stream, "suite").startswith(b"*4\r\n:0\r\n")
    assert home.server.command("XINFO", "CONSUMERS", stream, "suite") == b"*0\r\n"
