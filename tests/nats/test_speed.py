"""Cost of a value, compared with prepared bytes on a bare socket, side by side in one run."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from cloud_runtimes.components.nats.entries import encode
from tests.support import Figure
from tests.support.harnesses.nats import NatsHome
from tests.support.nats import NatsServer
from tests.support.wires import BODY, EVENT, NatsWire, beside

pytestmark = pytest.mark.soak
COUNT = 1000
FLIGHT = 50


def test_reading(home: NatsHome, nats_server: NatsServer, figure: Figure) -> None:
    """Reads, one after another."""
    assert nats_server.process is not None
    with closing(NatsWire(home.server.port)) as wire, home.client() as client:
        client.state.save("store", "key", EVENT)
        bucket = f"{home.prefix}-state-store"
        get = f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.v.{encode('key')}"
        ask = f"PUB {get} _INBOX.wire.a 0\r\n\r\n".encode()

        def ours() -> None:
            for _ in range(COUNT):
                assert client.state.get("store", "key") == EVENT

        def bare() -> None:
            for _ in range(COUNT):
                wire.exchange(ask, 1, b"Nats-Sequence:")

        measurement = beside(nats_server.process.pid, ours, bare, COUNT, 50)
    figure("state get on NATS beside a bare socket", str(measurement))
    assert measurement.client <= 8


def test_writing(home: NatsHome, nats_server: NatsServer, figure: Figure) -> None:
    """Fifty at once, in an event loop."""
    assert nats_server.process is not None
    with closing(NatsWire(home.server.port)) as wire, home.client() as client, asyncio.Runner() as runner:
        client.state.save("store", "key", EVENT)
        put = f"PUB $KV.{home.prefix}-state-store.v.bare _INBOX.wire.a {len(BODY)}\r\n".encode()
        commands = (put + BODY + b"\r\n") * FLIGHT

        async def some() -> None:
            for _ in range(COUNT // FLIGHT):
                await client.state.save_async("store", "key", EVENT)

        async def all_of_them() -> None:
            await asyncio.gather(*[some() for _ in range(FLIGHT)])

        def bare() -> None:
            for _ in range(COUNT // FLIGHT):
                wire.exchange(commands, FLIGHT)

        measurement = beside(nats_server.process.pid, lambda: runner.run(all_of_them()), bare, COUNT, 50)
    figure("50 state saves at once on NATS beside a bare socket", str(measurement))
    assert measurement.rate >= 0.15
