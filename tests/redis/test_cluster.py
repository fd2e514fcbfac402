"""A cluster: each key goes to its node, slots move while events are published and received, masters fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.redis.rpc import _Registry
from cloud_runtimes.components.redis.topology import slot_of
from cloud_runtimes.errors import CloudRuntimesError, DeadlineExceededError, InvalidArgumentError, UnavailableError
from cloud_runtimes.rpc.registry import Entry
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support import Figure, Make, Rounds
from tests.support.harnesses.redis import ClusterHome
from tests.support.needs import present
from tests.support.ports import free_port
from tests.support.redis import Serve, stopped
from tests.support.redis_sets import RedisCluster, serve_cluster, until
from tests.support.traffic import Traffic
from tests.support.waiting import running


@pytest.fixture
def cluster(valkey_cluster: RedisCluster) -> RedisCluster:
    """Cluster that no test harms; slots may move."""
    return valkey_cluster


@pytest.fixture
def failing(kind: str) -> Iterator[RedisCluster]:
    """Cluster with replicas, whose nodes a test may kill. It notices soon."""
    with present(serve_cluster(kind, replicas=True)) as redis_cluster:
        for node in redis_cluster.nodes:
            node.set("cluster-node-timeout", 600)
        yield redis_cluster


@pytest.mark.parametrize(
    ("key", "slot"),
    [("123456789", 12739), ("{user1000}.following", 3443), ("{user1000}.followers", 3443), ("foo{}{bar}", 8363), ("foo{{bar}}zap", 4015), ("", 0)],
)  # fmt: skip
def test_slots(cluster: RedisCluster, key: str, slot: int) -> None:
    assert slot_of(key) == slot_of(key.encode()) == slot
    assert cluster.masters[0].command("CLUSTER", "KEYSLOT", key) == b":%d\r\n" % slot


def test_names_are_spread(cluster: RedisCluster, client: Make, api: Api) -> None:
    """All names work, on whatever node they are, by the URL of any node."""
    for url in (cluster.url, f"redis://127.0.0.1:{cluster.masters[1].port}"):
        home = client(url, prefix=api.name)
        for number in range(8):
            api.call(home.state, "save", f"s{number}", "k", number)
            with api.opened(home.lock.hold(f"l{number}", "r")):
                assert api.call(home.state, "get", f"s{number}", "k") == number
        assert home.native("state", "s").get("nothing") is None
    assert all(int(each.command("DBSIZE")[1:]) > 0 for each in cluster.masters)


def test_services_find_each_other(cluster: RedisCluster) -> None:
    """Applications are on several nodes, their secret on one."""
    home = ClusterHome(cluster)
    one, two = (_Registry(home.client()._context.runtime().component("state", "s")) for _ in range(2))  # type: ignore[attr-defined]
    op = Operation(Method("rpc", "announce", repeatable=False), "rpc", 5.0)
    for number in range(4):
        entry = Entry("1", f"app{number}", "http://127.0.0.1:1")
        one.enter(op, entry, 15.0, first=True)
        assert two.find(op, entry.app_id) == [entry]
    assert one.secret(op) == two.secret(op)
    home.close()


def test_a_waiter_is_woken_whatever_the_node(
    cluster: RedisCluster, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single connection gets the lock notifications of all nodes."""
    monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 60.0)
    home = client(cluster.url, prefix=f"wait-{api.name}")
    for number in (1, 2, 3):
        lease = api.call(home.lock, "try_lock", f"l{number}", "r", expiry=60)
        with running(threading.Timer(0.05, lease.release)):
            begun = time.monotonic()
            with api.opened(home.lock.hold(f"l{number}", "r", wait=55)):
                assert time.monotonic() - begun < 20


def test_urls_that_do_not_fit(cluster: RedisCluster, served: Serve, client: Make, api: Api) -> None:
    alone = client(f"redis+cluster://127.0.0.1:{served('redis').port}").state
    api.fails(InvalidArgumentError, match="not part of a cluster")(alone, "get", "s", "k")
    node = served("redis", cluster_enabled="yes", cluster_config_file="nodes.conf", cluster_port=free_port())
    state = client(f"redis://127.0.0.1:{node.port}/1").state
    api.fails(InvalidArgumentError, match="database 0 alone")(state, "get", "s", "k")


def test_slots_that_move(cluster: RedisCluster, client: Make, rounds: Rounds) -> None:
    """Key by key, while events are published and received: nothing is lost."""
    prefix = "moves"
    config = {"capa": {"home": {"url": cluster.url, "prefix": prefix}}}
    slot = slot_of(f"{{{prefix}:pubsub:bus}}")

    def make() -> CloudRuntimesClient:
        return CloudRuntimesClient(app_id="suite", config=config, timeout=20)

    with Traffic(make) as traffic:
        for turn in range(rounds(3, 200)):
            owner = cluster.owner(slot)
            others = [each for each in cluster.masters if each is not owner]
            cluster.move(slot, others[turn % 2], pause=0.02)
            traffic.go_on()
    assert traffic.acknowledged
    assert not traffic.lost
    assert not traffic.failed


def test_a_slot_on_its_way(cluster: RedisCluster, client: Make, api: Api) -> None:
    """Operations on one key work on either node; those on several wait for the end of the move, in their deadline."""
    prefix = f"way-{api.name}"
    home = client(cluster.url, prefix=prefix)
    slot = slot_of(f"{{{prefix}:state:s}}")
    api.call(home.state, "save", "s", "k", 1)
    source = cluster.owner(slot)
    assert source is not None
    target = next(each for each in cluster.masters if each is not source)
    ids = [each.command("CLUSTER", "MYID").split(b"\r\n")[1].decode() for each in (source, target)]
    target.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", ids[0])
    source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", ids[1])
    source.command("MIGRATE", "127.0.0.1", str(target.port), f"{{{prefix}:state:s}}:v:k", "0", "5000")
    assert api.call(home.state, "get", "s", "k") == 1
    for _ in range(5):
        error = api.fails(CloudRuntimesError)(home.state, "save", "s", "k", 2, etag=None, timeout=0.3)
        if not isinstance(error, DeadlineExceededError):  # else time ran out during the last of its tries
            break
    assert isinstance(error, UnavailableError)
    assert "TRYAGAIN" in str(error)
    assert not error.maybe_applied
    cluster.move(slot, target)
    api.call(home.state, "save", "s", "k", 2)
    assert api.call(home.state, "get", "s", "k") == 2


@pytest.mark.soak
def test_a_failover(failing: RedisCluster, kind: str, rounds: Rounds, figure: Figure) -> None:
    """Killed masters: a replica has what was acknowledged, and publishers and members go on there."""
    home = {"url": failing.url, "wait_replicas": 1}

    def make() -> CloudRuntimesClient:
        return CloudRuntimesClient(app_id="suite", config={"capa": {"home": home}}, timeout=20)

    slot, count, longest = slot_of("{cr:pubsub:bus}"), rounds(1, 20), 0.0
    with Traffic(make) as traffic:
        for _ in range(count):
            old = failing.owner(slot)
            assert old is not None
            old.kill()
            begun = time.monotonic()
            until(lambda: failing.owner(slot))
            longest = max(longest, time.monotonic() - begun)
            sent = len(traffic.acknowledged)
            old.start()  # as a replica
            until(lambda sent=sent: len(traffic.acknowledged) > sent)
            traffic.go_on()
    assert not traffic.lost
    what = f"{count}: {len(traffic.acknowledged)} acknowledged, 0 lost, {traffic.twice} twice, {traffic.failed} failed, longest {longest:.1f} s"
    figure(f"failovers of a cluster ({kind})", what)


@pytest.mark.soak
def test_a_master_that_hangs(failing: RedisCluster, client: Make) -> None:
    """Its replica takes over. Once it goes on it is a replica."""
    sure, state = client(failing.url, wait_replicas=1).state, client(failing.url).state
    slot = slot_of("{cr:state:s}")
    for number, api in enumerate((SyncApi(), AsyncApi())):
        api.call(sure, "save", "s", "k", number)
        assert api.call(state, "get", "s", "k") == number
        old = failing.owner(slot)
        assert old is not None
        with stopped(old):
            # a call that was sent waits for its answer to its deadline; those after it ask where the key is
            assert api.fails(DeadlineExceededError)(state, "save", "s", "k", 2, timeout=0.3).maybe_applied
            api.call(state, "save", "s", "k", "next")
            assert api.call(state, "get", "s", "k") == "next"
        until(lambda old=old: b"connected" in old.command("ROLE"))
        assert api.call(state, "get", "s", "k") == "next"
        api.close()


def test_a_cluster_that_is_down(served: Serve, client: Make, api: Api) -> None:
    """Nobody has the slot: the error names it, at the deadline."""
    server = served(cluster_enabled="yes", cluster_config_file="nodes.conf", cluster_port=free_port())
    state = client(f"redis://127.0.0.1:{server.port}").state
    for _ in range(5):
        error = api.fails((UnavailableError, DeadlineExceededError))(state, "save", "s", "k", 1, timeout=0.3)
        if not error.maybe_applied:  # else time ran out during the last of its tries
            break
    assert not error.maybe_applied
    if isinstance(error, UnavailableError):  # the time of an async call may be over before the reason is known
        assert "no node of the cluster has the slot" in str(error) or "CLUSTERDOWN" in str(error)
