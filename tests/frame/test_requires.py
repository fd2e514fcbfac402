"""Features that the code needs are compared with what components have, before anything begins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, lifespan
from cloud_runtimes.errors import InvalidArgumentError, UnsupportedError

REDIS = {"component": "redis", "url": "redis://127.0.0.1:1"}
BUCKET = {"component": "objectstore", "url": "s3://bucket/prefix"}
KAFKA = {"component": "kafka", "servers": "127.0.0.1:1"}


def client(in_code: Any = None, in_table: Any = None, **tables: Any) -> CloudRuntimesClient:
    config = {"capa": {"home": ":memory:"}, "requires": in_table or {}, **tables}
    return CloudRuntimesClient(app_id="shop", config=config, requires=in_code)


def test_what_is_there_passes() -> None:
    requires = {"state": {"orders": ["transaction", "ttl"]}, "pubsub": {"bus": ("key_order", "inbox")}}
    with client(requires, {"lock": {"l": ["token"]}}) as shop:
        shop.wait_ready()


def test_each_missing_feature_is_named_with_its_remedy() -> None:
    tables = {"pubsub": {"bus": KAFKA}, "state": {"orders": REDIS}}
    with client({"pubsub": {"bus": ["delay"]}, "state": {"orders": ["ttl"]}}, **tables) as shop:
        with pytest.raises(
            UnsupportedError, match=r"a required feature is missing:\n  \[pubsub.bus\] has no delay: sched"
        ):
            shop.wait_ready()
    with client(None, {"pubsub": {"bus": ["delay", "key_order", "inbox"]}}, **tables) as shop:
        with pytest.raises(UnsupportedError, match="2 features that the code requires are missing") as raised:
            shop.wait_ready()
    missing = ["[pubsub.bus] has no delay:", "[pubsub.bus] has no inbox:"]
    assert [line.strip()[:26] for line in str(raised.value).splitlines()[1:]] == missing


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ({"stat": {"orders": ["ttl"]}}, r"there is no service 'stat'; did you mean 'state'\?"),
        ({"state": ["ttl"]}, r"requires.state: give a table"),
        ({"state": {"orders": "ttl"}}, r"requires.state.orders: give a list"),
        ({"state": {"orders": ["tll"]}}, r"there is no feature 'tll'; did you mean 'ttl'\?"),
    ],
)
def test_what_is_misspelled_is_told(requires: Any, message: str) -> None:
    with client(requires) as shop, pytest.raises(InvalidArgumentError, match=message):
        shop.wait_ready()
    with client(None, requires) as shop, pytest.raises(InvalidArgumentError, match=message):
        shop.wait_ready()


def test_declared_subscriptions_are_compared_before_any_begins() -> None:
    with client(pubsub={"bus": {**KAFKA, "layout": "frame"}}) as shop:
        shop.rpc.register_method("echo", lambda data: data)

        @shop.pubsub.subscription("bus", "t", order="key")
        def handle(data: int) -> None:
            """Never called."""

        with pytest.raises(UnsupportedError, match="order= is not supported by 'bus'"):
            with shop.running():
                pass
        with pytest.raises(UnsupportedError, match="order= is not supported by 'bus'"):
            shop.wait_ready()


def test_a_lifespan_checks() -> None:
    async def begin(shop: CloudRuntimesClient) -> None:
        async with lifespan(shop)(None):
            pass

    with client({"state": {"orders": ["outbox"]}}, state={"orders": BUCKET}) as shop:
        with pytest.raises(UnsupportedError, match=r"\[state.orders\] has no outbox"):
            asyncio.run(begin(shop))
