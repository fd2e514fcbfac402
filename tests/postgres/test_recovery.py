"""Faults that an operator mends while the application runs: errors that name them, and handles that go on by themselves."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    CloudRuntimesError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud_runtimes.testing import AsyncApi, SyncApi
from tests.support import Rounds
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import GUARDED, PostgresServer
from tests.support.waiting import until


class Living:
    """A publisher, a subscription, a configuration subscription and a runner, in one client."""

    def __init__(self, url: str) -> None:
        self.client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": url}}}, timeout=3)
        self._numbers = itertools.count()
        self._handled: set[int] = set()
        self._seen: set[str] = set()
        self._runs = 0

    @contextmanager
    def open(self) -> Iterator[Living]:
        client = self.client

        @client.schedule.job("tick")
        def tick() -> None:
            self._runs += 1

        def seen(items: Any) -> None:
            self._seen |= {item.value for item in items.values()}

        with client:
            client.state.save("s", "k", 0)
            client.schedule.schedule_job("tick", schedule="@every 100ms", target=tick)
            handled = client.pubsub.subscribe(
                "bus", "t", lambda event: self._handled.add(event.data["n"]), start="earliest"
            )
            changed = client.configuration.subscribe_configuration("app", handler=seen)
            self.publisher = client.pubsub.publisher("bus", "t")
            with handled, changed, self.publisher, client.schedule.running() as self._runner:
                self.works()
                yield self

    def publish(self) -> int:
        """Hand an event to the publisher, which delivers it sooner or later."""
        number = next(self._numbers)
        self.publisher.send({"n": number, "padding": os.urandom(60_000).hex()})
        return number

    def works(self, *published: int) -> None:
        """Wait until all of them do their work, and what was published meanwhile has come."""
        number, runs = self.publish(), self._runs
        until(lambda: self._saves(str(number)), "configuration that can be saved")
        until(lambda: str(number) in self._seen, "the change in the subscription")
        until(lambda: {number, *published} <= self._handled, "the events")
        until(lambda: self._runs > runs, "a run")
        assert self._runner.error is None

    def _saves(self, value: str) -> bool:
        try:
            self.client.configuration.save_configuration("app", {"k": value})
        except CloudRuntimesError:
            return False
        return True


class Fault(ABC):
    """Something that goes wrong with a server, and its mending."""

    error: type[CloudRuntimesError]
    match: str

    options = ""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.database = type(self).__name__.lower()
        self.url = f"{server.url.rpartition('/')[0]}/{self.database}"
        self.prepare()
        self.execute(f"CREATE DATABASE {self.database} {self.options}")

    def prepare(self) -> None:
        """Make what the database needs."""

    @abstractmethod
    def begin(self) -> None:
        """Let it go wrong."""

    @abstractmethod
    def mend(self) -> None:
        """Mend it."""

    def close(self) -> None:
        """Leave nothing of it."""
        self.execute(f"DROP DATABASE {self.database} WITH (FORCE)")

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def cut(self) -> None:
        """End all connections of clients."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


class ReadOnly(Fault):
    error, match = PermissionDeniedError, "only reads"

    def begin(self) -> None:
        self.server.configure(default_transaction_read_only="on")

    def mend(self) -> None:
        self.server.configure(default_transaction_read_only=None)


class OfOneUser(Fault):
    """A fault that superusers do not have."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(server)
        self.url = self.url.replace("postgres@", f"{GUARDED}:right@")
        self.execute(
            f"DO $$ BEGIN CREATE ROLE {GUARDED} LOGIN PASSWORD 'right'; EXCEPTION WHEN duplicate_object THEN END $$",
            f"GRANT CREATE ON DATABASE {self.database} TO {GUARDED}",
        )


class PasswordChanged(OfOneUser):
    error, match = UnauthenticatedError, "check the url"

    def begin(self) -> None:
        self.execute(f"ALTER ROLE {GUARDED} PASSWORD 'other'")
        self.cut()

    def mend(self) -> None:
        self.execute(f"ALTER ROLE {GUARDED} PASSWORD 'right'")


class NoConnections(OfOneUser):
    error, match = ResourceExhaustedError, "max_connections"

    def begin(self) -> None:
        self.execute(f"ALTER ROLE {GUARDED} CONNECTION LIMIT 0")
        self.cut()

    def mend(self) -> None:
        self.execute(f"ALTER ROLE {GUARDED} CONNECTION LIMIT -1")


class Down(Fault):
    error, match = UnavailableError, "cannot be reached"

    def begin(self) -> None:
        self.server.kill()

    def mend(self) -> None:
        self.server.start()


class DiskFull(Fault):
    """The tables are on a small disk of their own; the server's log is not."""

    error, match = ResourceExhaustedError, "disk of the server is full"

    options = "TABLESPACE small"

    def prepare(self) -> None:
        disk = self.server.mount("32m")
        self._rest, tables = disk / "rest", disk / "tables"
        tables.mkdir()
        self.server.give(tables)
        self.execute(f"CREATE TABLESPACE small LOCATION '{tables}'")

    def begin(self) -> None:
        with pytest.raises(OSError, match="space"), open(self._rest, "wb") as file:
            while True:
                file.write(b"\0" * 65536)
                file.flush()

    def mend(self) -> None:
        self._rest.unlink()

    def close(self) -> None:
        super().close()
        self.execute("DROP TABLESPACE small")


FAULTS = [
    ReadOnly,
    PasswordChanged,
    NoConnections,
    Down,
    pytest.param(
        DiskFull, marks=[pytest.mark.root, pytest.mark.skipif(os.getuid() != 0, reason="mounts a file system")]
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as postgres:
        yield postgres


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_survived(server: PostgresServer, fault: Callable[[PostgresServer], Fault]) -> None:
    trouble = fault(server)
    with Living(trouble.url).open() as living:
        trouble.begin()
        published = living.publish()
        with pytest.raises(trouble.error, match=trouble.match):
            for number in itertools.count():
                living.client.state.save("s", f"k{number}", os.urandom(100_000))
        # no longer the call that was under way
        with pytest.raises(trouble.error, match=trouble.match) as caught:
            living.client.state.save("s", "k", os.urandom(100_000))
        assert not caught.value.maybe_applied
        assert "right" not in str(caught.value)
        trouble.mend()
        living.works(published)
        living.client.state.save("s", "k", 1)
    trouble.close()


@pytest.mark.promise("B2")
def test_connections_that_a_network_cuts(server: PostgresServer, rounds: Rounds) -> None:
    # of one that is half open the client learns when the time of a call is over
    ends = ["reset", "close", "half-open"][: rounds(2, 3)]
    with FaultProxy(server.port) as proxy:
        with Living(server.url.replace(str(server.port), str(proxy.port))).open() as living:
            for _ in range(rounds(1, 20)):
                for end in ends:
                    proxy.break_all(end)  # type: ignore[arg-type]
                    living.works()
                proxy.gone()
                published = living.publish()
                with pytest.raises(UnavailableError):
                    living.client.state.get("s", "k")
                proxy.back()
                living.works(published)


def test_a_standby_says_so_and_can_be_promoted(server: PostgresServer) -> None:
    def client_of(each: PostgresServer) -> CloudRuntimesClient:
        return CloudRuntimesClient(app_id="suite", config={"capa": {"home": each.url}})

    with client_of(server) as client:
        client.state.save("s", "k", 1)
    standby = PostgresServer()
    standby.follow(server)
    with standby, client_of(standby) as client:
        assert client.state.get("s", "k") == 1
        for api in (SyncApi(), AsyncApi()):
            error = api.fails(UnavailableError, "standby.*target_session_attrs")(client.state, "save", "s", "k", 2)
            assert not error.maybe_applied
            api.close()
        standby.promote()
        client.state.save("s", "k", 2)
        assert client.state.get("s", "k") == 2


@pytest.mark.promise("B3")
def test_a_cut_at_every_byte_is_told_truthfully(server: PostgresServer, rounds: Rounds) -> None:
    """An answer that is cut off, wherever: what was acknowledged is there, and what is not there may not have been said to be."""
    step = rounds(9, 1)
    with FaultProxy(server.port) as proxy:
        url = server.url.replace(str(server.port), str(proxy.port))
        with (
            CloudRuntimesClient(app_id="suite", config={"capa": {"home": url}}, timeout=5) as client,
            CloudRuntimesClient(app_id="suite", config={"capa": {"home": server.url}}) as direct,
        ):
            for number in range(0, 120, step):
                key = f"k{number}"
                client.state.save("s", key, 0)
                item = client.state.get_item("s", key)
                assert item is not None
                proxy.down.cut, proxy.down.once = number + 1, True
                failure: CloudRuntimesError | None = None
                try:
                    client.state.save("s", key, 1, etag=item.etag)
                except CloudRuntimesError as error:
                    failure = error
                value = direct.state.get("s", key)
                assert value == 1 if failure is None else failure.maybe_applied or value == 0
                proxy.heal()
