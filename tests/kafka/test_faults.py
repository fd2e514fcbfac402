"""Producers, consumers and the broker are killed, their network parted, the broker harmed, members come and go: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import DeadlineExceededError, UnavailableError
from cloud_runtimes.testing import AsyncApi, SyncApi
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.kafka import KafkaHome
from tests.support.kafka import KafkaServer, Missing, serve, stopped
from tests.support.loss import KILLS, come_and_go, dead, kill_all, outlast, slow


@contextmanager
def hung(server: KafkaServer, proxy: FaultProxy) -> Iterator[None]:
    """Have it stand still."""
    with stopped(server):
        yield


HARMS = (
    (slow, DeadlineExceededError, "0.3 s"),
    (hung, DeadlineExceededError, "0.3 s"),
    (dead, UnavailableError, "could not be sent in time; .*down"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    """A broker behind a proxy, which tests may break; they leave it whole, since another takes long to start."""
    with ExitStack() as resources:
        try:
            yield resources.enter_context(serve(proxied=True, group_min_session_timeout_ms=1000))
        except Missing as error:
            pytest.skip(str(error))


def at(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a bus."""
    settings = dict(settings)
    table = {"component": "kafka", "ensure": "create", "servers": settings.pop("url"), **settings}
    return {"pubsub": {"bus": table}}


@pytest.mark.parametrize("retry", ["topic", pytest.param("in_order", marks=pytest.mark.soak)])
@pytest.mark.parametrize("instance", ["one", pytest.param(None, marks=pytest.mark.soak)])
def test_nothing_acknowledged_is_lost(
    server: KafkaServer,
    retry: str,
    instance: str | None,
    rounds: Callable[[int, int], int],
    figure: Callable[[str, str], None],
    tmp_path: Path,
) -> None:
    """With a name, a consumer takes the place of the one that was killed; without, that must be noticed first."""
    more = {"prefix": f"{retry}-{instance}.", "retry": retry, "instance": instance, "session_timeout": 6}
    found = kill_all(server, rounds(1, 40), tmp_path, more, ack_wait=None, config=at, proxy=server.proxy, patience=15)
    figure(f"{KILLS}, Kafka with retry = {retry}, {'static' if instance else 'dynamic'} membership", found)


def test_publishers_outlast(server: KafkaServer, rounds: Callable[[int, int], int]) -> None:
    """A broker that is slow, hung or dead. In CI each harm is tried with one API."""
    assert server.proxy is not None
    with ExitStack() as resources:
        apis = [SyncApi(), AsyncApi()]
        for api in apis:
            resources.callback(api.close)
        url = server.url.replace(str(server.port), str(server.proxy.port))
        for number, (does, kind, match) in enumerate(HARMS):
            for turn in range(rounds(1, 2)):
                config = at({"url": url, "prefix": f"{does.__name__}-{turn}."})
                with CloudRuntimesClient(app_id="suite", config=config, timeout=10) as client:
                    outlast(client, apis[(number + turn) % 2], does(server, server.proxy), kind, match)


@pytest.mark.parametrize(
    ("layout", "retry"),
    [
        ("event", "topic"),
        pytest.param("event", "in_order", marks=pytest.mark.soak),
        pytest.param("frame", "topic", marks=pytest.mark.soak),
        pytest.param("frame", "in_order", marks=pytest.mark.soak),
    ],
)
def test_members_that_come_and_go_settle_all(
    home: KafkaHome, layout: str, retry: str, rounds: Callable[[int, int], int], figure: Callable[[str, str], None]
) -> None:
    """Frames of which something is left come again as a whole."""
    settings = {"url": home.servers, "prefix": home.prefix, "layout": layout, "retry": retry, "partitions": 4}
    count = rounds(1_000, 100_000)
    found = come_and_go(settings, count, config=at, patience=1, once=layout == "event")
    figure(f"members of a Kafka group come and go, layout = {layout}, retry = {retry}", found)
