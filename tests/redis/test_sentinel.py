"""A master that Sentinels watch: it is found, followed when it fails, and what was acknowledged is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.redis.settings import parse_target
from cloud_runtimes.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from cloud_runtimes.testing.canary import Canary
from tests.support import Figure, Make, Rounds
from tests.support.needs import present
from tests.support.redis import Serve, stopped
from tests.support.redis_sets import MASTER, SentinelSet, serve_sentinels
from tests.support.traffic import Traffic
from tests.support.waiting import in_threads, until


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelSet]:
    """A master and its replica, which a test leaves as it found them, perhaps in other roles."""
    with present(serve_sentinels()) as sentinels:
        yield sentinels


def test_all_services_find_the_master(watched: SentinelSet, client: Make, api: Api) -> None:
    home = client(watched.url, prefix=api.name)
    api.call(home.state, "save", "s", "k", 1)
    assert api.call(home.state, "get", "s", "k") == 1
    api.call(home.pubsub, "publish", "bus", "t", 1)
    with api.opened(home.lock.hold("l", "r")):
        pass
    assert home.native("state", "s").get("nothing") is None


@pytest.mark.parametrize("hangs", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_one_sentinel_is_enough(watched: SentinelSet, client: Make, hangs: bool) -> None:
    """Another is gone, or does not answer."""
    first, second = watched.sentinels[:2]
    with stopped(first) if hangs else nullcontext():
        port = first.port if hangs else 1
        client(f"redis+sentinel://127.0.0.1:{port},127.0.0.1:{second.port}/{MASTER}").state.save("s", "k", 1)


def test_a_name_that_no_sentinel_knows(watched: SentinelSet, client: Make, api: Api) -> None:
    url = watched.url.replace(MASTER, "other")
    api.fails(InvalidArgumentError, match="know no master of this name")(client(url).state, "get", "s", "k")


def test_no_sentinel_there(client: Make, api: Api) -> None:
    state = client(f"redis+sentinel://127.0.0.1:1,127.0.0.1:2/{MASTER}").state
    for _ in range(5):
        error = api.fails((UnavailableError, DeadlineExceededError))(state, "save", "s", "k", 1, timeout=0.3)
        if isinstance(error, UnavailableError):  # else time ran out during the last of its tries
            break
    assert isinstance(error, UnavailableError)
    assert "cannot be asked: Connection refused" in str(error)
    assert not error.maybe_applied


def test_what_is_no_sentinel(watched: SentinelSet, client: Make, api: Api) -> None:
    data, sentinel = watched.servers[0].port, watched.sentinels[0].port
    state = client(f"redis+sentinel://127.0.0.1:{data}/{MASTER}").state
    api.fails(InvalidArgumentError, match="this is no Sentinel")(state, "get", "s", "k")
    state = client(f"redis://127.0.0.1:{sentinel}").state
    api.fails(InvalidArgumentError, match=r"is a Sentinel: give redis\+sentinel://")(state, "get", "s", "k")


def test_passwords_of_both(client: Make, canary: Canary) -> None:
    word, other = canary.value(), canary.value()
    extra = f"requirepass {other}\nsentinel auth-pass {MASTER} {word}"
    with serve_sentinels(replicas=0, extra=extra, requirepass=word) as sentinels:
        address = sentinels.url.removeprefix("redis+sentinel://")
        client(f"redis+sentinel://:{word}@{address}?sentinel_password={other}").state.save("s", "k", 1)
        for url in (
            f"redis+sentinel://:{word}@{address}",
            f"redis+sentinel://:{other}@{address}?sentinel_password={other}",
        ):
            with canary.raises(UnauthenticatedError, match="does not accept the user or the password"):
                client(url).state.get("s", "k")


@pytest.mark.parametrize(
    ("url", "server", "seeds"),
    [
        ("redis+sentinel://h/m", ("h", 6379, None, None, 0, None), [("h", 26379, None, None, 0, None)]),
        (
            "redis+sentinel://u:p%40@h:1,[::1]/m%20x/2?sentinel_username=su&sentinel_password=s%40",
            ("h", 1, "u", "p@", 2, None),
            [("h", 1, "su", "s@", 0, None), ("::1", 26379, "su", "s@", 0, None)],
        ),
        (
            "rediss+sentinel://h:1/m?db=3&ssl_cert_reqs=none",
            ("h", 1, None, None, 3, (("ssl_cert_reqs", "none"),)),
            [("h", 1, None, None, 0, (("ssl_cert_reqs", "none"),))],
        ),
        ("redis+cluster://:p@h,i:1", ("h", 6379, None, "p", 0, None), [("h", 6379, None, "p", 0, None), ("i", 1, None, "p", 0, None)]),
    ],
)  # fmt: skip
def test_urls(url: str, server: tuple[Any, ...], seeds: list[tuple[Any, ...]]) -> None:
    target = parse_target(url)
    assert target.server == server
    assert list(target.seeds) == seeds
    assert not {"p@", "s@"} & set(target.where.split(","))


def test_a_failover(watched: SentinelSet, rounds: Rounds, figure: Figure) -> None:
    """Killed masters: where all replicas have each write, nothing acknowledged is lost. Publishers and members go on."""

    def make() -> CloudRuntimesClient:
        home = {"url": watched.url, "wait_replicas": 1, "prefix": "failover"}
        return CloudRuntimesClient(app_id="suite", config={"capa": {"home": home}}, timeout=20)

    def wait(api: Api) -> None:
        """A call of the time in between waits for the next master."""
        assert api.call(home.state, "get", "s", "k") == turn
        waits.append(time.monotonic() - begun)

    waits: list[float] = []
    apis = (SyncApi(), AsyncApi())
    count = rounds(1, 20)
    with make() as home, Traffic(make) as traffic:
        for turn in range(count):
            home.state.save("s", "k", turn)
            old = watched.master()
            old.kill()
            begun = time.monotonic()
            in_threads(*[threading.Thread(target=wait, args=(api,)) for api in apis])
            assert len(waits) == 2 * (turn + 1)
            until(lambda old=old: watched.master() is not old)  # type: ignore[misc]
            watched.rejoin(old)
            traffic.go_on()
    for api in apis:
        api.close()
    assert traffic.acknowledged
    assert not traffic.lost
    what = f"{count}: {len(traffic.acknowledged)} acknowledged, 0 lost, {traffic.twice} twice, {traffic.failed} failed, longest {max(waits):.1f} s"
    figure("failovers by Sentinel", what)


def test_too_few_replicas(served: Serve, client: Make, api: Api) -> None:
    """A write that no replica has may have been applied; reads need none."""
    state = client(served().url, wait_replicas=1, wait_timeout=0.01).state
    error = api.fails(UnavailableError, match="0 replicas of the 1 that wait_replicas wants")(
        state, "save", "s", "k", 1
    )
    assert error.maybe_applied
    assert api.call(state, "get", "s", "k") == 1


def test_a_user_who_may_not_wait(served: Serve, client: Make, api: Api) -> None:
    server = served()
    server.command("ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-wait")
    state = client(f"redis://u:p@127.0.0.1:{server.port}", wait_replicas=1).state
    assert api.fails(PermissionDeniedError)(state, "save", "s", "k", 1).maybe_applied
