"""A cluster of three: servers that die or go away, and JetStream on the other side of a leaf node."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import gt
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats.connection import Servers
from cloud_runtimes.components.nats.protocol import Message
from cloud_runtimes.components.nats.requests import Batch, Flow, Inbox, Request
from cloud_runtimes.components.nats.rpc import NatsCalls
from cloud_runtimes.errors import CloudRuntimesError, UnsupportedError
from cloud_runtimes.rpc.host import hosts
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support import Figure, Make, Rounds
from tests.support.counting import Counting
from tests.support.nats import NatsServer, Serve, serve_cluster, stopped
from tests.support.needs import present
from tests.support.ports import reserved_port
from tests.support.traffic import Traffic
from tests.support.waiting import until

STREAM = "KV_cr-state-s"
EVENTS = "cr-pubsub-bus"


@pytest.fixture
def cluster() -> Iterator[list[NatsServer]]:
    with present(serve_cluster(jetstream={"sync_interval": "always"}, lame_duck_grace_period="0s")) as servers:
        yield servers


def url(*servers: NatsServer) -> str:
    return "nats://" + ",".join(server.url.removeprefix("nats://") for server in servers)


def engine(client: CloudRuntimesClient) -> Any:
    runtime: Any = client._context.runtime()
    return runtime.component("state", "s").engine


def ask(client: CloudRuntimesClient, verb: str, stream: str = STREAM, body: Any = "") -> Any:
    """Ask JetStream about a stream, by default the bucket ``s`` of state."""

    def flow() -> Flow[Any]:
        ((message,),) = yield Batch(
            Request(f"$JS.API.STREAM.{verb}.{stream}", json.dumps(body).encode() if body else b"")
        )
        return json.loads(message.data)

    return engine(client).run(Operation(Method("test", "ask", repeatable=True), "nats", 10.0), flow())


def leader(client: CloudRuntimesClient, servers: list[NatsServer], stream: str = STREAM) -> NatsServer:
    """Return which server leads a stream, once one does."""
    name = until(lambda: ask(client, "INFO", stream).get("cluster", {}).get("leader"))
    return servers[int(name.removeprefix("s"))]


def lead(client: CloudRuntimesClient, servers: list[NatsServer], stream: str, number: int) -> None:
    """Have a server lead a stream."""

    def leads() -> bool:
        if leader(client, servers, stream) is servers[number]:
            return True
        ask(client, "LEADER.STEPDOWN", stream, {"placement": {"preferred": f"s{number}"}})
        time.sleep(0.5)
        return False

    until(leads)


def whole(servers: list[NatsServer]) -> None:
    """Wait until all have caught up, since a cluster of three bears that one is missing: one that is behind is not elected, and does not vote for another either."""
    until(lambda: all(server.is_current() for server in servers))


def client_of(servers: list[NatsServer]) -> Callable[[], CloudRuntimesClient]:
    """Return what makes a client of servers."""
    home = {"url": url(*servers), "replicas": 3}
    return lambda: CloudRuntimesClient(app_id="suite", config={"capa": {"home": home}}, timeout=20)


@pytest.mark.soak
def test_a_leader_is_killed(cluster: list[NatsServer], client: Make, rounds: Rounds, figure: Figure) -> None:
    """State, configuration, locks and events go on; nothing acknowledged is absent. The client knows one server, which is the one that is killed."""
    count, longest = rounds(1, 60), 0.0
    watching = client(url(*cluster), replicas=3)
    watching.state.save("s", "main", 0)
    app_client = client(url(leader(watching, cluster)), replicas=3)
    acknowledged: dict[str, int] = {}
    tokens: list[int] = []
    unclear: list[CloudRuntimesError] = []
    over = threading.Event()

    def save(name: str, number: int) -> None:
        app_client.state.save("s", name, number, timeout=2)

    def configure(name: str, number: int) -> None:
        app_client.configuration.save_configuration("c", {name: str(number)}, timeout=2)

    def lock(name: str, number: int) -> None:
        lease = app_client.lock.try_lock("l", name, f"owner-{number}", expiry=30, timeout=2)
        if lease is not None:
            assert lease.token is not None
            tokens.append(lease.token)
            lease.release(timeout=2)

    def write(name: str, body: Callable[[str, int], None]) -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                body(name, number)
                acknowledged[name] = number
            except CloudRuntimesError as error:
                unclear.append(error)

    writers = {"s0": save, "s1": save, "c0": configure, "l0": lock}
    with (
        Counting([watching, app_client]) as counting,
        Traffic(client_of(cluster), timeout=2) as traffic,
        ThreadPoolExecutor(4) as threads,
    ):
        running = [threads.submit(write, *each) for each in writers.items()]
        try:
            for turn in range(1, count + 1):
                until(lambda: len(acknowledged) == 4)
                whole(cluster)
                killed = leader(watching, cluster)
                lead(watching, cluster, EVENTS, cluster.index(killed))  # so that the events lose theirs too
                killed.kill()
                begun, sent = time.monotonic(), len(traffic.acknowledged)
                app_client.state.save("s", "main", turn, timeout=30)
                before = dict(acknowledged)
                until(lambda before=before: all(acknowledged[name] > before[name] for name in ("s0", "s1", "c0")))  # type: ignore[misc]
                until(lambda sent=sent: len(traffic.acknowledged) > sent)  # type: ignore[misc]
                longest = max(longest, time.monotonic() - begun)
                killed.start()
                traffic.go_on()
        finally:
            over.set()
        for each in running:
            each.result()
    assert not traffic.lost
    for name in ("s0", "s1"):
        assert app_client.state.get("s", name) >= acknowledged[name]
    assert app_client.state.get("s", "main") == count
    assert int(app_client.configuration.get_configuration("c", ["c0"])["c0"]) >= acknowledged["c0"]
    assert tokens == sorted(set(tokens))
    what = f"{count}: {len(traffic.acknowledged)} acknowledged, 0 lost, {traffic.twice} twice, {traffic.failed} failed, longest {longest:.1f} s; {counting.check()}"
    figure("leaders of JetStream killed, of three servers", what)


@pytest.mark.soak
def test_a_leader_that_hangs(cluster: list[NatsServer], client: Make, figure: Figure) -> None:
    """Another is elected. The old one believes to lead when it goes on, and nothing acknowledged is lost."""
    app_client = client(url(*cluster), replicas=3)
    clients = [app_client, client(url(*reversed(cluster)), replicas=3)]
    with Counting(clients) as counting, Traffic(client_of(cluster), timeout=2) as traffic:
        for _ in range(10):
            whole(cluster)
            hangs = leader(app_client, cluster, EVENTS)
            lead(app_client, cluster, STREAM, cluster.index(hangs))
            with stopped(hangs):
                sent, counted = len(traffic.acknowledged), [len(each) for each in counting.acknowledged]
                until(lambda sent=sent: len(traffic.acknowledged) > sent + 10)  # type: ignore[misc]
                until(lambda counted=counted: all(map(gt, map(len, counting.acknowledged), counted)))  # type: ignore[misc]
            traffic.go_on()
    assert not traffic.lost
    what = f"10: {len(traffic.acknowledged)} acknowledged, 0 lost, {traffic.twice} twice, {traffic.failed} failed; {counting.check()}"
    figure("leaders of JetStream stopped until another is elected, of three servers", what)


def test_a_write_whose_answer_is_lost(cluster: list[NatsServer], client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent again, as a dead leader would not answer it, and is there once: the server tells that it had it. Another may have written meanwhile.

    Nor is the refusal of a server believed that led before: it knows of earlier writes than the client.
    """
    monkeypatch.setattr("cloud_runtimes.components.nats.engine._WRITTEN", 0.5)
    app_client, other = client(url(*cluster), replicas=3), client(url(*cluster[1:]), replicas=3)
    refusal = {"error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 12"}}
    take: Any = Inbox.take
    happens: list[Callable[[], Any]] = []

    def lose(self: Inbox, message: Message) -> None:
        if happens and STREAM.encode() in message.data and b'"seq":' in message.data:
            if (answer := happens.pop()()) is not None:
                take(self, message._replace(data=json.dumps(answer).encode()))
        else:
            take(self, message)

    monkeypatch.setattr(Inbox, "take", lose)
    meanwhile: list[tuple[Callable[[], Any], int]] = [
        (lambda: None, 1),
        (lambda: other.state.save("s", "k", 0), 2),
        (lambda: refusal, 1),
    ]
    for api in (SyncApi(), AsyncApi()):
        api.call(app_client.state, "save", "s", "k", 0)
        for what, writes in meanwhile:
            before = other.state.get_item("s", "k")
            happens.append(what)
            api.call(app_client.state, "save", "s", "k", 1, etag=before.etag, concurrency="first-write")
            assert not happens
            after = other.state.get_item("s", "k")
            assert (after.value, _number(after)) == (2 - writes, _number(before) + writes)
        happens.append(meanwhile[0][0])
        api.call(app_client.state, "save", "s", "k", 2)
        assert _number(other.state.get_item("s", "k")) == _number(after) + 1
        api.close()


def _number(item: Any) -> int:
    return int(item.etag, 16)


def test_a_server_that_is_going_away(cluster: list[NatsServer], client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so (lame duck mode), and those that it serves leave without an error."""
    monkeypatch.setattr(hosts, "find", lambda app_id: None)
    going = cluster[0]
    app_client, other = client(url(*cluster), replicas=3), client(url(*cluster[1:]), replicas=3)
    other.state.save("s", "k", 0)
    until(lambda: leader(other, cluster))
    app_client.rpc.register_method("echo", lambda data: data)
    over = threading.Event()

    def call() -> int:
        number = 0
        while not over.is_set():
            number += 1
            assert other.rpc.invoke_method("suite", "echo", number, timeout=30) == number
            assert app_client.state.get("s", "k", timeout=30) == 0
        return number

    def port() -> int:
        return int(engine(app_client)._threads.shared.connection._server[1])

    with app_client.rpc.serving(), ThreadPoolExecutor(2) as threads:
        running = [threads.submit(call) for _ in range(2)]
        until(lambda: engine(app_client)._threads.shared is not None)
        assert port() == going.port
        going.signal(signal.SIGUSR2)
        until(lambda: port() != going.port)
        time.sleep(0.3)
        over.set()
        assert all(each.result() for each in running)
    going.kill()  # it would take its time


def test_an_answer_while_its_server_is_gone(
    cluster: list[NatsServer], client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the next connection, since its caller is on another server."""
    monkeypatch.setattr(hosts, "find", lambda app_id: None)
    serving, calling = client(url(*cluster[:2])), client(cluster[1].url)
    running, over, gate = threading.Event(), threading.Event(), threading.Event()

    def held() -> str:
        running.set()
        over.wait(30)
        return "done"

    serving.rpc.register_method("held", held)
    connect: Any = NatsCalls._connect

    def late(self: NatsCalls, op: Operation) -> Any:
        gate.wait(30)
        return connect(self, op)

    with serving.rpc.serving() as server, ThreadPoolExecutor(1) as threads:
        calls: Any = server._calls
        until(lambda: _try(lambda: calling.rpc.invoke("suite", "ready").status) == 404)  # the other node knows it
        monkeypatch.setattr(NatsCalls, "_connect", late)
        call = threads.submit(calling.rpc.invoke_method, "suite", "held", timeout=60)
        until(running.is_set)
        cluster[0].kill()
        until(lambda: calls._connection.ended)
        over.set()
        until(lambda: not calls._in_hand)
        gate.set()
        assert call.result() == "done"


def _try(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except CloudRuntimesError as error:
        return type(error)


def test_a_bucket_that_is_gone(served: Serve, client: Make, api: Api) -> None:
    """A call that finds none waits a moment, looks, and makes it: within one call, a conditional one too."""
    app_client = client(served().url)
    for number, options in enumerate(({}, {"concurrency": "first-write"}), 1):
        api.call(app_client.state, "save", "s", "old", number)
        ask(app_client, "DELETE")
        api.call(app_client.state, "save", "s", "k", number, **options)
        assert api.call(app_client.state, "get", "s", "k") == number
        assert api.call(app_client.state, "get", "s", "old") is None
    ask(app_client, "DELETE")
    assert api.call(app_client.state, "get", "s", "k") is None


def test_a_question_is_asked_again(served: Serve, client: Make, api: Api) -> None:
    server = served()
    state = client(server.url).state
    api.call(state, "save", "s", "k", 1)
    server.signal(signal.SIGSTOP)
    threading.Timer(1.3, server.signal, [signal.SIGCONT]).start()
    assert api.call(state, "get", "s", "k", timeout=10) == 1


def test_replicas_without_a_cluster(served: Serve, client: Make, api: Api) -> None:
    error = api.fails(UnsupportedError, match="replicas need a cluster.*set replicas = 1")(
        client(served().url, replicas=3).state, "save", "s", "k", 1
    )
    assert not error.maybe_applied


def test_another_domain(served: Serve, client: Make, api: Api) -> None:
    """The buckets are on the hub, and the connection goes to a leaf with a JetStream of its own."""
    with reserved_port() as port:
        hub = served(jetstream={"domain": "hub"}, server_name="hub", leafnodes={"listen": f"127.0.0.1:{port}"})
        leaf = served(
            jetstream={"domain": "leaf"},
            server_name="leaf",
            leafnodes={"remotes": [{"url": f"nats://127.0.0.1:{port}"}]},
        )
        until(lambda: "Leafnode connection created" in (leaf.folder / "log").read_text())
        far, near, at_hub = client(leaf.url, domain="hub"), client(leaf.url), client(hub.url)
        api.call(far.state, "save", "s", "k", "hub")
        api.call(near.state, "save", "s", "k", "leaf")
        assert api.call(at_hub.state, "get", "s", "k") == "hub"
        assert api.call(far.state, "get", "s", "k") == "hub"
        assert api.call(near.state, "get", "s", "k") == "leaf"
        assert [api.call(each.state, "list_keys", "s") for each in (far, near)] == [["k"], ["k"]]
        api.call(far.configuration, "save_configuration", "c", {"k": "v"})
        assert api.call(at_hub.configuration, "get_configuration", "c", ["k"]) == {"k": "v"}
        lease = api.call(far.lock, "try_lock", "l", "r", "me", expiry=10)
        assert api.call(at_hub.lock, "try_lock", "l", "r", "you", expiry=10) is None
        api.call(lease, "release")


def test_servers_that_are_told_of() -> None:
    servers = Servers((("a", 1), ("b", 2)))
    servers.learn(["10.0.0.1:3", "[::1]:4", "nonsense", ":5"])
    assert list(servers) == [("a", 1), ("b", 2), ("10.0.0.1", 3), ("::1", 4)]
    servers.avoid(("a", 1))
    servers.learn(["10.0.0.2:5", "10.0.0.1:3", "a:1"])
    assert list(servers) == [("b", 2), ("10.0.0.1", 3), ("a", 1), ("10.0.0.2", 5)]
    assert [servers.name(each) for each in servers] == ["b", "a", "a", "a"]
