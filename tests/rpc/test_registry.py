"""How processes of one home find each other: leases of the living, a secret that is the home's alone, and proof on every connection."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, registry
from cloud_runtimes._core.clocks import is_alive, process_name
from cloud_runtimes._http.threaded import listen
from cloud_runtimes.components.sqlite import SqliteComponent, schema, secret
from cloud_runtimes.components.sqlite.secret import SECRET, home_secret
from cloud_runtimes.errors import InvalidArgumentError, PermissionDeniedError, UnauthenticatedError, UnavailableError
from cloud_runtimes.rpc import RpcServer
from cloud_runtimes.rpc import registry as services
from cloud_runtimes.rpc.peers import Peers
from cloud_runtimes.rpc.registry import LEASE
from cloud_runtimes.testing import Api, Clock
from cloud_runtimes.testing.suites import rpc_methods
from tests.rpc.http_peers import Hostile
from tests.support.waiting import in_threads


def rows(home: Path) -> list[Any]:
    connection = sqlite3.connect(home / "cloud_runtimes.db")
    try:
        return connection.execute("SELECT app_id, address, process, deadline FROM services").fetchall()
    finally:
        connection.close()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is read anew."""
    monkeypatch.setattr(secret, "known", {})


def test_a_server_is_registered_while_it_is_open(
    serving: CloudRuntimesClient, caller: CloudRuntimesClient, home: Path, api: Api
) -> None:
    with api.opened(serving.rpc.serving()) as server:
        if api.name == "sync":
            assert api.call(caller.rpc, "invoke_method", "there", "echo", 1) == 1
        [(app_id, address, process, _)] = rows(home)
        assert (app_id, address, process) == ("there", server.address, process_name(os.getpid()))
    assert rows(home) == []
    api.fails(UnavailableError, match="no process has registered")(caller.rpc, "invoke_method", "there", "echo", 1)


def test_several_servers_share_calls_that_run_at_once(
    serving: CloudRuntimesClient, caller: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    monkeypatch.setattr(services, "_FRESH", 60.0)
    called: list[str] = []
    first = Peers._first

    def watched(peers: Peers, pool: Any, op: Any, endpoints: Any, *rest: Any) -> Any:
        called.append(endpoints[0].url)
        return first(peers, pool, op, endpoints, *rest)

    met = threading.Barrier(4)
    serving.rpc.register_method("meet", lambda: met.wait(20) >= 0)
    monkeypatch.setattr(Peers, "_first", watched)
    with serving.rpc.serving() as one, serving.rpc.serving() as two:
        for _ in range(3):
            assert api.call(caller.rpc, "invoke_method", "there", "echo", 1) == 1
        assert called == called[:1] * 3
        called.clear()
        assert api.together([(caller.rpc, "invoke_method", ("there", "meet"), {})] * 4) == [True] * 4
        assert sorted(called) == sorted([one.address, two.address] * 2)
        driver: Any = caller.rpc._frame.driver("there")
        assert [each.calls for each in driver._store._known] == [[], []]
    with serving.rpc.serving() as one:
        with serving.rpc.serving():
            pass
        for _ in range(5):
            assert api.call(caller.rpc, "invoke_method", "there", "echo", 1) == 1


def test_servers_of_one_socket_are_one_to_callers(
    serving: CloudRuntimesClient, caller: CloudRuntimesClient, home: Path, api: Api
) -> None:
    listening, address = listen("127.0.0.1", 0, "")
    hosts = [f"fd://{os.dup(listening.fileno())}" for _ in range(2)]
    with listening, serving.rpc.serving(host=hosts[0]) as one:
        with serving.rpc.serving(host=hosts[1]) as two:
            assert one.address == two.address == address
            for _ in range(4):
                assert api.call(caller.rpc, "invoke_method", "there", "echo", 1) == 1
            driver: Any = caller.rpc._frame.driver("there")
            assert [each.endpoint.url for each in driver._store._known] == [address]
            assert len(rows(home)) == 2
        for _ in range(4):  # on new connections, which the first one takes
            assert api.call(caller.rpc, "invoke_method", "there", "echo", 1) == 1
        assert len(rows(home)) == 1


@pytest.mark.parametrize("host", ["fd://", "fd://x", "fd://-1", "fd://1234567"])
def test_a_socket_is_given_by_its_number(serving: CloudRuntimesClient, host: str) -> None:
    with pytest.raises(InvalidArgumentError, match="as in 'fd://3'"):
        serving.rpc.serving(host=host)


def test_what_is_inherited_must_listen(serving: CloudRuntimesClient, tmp_path: Path) -> None:
    quiet = socket.socket()
    with quiet, pytest.raises(UnavailableError, match="no socket of TCP that listens"):
        serving.rpc.serving(host=f"fd://{quiet.fileno()}").__enter__()
    with pytest.raises(UnavailableError, match="Bad file descriptor"):
        serving.rpc.serving(host="fd://9999").__enter__()
    with open(tmp_path / "file", "wb") as file, pytest.raises(UnavailableError, match="non-socket"):
        serving.rpc.serving(host=f"fd://{file.fileno()}").__enter__()


def test_the_lease_is_renewed_and_ends_without_renewal(
    home: Path, closing: Callable[..., CloudRuntimesClient], apart: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clock()
    clocked = type("ClockedSqlite", (SqliteComponent,), {"clocks": clocks})
    monkeypatch.setitem(registry.loaded, (registry.COMPONENTS, "sqlite"), clocked)
    monkeypatch.setattr(services, "_FRESH", 0.0)
    client = closing(app_id="there", config={"capa": {"home": str(home)}})
    other = closing(app_id="suite", config={"capa": {"home": str(home)}})
    rpc_methods.register(client)
    with client.rpc.serving() as server:
        assert other.rpc.invoke_method("there", "echo", 1) == 1
        clocks.ahead_ms += int(LEASE * 1000) + 1000
        with pytest.raises(UnavailableError, match="no process has registered"):
            other.rpc.invoke_method("there", "echo", 1)
        registration: Any = server._announcement
        from cloud_runtimes.spi.operation import Operation

        registration.renew(Operation(services._RENEW, "rpc", 5))
        assert other.rpc.invoke_method("there", "echo", 1) == 1


def test_the_thread_renews(home: Path, serving: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    monkeypatch.setattr(services, "LEASE", 0.3)
    with serving.rpc.serving():
        first = rows(home)[0][3]
        assert api.until(lambda: rows(home)[0][3] > first)


def test_a_registration_that_went_away_is_made_again(
    home: Path, serving: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    monkeypatch.setattr(services, "LEASE", 0.3)
    with serving.rpc.serving():
        connection = sqlite3.connect(home / "cloud_runtimes.db", isolation_level=None)
        connection.execute("DELETE FROM services")
        connection.close()
        assert api.until(lambda: len(rows(home)) == 1)


def test_processes_are_told_apart() -> None:
    mine = process_name(os.getpid())
    assert mine is not None
    assert is_alive(mine)
    pid, started, space = mine.split(":", 2)
    assert not is_alive(f"{pid}:{int(started) + 1}:{space}")  # another one, with its number
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_alive(f"{ended.pid}:1:{space}")
    assert is_alive(f"{ended.pid}:1:pid:[1]")  # of another namespace nothing is known
    assert is_alive(f"{ended.pid}::")


def _register(home: Path, address: str, instance: str = "i") -> None:
    from cloud_runtimes._core.clocks import Clocks

    connection = sqlite3.connect(home / "cloud_runtimes.db", isolation_level=None)
    row = (instance, "there", address, process_name(os.getpid()), Clocks().boot_id(), Clocks().boot_ms() + 60_000)
    connection.execute(
        "INSERT INTO services (instance, app_id, address, process, boot, deadline) VALUES (?, ?, ?, ?, ?, ?)", row
    )
    connection.close()


@pytest.mark.parametrize("other", ["a listener of another program", "another application", "another instance"])
def test_who_took_over_a_port_is_not_trusted(
    home: Path,
    caller: CloudRuntimesClient,
    closing: Callable[..., CloudRuntimesClient],
    hostile: Callable[..., Hostile],
    api: Api,
    other: str,
) -> None:
    caller.state.save("s", "k", 1)  # the store is there
    if other.startswith("a listener"):
        ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42"
        thief = hostile(ok, ok)
        _register(home, thief.address)
        with pytest.raises(UnavailableError, match="belongs to another process"):
            api.call(caller.rpc, "invoke_method", "there", "echo", "canary")
        assert b"canary" not in b"".join(thief.received)
        assert b"token" not in b"".join(thief.received)
        return
    app_id = "there" if other.endswith("instance") else "elsewhere"
    client = closing(app_id=app_id, config={"capa": {"home": str(home)}})
    with client.rpc.serving() as server:
        connection = sqlite3.connect(home / "cloud_runtimes.db", isolation_level=None)
        connection.execute("DELETE FROM services")
        connection.close()
        _register(home, server.address)
        api.fails(UnavailableError, match="belongs to another process")(caller.rpc, "invoke_method", "there", "echo", 1)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "http://a@b", "", "http://127.0.0.1:1/../x"])
def test_an_address_that_is_none_is_not_called(home: Path, caller: CloudRuntimesClient, address: str) -> None:
    caller.state.save("s", "k", 1)
    _register(home, address)
    with pytest.raises(UnavailableError, match="no address"):
        caller.rpc.invoke_method("there", "echo", 1)


def test_a_wrong_token(
    home: Path, closing: Callable[..., CloudRuntimesClient], tmp_path: Path, apart: None, api: Api
) -> None:
    server = closing(app_id="there", config={"capa": {"home": str(home), "rpc_token": "the right one, long enough"}})
    rpc_methods.register(server)
    with server.rpc.serving() as opened:

        def call(token: str | None) -> Any:
            table: dict[str, Any] = {"address": opened.address, **({"token": token} if token else {})}
            client = closing(app_id="suite", config={"capa": {"home": str(tmp_path / "b")}, "rpc": {"there": table}})
            return api.call(client.rpc, "invoke_method", "there", "echo", 1)

        assert call("the right one, long enough") == 1
        with pytest.raises(UnauthenticatedError, match=r"not trusted.*\[rpc.there\]"):
            call("the wrong one, long enough")
        with pytest.raises(UnauthenticatedError, match="is missing") as caught:
            call(None)
        assert caught.value.response is not None
        assert caught.value.response.status == 401
        assert "right one" not in str(caught.value)


def test_an_open_server_takes_everybody(
    home: Path, closing: Callable[..., CloudRuntimesClient], tmp_path: Path, apart: None
) -> None:
    server = closing(app_id="there", config={"capa": {"home": str(home), "rpc_open": True}})
    rpc_methods.register(server)
    with server.rpc.serving() as opened:
        table = {"capa": {"home": str(tmp_path / "b")}, "rpc": {"there": {"address": opened.address}}}
        assert closing(app_id="suite", config=table).rpc.invoke_method("there", "echo", 1) == 1


def test_no_secret_is_shown(home: Path, closing: Callable[..., CloudRuntimesClient]) -> None:
    secret = "the secret of sixteen characters"
    client = closing(
        app_id="there",
        config={
            "capa": {"home": str(home), "rpc_token": secret},
            "rpc": {"x": {"address": "http://h", "token": secret}},
        },
    )
    driver: Any = client.rpc._frame.driver("x")
    with client.rpc.serving() as server:
        guard = driver.guard(client.rpc._operation(5))
        for each in (
            client,
            client._context.settings,
            driver._runtime.capa,
            driver._configured,
            guard,
            server,
            client.rpc.asgi_app(),
        ):
            assert secret not in repr(each)


def test_a_store_of_the_first_version_gets_the_registry(
    home: Path, closing: Callable[..., CloudRuntimesClient], monkeypatch: pytest.MonkeyPatch, apart: None
) -> None:
    newest = schema.STEPS
    monkeypatch.setattr(schema, "STEPS", newest[:1])
    with CloudRuntimesClient(app_id="old", config={"capa": {"home": str(home)}}) as old:
        old.state.save("s", "k", {"kept": True})
    connection = sqlite3.connect(home / "cloud_runtimes.db")
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "services" not in tables
    monkeypatch.setattr(schema, "STEPS", newest)
    client = closing(app_id="there", config={"capa": {"home": str(home)}})
    rpc_methods.register(client)
    with client.rpc.serving():
        other = closing(app_id="suite", config={"capa": {"home": str(home)}})
        assert other.rpc.invoke_method("there", "echo", 1) == 1
        assert other.state.get("s", "k") == {"kept": True}


# -- the secret's file --------------------------------------------------------


def test_the_secret_is_made_once_for_its_owner(tmp_path: Path, known: None) -> None:
    secrets: list[bytes] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        secrets.append(home_secret(tmp_path))

    in_threads(*[make] * 8)
    assert len(set(secrets)) == 1
    assert len(secrets[0]) == 32
    assert [path.name for path in tmp_path.iterdir()] == [SECRET]
    assert (tmp_path / SECRET).stat().st_mode & 0o777 == 0o600


@pytest.mark.process
def test_processes_make_one_secret(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from cloud_runtimes.components.sqlite.secret import home_secret; print(home_secret(Path(sys.argv[1])).hex())"
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(4)
    ]
    assert len({process.communicate()[0] for process in started}) == 1


@pytest.mark.parametrize("fault", ["mode", "short", "link", "folder"])
def test_a_secret_that_others_could_know_is_refused(tmp_path: Path, known: None, fault: str) -> None:
    path = tmp_path / SECRET
    if fault == "folder":
        path.mkdir()
    elif fault == "link":
        target = tmp_path / "target"
        target.write_bytes(bytes(32))
        target.chmod(0o600)
        path.symlink_to(target)
    else:
        path.write_bytes(bytes(32 if fault == "mode" else 5))
        path.chmod(0o644 if fault == "mode" else 0o600)
    with pytest.raises(PermissionDeniedError, match=r"rpc\.secret .*delete it so that a new one is made") as caught:
        home_secret(tmp_path)
    assert ("chmod 600" in str(caught.value)) == (fault != "short")
    assert not secret.known, "what is refused is not remembered"


def test_in_memory_nobody_else_can_call(closing: Callable[..., CloudRuntimesClient], apart: None) -> None:
    client = closing(app_id="there", config={"capa": {"home": ":memory:rpc"}})
    rpc_methods.register(client)
    with client.rpc.serving() as server:
        assert isinstance(server, RpcServer)
        with pytest.raises(UnavailableError, match="memory"):
            client.rpc.invoke_method("there", "echo", 1)
        stranger = closing(
            app_id="b", config={"capa": {"home": ":memory:"}, "rpc": {"there": {"address": server.address}}}
        )
        with pytest.raises(UnauthenticatedError):
            stranger.rpc.invoke_method("there", "echo", 1)
