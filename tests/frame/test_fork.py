"""A forked child has engines, ids and publishers of its own; handles stay the parent's; nobody's file suffers."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, config
from cloud_runtimes._core import fork, threads
from cloud_runtimes.client import SERVICES
from cloud_runtimes.components.config_file.watched import QUIET
from cloud_runtimes.errors import ClosedError
from cloud_runtimes.runtimes.capa import CapaRuntime
from cloud_runtimes.spi.executor import Executor
from tests.support import Rounds
from tests.support.forked import in_child
from tests.support.waiting import until

pytestmark = [
    pytest.mark.process,
    # the interpreter warns of fork beside threads, which is what is tested
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test") as instance:
        instance.state.save("store", "parent", 1)
        yield instance


def refused(call: Callable[[], Any]) -> str:
    try:
        call()
    except ClosedError as error:
        return str(error)
    return "not refused"


def integrity(home: Path) -> str:
    connection = sqlite3.connect(home / "cloud_runtimes.db")
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def test_a_child_reconnects(client: CloudRuntimesClient, home: Path) -> None:
    def body() -> Any:
        assert client.state.get("store", "parent") == 1
        client.state.save("store", "child", 2)
        client.pubsub.publish("bus", "t", "from the child")
        return client.state.list_keys("store")

    assert in_child(body) == ["child", "parent"]
    client.state.save("store", "after", 3)
    assert client.state.list_keys("store") == ["after", "child", "parent"]
    with client.pubsub.subscribe("bus", "t") as sub:
        event = sub.receive(5)
        assert event is not None
        assert event.data == "from the child"
        event.ack()
    assert integrity(home) == "ok"


def test_a_child_waits_for_no_thread_of_the_parent(request: pytest.FixtureRequest) -> None:
    others = set(threads._mutexes)  # of what this process had before
    client: CloudRuntimesClient = request.getfixturevalue("client")
    client.pubsub.publish("bus", "t", 1)
    held = {fork.importing, *threads._mutexes} - (others - {fork.importing})

    def body() -> Any:
        client.state.save("store", "child", 2)
        client.pubsub.publish("bus", "t", 2)
        client.file.put_file("files", "a", b"1")
        return client.state.list_keys("store")

    with ThreadPoolExecutor(1) as other:
        other.submit(lambda: [mutex.acquire() for mutex in held]).result()
        try:
            assert in_child(body) == ["child", "parent"]
        finally:
            other.submit(lambda: [mutex.release() for mutex in held]).result()
    assert client.state.get("store", "child") == 2


def test_what_is_kept_is_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "_kept", [])
    closed: list[str] = []

    class Connection:
        def __del__(self) -> None:
            closed.append("closed")

    fork.keep(Connection(), Connection())
    gc.collect()
    assert closed == []


def test_handles_belong_to_the_parent(client: CloudRuntimesClient) -> None:
    sub = client.pubsub.subscribe("bus", "t")
    tx = client.state.transaction("store")

    def body() -> Any:
        return [
            refused(lambda: sub.receive(1)),
            refused(sub.wait),
            refused(sub.close),
            refused(lambda: tx.save("k", 1)),
            refused(tx.__enter__),
        ]

    assert all("before fork" in said for said in in_child(body))
    client.pubsub.publish("bus", "t", 1)
    event = sub.receive(5)
    assert event is not None
    event.ack()
    sub.close()


def test_a_configuration_subscription_belongs_to_the_parent(client: CloudRuntimesClient, tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text("x = 1")
    # followed by notices, whose kernel objects the child inherits
    table = {"component": "config_file", "path": str(path), "watch": "watchfiles", "poll_interval": "60s"}
    with CloudRuntimesClient(config={"configuration": {"app": table}}) as files:
        subs = [client.configuration.subscribe_configuration("app"), files.configuration.subscribe_configuration("app")]
        for sub in subs:
            assert sub.receive(30) is not None
        time.sleep(0.3)  # until all is connected

        def body() -> Any:
            said = [
                refused(call)
                for sub in subs
                for call in (lambda sub=sub: sub.receive(1), sub.current, sub.wait, sub.close, sub.__enter__)
            ]
            client.configuration.save_configuration("app", {"from": "the child"})
            with client.configuration.subscribe_configuration("app") as mine:
                got = mine.receive(30)
            with files.configuration.subscribe_configuration("app") as its:
                more = its.receive(30)
            subs.clear()
            return said, [{key: item.value for key, item in (each or {}).items()} for each in (got, more)]

        said, got = in_child(body)
        assert len(said) == 10
        assert all("before fork" in each for each in said)
        assert got == [{"from": "the child"}, {"x": "1"}]
        # the parent's go on
        (items,) = [subs[0].receive(30)]
        assert items is not None
        assert items["from"].value == "the child"
        beside = tmp_path / "beside"
        beside.write_text("x = 2")
        beside.replace(path)
        items = subs[1].receive(30)
        assert items is not None
        assert items["x"].value == "2"
        for sub in subs:
            sub.close()


@pytest.mark.parametrize("service", ["configuration", "secret"])
def test_a_fork_beside_a_look_at_a_file(tmp_path: Path, service: str) -> None:
    """The child has a client of the same runtime object, whose file another thread was looking at."""
    path = tmp_path / "app.toml"
    path.write_text("x = '1'")
    path.chmod(0o600)
    table = {service: {"app": {"component": "config_file", "path": str(path)}}}
    settings = config.load(
        table, services=SERVICES, endpoint=None, timeout=20.0, runtime="capa", app_id="test", api_token=None
    )
    with CloudRuntimesClient(runtime=CapaRuntime(settings, Executor()), config=table, timeout=5) as client:

        def get() -> str:
            if service == "secret":
                return client.secret.get_secret("app", "x").value
            return client.configuration.get_configuration("app")["x"]

        assert get() == "1"
        component = getattr(client, service)._frame.driver("app")._component
        watched = (component.secrets if service == "secret" else component.configuration)._file
        path.write_text("x = '2'")  # what is new is told under the lock
        with ThreadPoolExecutor(1) as pool:
            pool.submit(watched._lock.acquire).result()
            try:
                time.sleep(2 * QUIET)
                assert in_child(get) == "2"
            finally:
                pool.submit(watched._lock.release).result()


@pytest.mark.promise("E1")
def test_a_publisher_starts_empty(client: CloudRuntimesClient) -> None:
    publisher = client.pubsub.publisher("bus", "t", linger=60)
    for number in range(10):
        publisher.send(["parent", number])

    def body() -> Any:
        before = list(publisher.stats())
        numbers = [publisher.send(["child", number]) for number in range(3)]
        publisher.flush(10)
        after = list(publisher.stats())
        publisher.close()
        return before, numbers, after[:5]

    before, numbers, after = in_child(body)
    assert before == [0] * 7
    assert numbers == [1, 2, 3]
    assert after == [3, 3, 0, 0, 0]
    assert publisher.stats().buffered == 10
    publisher.close()
    events = []
    with client.pubsub.subscribe("bus", "t") as sub:
        while len(events) < 13:
            event = sub.receive(5)
            assert event is not None
            events.append(event)
            event.ack()
        assert sub.receive(0.2) is None
    assert sorted(event.data for event in events) == sorted(
        [["parent", n] for n in range(10)] + [["child", n] for n in range(3)]
    )
    assert len({event.id for event in events}) == 13


@pytest.mark.promise("E1")
def test_forks_beside_writers(client: CloudRuntimesClient, home: Path, rounds: Rounds) -> None:
    """Forks fall into every moment of other threads' writes: holding the mutex, the write lock, in the commit."""
    stop = threading.Event()
    written = [0, 0]
    publisher = client.pubsub.publisher("bus", "p")

    def save(which: int) -> None:
        while not stop.is_set():
            client.state.save("store", f"thread{which}", written[which])
            publisher.send(written[which])
            written[which] += 1

    threads = [threading.Thread(target=save, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    count = rounds(15, 300)
    try:
        for number in range(count):

            def body(number: int = number) -> Any:
                client.state.save("store", f"child{number}", number)
                publisher.send(-number)
                publisher.flush(10)
                return client.state.get("store", f"child{number}")

            assert in_child(body) == number
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    publisher.close()
    assert publisher.stats().delivered == sum(written)
    assert len(client.state.list_keys("store", "child")) == count
    assert [client.state.get("store", f"thread{which}") for which in range(2)] == [each - 1 for each in written]
    assert integrity(home) == "ok"


def test_a_dead_parents_write_lock_is_free(client: CloudRuntimesClient, home: Path) -> None:
    """The child does not keep alive a lock that the parent held when it forked."""
    engine = client.state._frame.driver("store")._engine
    write_lock = engine._write_lock
    write_lock.acquire()
    try:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            os.write(writing, b"1")
            time.sleep(300)
            os._exit(0)
        os.close(writing)
        assert os.read(reading, 1) == b"1"
        os.close(reading)
    finally:
        write_lock.release()
    client.state.save("store", "k", 1, timeout=10)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, 9)
    os.waitpid(child, 0)


def _work(home: str, number: int) -> int:
    with CloudRuntimesClient(config={"capa": {"home": home}}, app_id="worker") as client:
        client.state.save("store", f"worker{number}", number)
        return int(client.state.get("store", f"worker{number}"))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(client: CloudRuntimesClient, home: Path, method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.starmap(_work, [(str(home), number) for number in range(4)]) == [0, 1, 2, 3]
            pool.close()
            pool.join()
    assert len(client.state.list_keys("store", "worker")) == 4


def test_a_memory_store_starts_anew(tmp_path: Path) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:fork"}}) as client:
        client.state.save("store", "k", "parent")

        def body() -> Any:
            empty = client.state.get("store", "k")
            client.state.save("store", "k", "child")
            return [empty, client.state.get("store", "k")]

        assert in_child(body) == [None, "child"]
        assert client.state.get("store", "k") == "parent"


def test_ids_differ(client: CloudRuntimesClient) -> None:
    def body() -> Any:
        return [client.pubsub.publish("bus", "t", 1) for _ in range(50)]

    children = [in_child(body) for _ in range(3)]
    mine = [client.pubsub.publish("bus", "t", 1) for _ in range(50)]
    assert len({*mine, *(id for child in children for id in child)}) == 200


def test_a_lease_belongs_to_the_parent(client: CloudRuntimesClient) -> None:
    """A child's use of it is refused, also at the end of its block; the parent goes on renewing."""
    with client.lock.hold("locks", "r", expiry=6.0) as lease:
        waiting = client.lock.hold("locks", "other")

        def body() -> Any:
            said = [refused(call) for call in (lease.renew, lease.release, lease.check, lambda: lease.lost)]
            said += [refused(waiting.__enter__), refused(lambda: lease.__exit__(None, None, None))]
            taken = client.lock.try_lock("locks", "r")
            with client.lock.hold("locks", "child", expiry=60) as mine:
                mine.renew()
            threads = [thread.name for thread in threading.enumerate()]
            return said, taken is None, threads.count("cloud-runtimes-renewer")

        said, taken, renewers = in_child(body)
        assert all("before fork" in each for each in said)
        assert taken
        assert renewers == 1  # of the child's own
        engine = client.lock._frame.driver("locks")._engine
        (before,) = engine.query(None, "SELECT deadline FROM locks WHERE resource = 'r'")
        until(lambda: engine.query(None, "SELECT deadline FROM locks WHERE resource = 'r'") > [before])
        lease.check()
        assert client.lock.try_lock("locks", "r") is None


def test_a_child_that_leaves_the_block_by_an_exception_keeps_the_lock(client: CloudRuntimesClient) -> None:
    with client.lock.hold("locks", "r") as lease:

        def body() -> Any:
            lease.__exit__(KeyError, KeyError(), None)
            return True

        assert in_child(body)
        assert client.lock.try_lock("locks", "r") is None
    assert client.lock.try_lock("locks", "r") is not None


@pytest.mark.promise("E1")
def test_forks_beside_waiters(client: CloudRuntimesClient, rounds: Rounds) -> None:
    """Forks fall into every moment of waiting, renewing and releasing; children lock too."""
    stop = threading.Event()
    held = [0, 0]

    def work(which: int) -> None:
        while not stop.is_set():
            with client.lock.hold("locks", "r", expiry=5, wait=60):
                held[which] += 1

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds(10, 200)):

            def body() -> Any:
                with client.lock.hold("locks", "r", expiry=5, wait=30) as lease:
                    lease.renew()
                    return lease.token

            assert in_child(body) > 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert min(held) > 0


def test_a_runner_belongs_to_the_parent(client: CloudRuntimesClient) -> None:
    """A child's use of it is refused, and the child runs nothing by it; one of its own runs jobs as any process."""
    mine: list[str] = []

    @client.schedule.job("j")
    def handler(data: Any, run: Any) -> None:
        mine.append(run.run_id)

    with client.schedule.running() as runner:

        def body() -> Any:
            said = [
                refused(call) for call in (runner.close, runner.__enter__, lambda: runner.__exit__(None, None, None))
            ]
            threads = [thread.name for thread in threading.enumerate()]
            with client.schedule.running():
                for n in range(10):
                    client.schedule.schedule_job(f"child.{n}", due_time=0, target=handler)
                until(lambda: not client.schedule.list_jobs(), seconds=20)
            return said, threads.count("cloud-runtimes-scheduler"), mine

        said, threads, theirs = in_child(body)
        assert all("before fork" in each for each in said)
        assert threads == 0
        client.schedule.schedule_job("after", due_time=0, target=handler)
        until(lambda: not client.schedule.list_jobs(), seconds=20)
    assert len(set(mine) | set(theirs)) == len(mine) + len(theirs) == 11
