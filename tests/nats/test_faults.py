"""Producers, consumers and the server are killed: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nats.test_pubsub import beside
from tests.support.harnesses.nats import NatsHome
from tests.support.loss import come_and_go, kill_all
from tests.support.nats import NatsServer


def test_nothing_acknowledged_is_lost(
    served: Callable[..., NatsServer], rounds: Callable[[int, int], int], tmp_path: Path
) -> None:
    kill_all(served(jetstream={"sync_interval": "always"}), rounds(1, 100), tmp_path)


@pytest.mark.parametrize("layout", ["event", "frame"])
def test_members_that_come_and_go_settle_all(home: NatsHome, layout: str, rounds: Callable[[int, int], int]) -> None:
    come_and_go({"url": home.server.url, "prefix": home.prefix, "layout": layout}, rounds(3_000, 500_000))
    with beside(home.server.port, home.prefix) as other:
        assert other.pending() == 0
