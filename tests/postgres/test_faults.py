"""Faults of servers and networks: named errors, truthful ``maybe_applied``, recovery without a restart."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.postgres.notifier import PostgresNotifier
from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from tests.support import Rounds
from tests.support.forked import in_child
from tests.support.harnesses.postgres import PostgresHome
from tests.support.ports import reserved_port
from tests.support.postgres import GUARDED
from tests.support.waiting import running, until


def home_client(url: str, **more: Any) -> CloudRuntimesClient:
    return CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": url, **more}}}, timeout=5)


def terminate(home: PostgresHome, where: str = "true") -> int:
    with psycopg.connect(home.url, autocommit=True) as connection:
        ended = connection.execute(
            f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE pid <> pg_backend_pid() AND datname = current_database() AND {where}"
        ).fetchone()
    assert ended is not None
    return int(ended[0])


def test_nobody_listens() -> None:
    with reserved_port() as port, home_client(f"postgresql://postgres@127.0.0.1:{port}/app") as client:
        with pytest.raises(UnavailableError, match="cannot be reached") as caught:
            client.state.get("s", "k")
        assert not caught.value.maybe_applied
        assert "app" in str(caught.value)


def test_a_schema_that_takes_too_long(home: PostgresHome) -> None:
    with psycopg.connect(home.url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(1129467993)")  # as another that makes one
        with pytest.raises(DeadlineExceededError, match="to make its schema") as caught:
            home.client().state.get("s", "k", timeout=0.5)
    assert not caught.value.maybe_applied
    assert home.client().state.get("s", "k") is None


def test_a_wrong_password_is_not_shown(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE IF EXISTS {GUARDED}")
        connection.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'right'")
    url = postgres_url.replace("postgres@", f"{GUARDED}:canary@")
    with home_client(url) as client, pytest.raises(UnauthenticatedError) as caught:
        client.state.get("s", "k")
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in repr(error)
        error = error.__cause__


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_no_frame_shows_the_password(postgres_url: str, home: PostgresHome, durability: str) -> None:
    home.client().state.save("s", "k", 1)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE IF EXISTS {GUARDED}")
        connection.execute(f"CREATE ROLE {GUARDED} LOGIN SUPERUSER PASSWORD 'canary'")
        url = postgres_url.replace("postgres@", f"{GUARDED}:canary@")
        with home_client(url, schema=home.schema, durability=durability) as client:
            assert client.state.get("s", "k") == 1
            connection.execute(f"ALTER ROLE {GUARDED} NOLOGIN")
            terminate(home, f"usename = '{GUARDED}'")
            for call in (client.state.get, lambda *args: asyncio.run(client.state.get_async(*args))):
                with pytest.raises(UnavailableError) as caught:
                    call("s", "k")
                cause = caught.value.__cause__
                assert cause is not None
                shown = [
                    (frame.f_code.co_qualname, name)
                    for frame, _ in traceback.walk_tb(cause.__traceback__)
                    for name, value in frame.f_locals.copy().items()
                    if "canary" in repr(value) and "cloud_runtimes" in frame.f_code.co_filename
                ]
                assert not shown


def test_a_newer_schema_is_refused_untouched(home: PostgresHome) -> None:
    home.client().state.save("s", "k", 1)
    with psycopg.connect(home.url, autocommit=True) as connection:
        connection.execute(f"UPDATE {home.schema}.meta SET version = 99")
    with home_client(home.url, schema=home.schema, max_connections=3) as client:
        with pytest.raises(UnsupportedError, match=r"newer release \(version 99"):
            client.state.get("s", "k")


def test_a_schema_that_is_only_checked(home: PostgresHome) -> None:
    with home_client(home.url, schema="never_made", ensure="check") as client:
        with pytest.raises(UnsupportedError, match=r"is missing.*ensure"):
            client.state.get("s", "k")
    home.client().state.save("s", "k", 1)
    with home_client(home.url, schema=home.schema, ensure="check") as client:
        assert client.state.get("s", "k") == 1


def test_connections_that_were_cut_are_replaced(home: PostgresHome) -> None:
    client = home.client(timeout=5)
    client.state.save("s", "k", 1)
    for turn in range(5):
        assert terminate(home) >= 1
        assert client.state.get("s", "k") == turn + 1
        assert terminate(home) >= 1
        client.state.save("s", "k", turn + 2)


def test_a_write_that_is_cut_off_may_have_been_applied(home: PostgresHome) -> None:
    client = home.client(timeout=10)
    client.state.save("s", "k", 1)
    item = client.state.get_item("s", "k")
    assert item is not None
    with psycopg.connect(home.url) as blocker:
        blocker.execute(f"SELECT 1 FROM {home.schema}.state FOR UPDATE")
        failure: list[CloudRuntimesError] = []

        def save() -> None:
            try:
                client.state.save("s", "k", 2, etag=item.etag)
            except CloudRuntimesError as error:
                failure.append(error)

        thread = threading.Thread(target=save)
        thread.start()
        for _ in range(500):
            if terminate(home, "query LIKE '%state SET value%' AND wait_event_type = 'Lock'"):
                break
            time.sleep(0.01)
        thread.join(10)
    assert isinstance(failure[0], UnavailableError)
    assert failure[0].maybe_applied
    assert client.state.get("s", "k") == 1


def test_a_deadline_ends_a_call_and_its_statement(home: PostgresHome, api: Api) -> None:
    client = home.client()
    client.state.save("s", "k", 1)
    with psycopg.connect(home.url) as blocker:
        blocker.execute(f"SELECT 1 FROM {home.schema}.state FOR UPDATE")
        assert api.fails(DeadlineExceededError)(client.state, "save", "s", "k", 2, timeout=0.3).maybe_applied
        until(lambda: waiting(home) == 0)
    client.state.save("s", "k", 3)
    assert client.state.get("s", "k") == 3


def test_no_connection_is_free(home: PostgresHome) -> None:
    with home_client(home.url, schema=home.schema, max_connections=2) as client, psycopg.connect(home.url) as blocker:
        client.state.save("s", "k", 1)
        blocker.execute(f"SELECT 1 FROM {home.schema}.state FOR UPDATE")
        with running(
            *[
                threading.Thread(target=attempt, args=(lambda: client.state.save("s", "k", 2, timeout=60),))
                for _ in range(2)
            ]
        ):
            until(lambda: waiting(home) == 2)
            with pytest.raises(DeadlineExceededError, match="max_connections"):
                client.state.get("s", "k", timeout=0.2)
            blocker.rollback()
        assert client.state.get("s", "k") == 2


def waiting(home: PostgresHome) -> int:
    """Return how many wait for a lock. Within one transaction a server would tell the same each time."""
    with psycopg.connect(home.url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
    assert row is not None
    return int(row[0])


def attempt(call: Callable[[], Any]) -> None:
    try:
        call()
    except CloudRuntimesError:
        return


def test_the_server_takes_no_more_connections(home: PostgresHome) -> None:
    role = f"few_{os.getpid()}"
    with psycopg.connect(home.url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE IF EXISTS {role}")
        connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER CONNECTION LIMIT 0")
        connection.execute(f"ALTER ROLE {role} NOSUPERUSER")
    with home_client(home.url.replace("postgres@", f"{role}@")) as client:
        with pytest.raises(ResourceExhaustedError, match="max_connections"):
            client.state.get("s", "k")


@pytest.mark.promise("C3")
def test_a_database_that_only_reads(home: PostgresHome) -> None:
    home.client().state.save("s", "k", 1)
    url = f"{home.url}?options=-c%20default_transaction_read_only%3Don"
    with home_client(url, schema=home.schema) as client:
        assert client.state.get("s", "k") == 1
        with pytest.raises(CloudRuntimesError, match="only reads") as caught:
            client.state.save("s", "k", 2)
        assert not caught.value.maybe_applied


def test_a_child_leaves_the_connections_of_its_parent_alone(home: PostgresHome) -> None:
    client = home.client()
    client.state.save("s", "k", 1)
    assert in_child(lambda: client.state.get("s", "k")) == 1
    assert client.state.get("s", "k") == 1


def test_a_child_has_no_part_in_listening(home: PostgresHome) -> None:
    """It closes the sockets that wake its parent's thread."""
    home.client().state.get("s", "k")
    before = sockets()
    notifier = PostgresNotifier(home.url, home.schema, direct=False)
    try:
        waiter = notifier.subscribe("channel")
        for _ in range(20):
            if len(sockets() - before) == 3:  # its own connection is there
                break
            waiter.wait(5)
        assert len(sockets() - before) == 3
        assert in_child(lambda: len(sockets() - before)) == 1
        assert len(sockets() - before) == 3
    finally:
        notifier.close()


def test_a_quiet_listener_is_asked_and_kept(home: PostgresHome, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = PostgresNotifier(home.url, home.schema, direct=False)
    try:
        for quiet in (20, 200, 2000):
            monkeypatch.setattr("cloud_runtimes.components._net.notify._QUIET_MS", quiet)
            waiter = notifier.subscribe("channel")
            until(lambda: notifier._listener)
            before = notifier.count
            time.sleep(quiet * 15 / 1000)
            if notifier.count == before:  # else a busy server may not have answered in that time
                break
        waiter.wait(0.05)  # it listens
        monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 60.0)
        with psycopg.connect(home.url, autocommit=True) as connection:
            begun = time.monotonic()
            connection.execute(f"SELECT pg_notify('{home.schema}.channel', '')")
            waiter.wait(60)
        assert time.monotonic() - begun < 20
        assert notifier.count == before
    finally:
        notifier.close()


def sockets() -> set[str]:
    targets = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed them
            if (target := os.readlink(f"/proc/self/fd/{name}")).startswith("socket:"):
                targets.add(target)
    return targets


@pytest.mark.promise("A3")
def test_consumers_that_are_killed_lose_nothing(home: PostgresHome, rounds: Rounds) -> None:
    """Members die in the middle of their events; others get what they held."""
    client = home.client()
    program = (
        "import sys; from cloud_runtimes import CloudRuntimesClient\n"
        "client = CloudRuntimesClient(app_id='suite', config={'capa': {'home': {'url': sys.argv[1], 'schema': sys.argv[2]}}})\n"
        "with client.pubsub.subscribe('bus', 't', start='earliest', ack_wait=1, batch=20) as sub:\n"
        "    for batch in sub:\n"
        "        client.state.save_bulk('seen', {str(event.data): 1 for event in batch})\n"
        "        batch.ack(); print(len(batch), flush=True)\n"
    )
    count = rounds(400, 20_000)
    with client.pubsub.publisher("bus", "t", batch_events=50) as publisher:
        for number in range(count):
            publisher.send(number)
    for _ in range(rounds(3, 50)):
        command = [sys.executable, "-c", program, home.url, home.schema]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
    seen = {int(key) for key in client.state.list_keys("seen")}
    with client.pubsub.subscribe("bus", "t", start="earliest", ack_wait=1, batch=100) as sub:
        while len(seen) < count and (batch := sub.receive(30)) is not None:
            seen |= {event.data for event in batch}
            batch.ack()
    assert seen == set(range(count))


def test_what_needs_a_folder_beside_a_server_has_the_default_one(
    home: PostgresHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", home.url)
    for config in ({}, {"capa": {"home": {"url": home.url, "schema": home.schema}}}):
        with CloudRuntimesClient(app_id="suite", config=config) as client:
            client.telemetry.logger("test").info("here")
    assert {path.name for path in tmp_path.iterdir()} <= {".cloud_runtimes"}


@pytest.mark.parametrize(
    ("given", "match"), [("mysql://user:canary@host/app", "postgresql"), ({"url": "a-folder"}, "a folder is text")]
)
def test_a_home_of_an_unknown_kind_is_refused(
    given: Any, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with CloudRuntimesClient(config={"capa": {"home": given}}) as client:
        with pytest.raises(InvalidArgumentError, match=match) as caught:
            client.state.get("s", "k")
    assert "canary" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_error_of_ours_is_not_its_own_cause(home: PostgresHome) -> None:
    client = home.client()
    client.state.save("s", "k", 1)
    with pytest.raises(ConflictError) as caught:
        client.state.save("s", "k", 2, etag=home.bad_etag)
    assert caught.value.__cause__ is None
