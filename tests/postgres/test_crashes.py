"""A server that dies or hangs in a chosen moment. What strikes at random is in test_kills.py."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError, DeadlineExceededError, UnavailableError
from cloud_runtimes.testing import Api
from tests.support import Rounds
from tests.support.postgres import PostgresServer
from tests.support.waiting import Stopwatch, in_threads, until


@pytest.fixture(scope="module")
def forgetful() -> Iterator[PostgresServer]:
    """A server that loses in a crash all that nobody waited for."""
    with PostgresServer(wal_writer_delay="10s") as server:
        yield server


def client_of(server: PostgresServer, url: str | None = None, **more: Any) -> CloudRuntimesClient:
    more.setdefault("timeout", 10)
    return CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": url or server.url}}}, **more)


def crash(server: PostgresServer) -> None:
    server.kill()
    server.start()


def advance(server: PostgresServer, seconds: float) -> None:
    """Set its clock forward, as far as the component knows it."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute("SELECT cloud_runtimes.now_ms() - (extract(epoch FROM clock_timestamp()) * 1000)")
        (ahead,) = cursor.fetchone() or (0,)
        connection.execute(
            "CREATE OR REPLACE FUNCTION cloud_runtimes.now_ms() RETURNS int8 LANGUAGE sql AS "
            f"'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8 + {round(ahead + seconds * 1000)}'"
        )


def test_a_lease_that_was_renewed_outlives_a_crash(forgetful: PostgresServer, api: Api) -> None:
    with client_of(forgetful) as client:
        lease = api.call(client.lock, "try_lock", "locks", f"renewed-{api.name}", expiry=300)
        advance(forgetful, 200)
        api.call(lease, "renew")
        crash(forgetful)
        advance(forgetful, 200)  # over the end of the first five minutes
        assert api.call(client.lock, "try_lock", "locks", f"renewed-{api.name}") is None
        api.call(lease, "release")


def test_tokens_grow_over_a_crash(forgetful: PostgresServer) -> None:
    with client_of(forgetful) as client:
        tokens = []
        for _ in range(3):
            with client.lock.hold("locks", "grown", expiry=1.0, wait=10) as lease:
                tokens.append(lease.token)
            crash(forgetful)
        assert tokens == sorted(set(tokens))


@pytest.mark.promise("A6")
def test_a_run_whose_server_crashed_is_not_begun_again(forgetful: PostgresServer) -> None:
    begun: list[Any] = []
    release = threading.Event()

    def hold(data: Any, run: Any) -> None:
        begun.append(run)
        release.wait(20)

    with client_of(forgetful) as client, client_of(forgetful) as other:
        other.schedule.job("hold")(hold)
        client.schedule.schedule_job("once", due_time=0.0, target=client.schedule.job("hold")(hold))
        try:
            with client.schedule.running(), other.schedule.running():
                until(lambda: begun)
                crash(forgetful)
                time.sleep(2.5)  # runners look once a second
                assert len(begun) == 1
                release.set()
                until(lambda: [run.status for run in client.schedule.list_runs("once")] == ["succeeded"])
        finally:
            release.set()


def test_a_frame_that_a_crash_took_back_hides_no_later_one(forgetful: PostgresServer) -> None:
    """A delayed event is moved to the log by a commit that nobody waits for; after a crash the next frame may get the number it had."""

    def logged() -> bool:
        """Return whether the server has logged the numbers of frames no further than they are used."""
        with psycopg.connect(forgetful.url) as connection:
            return connection.execute("SELECT log_cnt FROM cloud_runtimes.frame").fetchone() == (0,)

    received = []
    with client_of(forgetful) as client, client_of(forgetful) as publisher:
        with client.pubsub.subscribe("bus", "numbers", start="earliest", ack_wait=1) as sub:

            def receive(seconds: float = 10.0) -> bool:
                event = sub.receive(seconds)
                if event is not None:
                    event.ack()
                    received.append(event.data)
                return event is not None

            publisher.pubsub.publish("bus", "numbers", "first")
            assert receive()
            while not logged():
                publisher.pubsub.publish("bus", "elsewhere", 0)
            publisher.pubsub.publish("bus", "numbers", "delayed", delay=0.2)
            assert receive()
            crash(forgetful)
            publisher.pubsub.publish("bus", "numbers", "next")
            while receive(2.0):
                pass
    assert received[:2] == ["first", "delayed"]
    assert "next" in received


def test_a_commit_that_fails_is_no_success(forgetful: PostgresServer, api: Api) -> None:
    with client_of(forgetful) as client:
        client.state.save("s", "warm", 1)
        tables = ("state", "locks", "configuration")
        with psycopg.connect(forgetful.url, autocommit=True) as connection:
            connection.execute(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '58030'; END $$"
            )
            for table in tables:
                connection.execute(
                    f"CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON cloud_runtimes.{table} "
                    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
                )
        try:
            for call in (
                (client.state, "save", "s", "k", 1),
                (client.lock, "try_lock", "locks", "refused"),
                (client.configuration, "save_configuration", "app", {"k": "v"}),
            ):
                assert not api.fails(UnavailableError)(*call).maybe_applied
        finally:
            with psycopg.connect(forgetful.url, autocommit=True) as connection:
                for table in tables:
                    connection.execute(f"DROP TRIGGER refuse ON cloud_runtimes.{table}")
        assert client.state.get("s", "k") is None
        assert client.configuration.get_configuration("app") == {}


@pytest.mark.parametrize("how", ["pg_terminate_backend", "crash"])
def test_a_commit_that_no_standby_has_yet_is_no_success(forgetful: PostgresServer, how: str) -> None:
    failures: list[CloudRuntimesError] = []
    with client_of(forgetful) as client:
        client.state.save("s", "k", 1)

        def save() -> None:
            while not failures:  # until the server's checkpointer has read the setting, commits wait for nobody
                item = client.state.get_item("s", "k")
                assert item is not None
                try:
                    client.state.save("s", "k", 2, etag=item.etag)
                except CloudRuntimesError as error:
                    failures.append(error)

        forgetful.configure(synchronous_standby_names="nobody")
        try:
            thread = threading.Thread(target=save)
            thread.start()
            with psycopg.connect(forgetful.url, autocommit=True) as connection:
                waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                until(lambda: connection.execute(f"SELECT 1 {waiting}").fetchone())
                if how == "crash":
                    forgetful.kill()
                else:
                    connection.execute(f"SELECT pg_terminate_backend(pid) {waiting}")
            thread.join(30)
            if how == "crash":
                forgetful.start()
        finally:
            forgetful.configure(synchronous_standby_names=None)
        assert isinstance(failures[0], UnavailableError)
        assert failures[0].maybe_applied


def test_a_server_that_hangs_is_passed_over(forgetful: PostgresServer, api: Api) -> None:
    with PostgresServer() as other:
        for each in (forgetful, other):
            with client_of(each) as client:
                client.state.save("s", "k", each.port)
        hosts = f"127.0.0.1:{forgetful.port},127.0.0.1:{other.port}"
        with client_of(forgetful, f"postgresql://postgres@{hosts}/postgres", timeout=2) as client:
            assert api.call(client.state, "get", "s", "k") == forgetful.port
            forgetful.signal(signal.SIGSTOP)
            try:
                with Stopwatch() as watch:
                    api.fails(DeadlineExceededError)(client.state, "get", "s", "k", timeout=0.3)
                    longest = 3
                    for _ in range(5):  # the first asks the one that hangs for its share of the time
                        try:
                            value = api.call(client.state, "get", "s", "k")
                        except DeadlineExceededError:  # a busy machine may need all of it
                            longest += 20
                            value = api.call(client.state, "get", "s", "k", timeout=20)
                        assert value == other.port
                    assert watch.seconds < longest
            finally:
                forgetful.signal(signal.SIGCONT)


def test_callers_of_a_server_that_hangs_keep_their_deadlines(forgetful: PostgresServer) -> None:
    took: list[float] = []

    def call(client: CloudRuntimesClient) -> None:
        began = time.monotonic()
        with pytest.raises(CloudRuntimesError):
            client.state.get("s", "k", timeout=1)
        took.append(time.monotonic() - began)

    forgetful.signal(signal.SIGSTOP)
    try:
        with client_of(forgetful) as client:
            in_threads(*[threading.Thread(target=call, args=(client,)) for _ in range(6)])
    finally:
        forgetful.signal(signal.SIGCONT)
    assert len(took) == 6
    assert max(took) < 5


def test_listening_goes_on_after_a_server_that_hung(
    forgetful: PostgresServer, monkeypatch: pytest.MonkeyPatch, rounds: Rounds
) -> None:
    from cloud_runtimes.components._net.notify import NET
    from cloud_runtimes.components.postgres import notifier

    monkeypatch.setattr(notifier, "LISTEN_TIMEOUT", 0.5)
    with client_of(forgetful) as client, client_of(forgetful) as publisher:
        with client.pubsub.subscribe("bus", "hung", start="earliest") as sub:
            assert sub.receive(0.2) is None
            listening = client.pubsub._frame.driver("bus").component.engine.notifier
            until(lambda: listening.net == NET)
            with psycopg.connect(forgetful.url, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            forgetful.signal(signal.SIGSTOP)
            time.sleep(1.0)
            forgetful.signal(signal.SIGCONT)
            until(lambda: listening.net == NET)
            publisher.pubsub.publish("bus", "hung", 1)
            assert sub.receive(10) is not None
