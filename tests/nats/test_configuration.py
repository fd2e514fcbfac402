"""Configuration whose connections are cut, whose servers restart, and whose bucket goes."""

from __future__ import annotations

from typing import Any

from cloud_runtimes.components.nats import NatsSettings
from cloud_runtimes.components.nats.engine import NatsEngine
from cloud_runtimes.components.nats.requests import Batch, Request
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api
from tests.support import Make, Rounds
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.nats import NatsHome
from tests.support.homes import receive


def test_connections_that_are_cut_miss_nothing(home: NatsHome, client: Make, api: Api, rounds: Rounds) -> None:
    other = home.client()
    with FaultProxy(home.server.port) as proxy:
        mine = client(f"nats://127.0.0.1:{proxy.port}", prefix=home.prefix)
        with api.opened(mine.configuration.subscribe_configuration("app", ["k"])) as subscription:
            for number in range(rounds(4, 200)):
                proxy.break_all("reset" if number % 2 else "close")
                other.configuration.save_configuration("app", {"k": str(number)})
                receive(api, subscription, "k", str(number))


def test_a_bucket_that_was_removed(home: NatsHome, api: Api) -> None:
    """The client that created the bucket creates it again, with versions and etags that it never had."""
    state = home.client().state
    api.call(state, "save", "s", "k", 1)
    before = api.call(state, "get_item", "s", "k").etag
    engine = NatsEngine.acquire(NatsSettings(url=home.server.url))
    subject = f"$JS.API.STREAM.DELETE.KV_{home.prefix}-state-s"

    def delete() -> Any:
        yield Batch(Request(subject), writes=True)

    engine.run(Operation(Method("nats", "delete", repeatable=False), "nats", 5.0), delete())
    engine.release()
    assert api.call(state, "get", "s", "k") is None
    api.call(state, "save", "s", "k", 1)
    assert api.call(state, "get_item", "s", "k").etag != before
