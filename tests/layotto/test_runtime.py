"""The runtime layotto: addresses, readiness, refusals, what falls to the process, and what each service must not meet of a real sidecar."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    ComponentNotFoundError,
    ConflictError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    MissingFileError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.lock import UnlockStatus
from cloud_runtimes.runtimes.layotto.sequencer import Sequencer
from cloud_runtimes.testing import Api
from tests.support import features
from tests.support.fake_layotto import FakeLayotto
from tests.support.listening import Answer, HttpServer

SOON = 20.0
NAMES = ("LAYOTTO_GRPC_ENDPOINT", "LAYOTTO_SIDECAR_IP", "LAYOTTO_GRPC_PORT", "runtime_GRPC_PORT")


# -- where it is ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "arguments", "url"),
    [
        ({}, {}, "grpc://127.0.0.1:34904"),
        ({"LAYOTTO_GRPC_ENDPOINT": "grpc://h:1"}, {}, "grpc://h:1"),
        ({"LAYOTTO_SIDECAR_IP": "10.0.0.1", "LAYOTTO_GRPC_PORT": "5"}, {}, "grpc://10.0.0.1:5"),
        ({"LAYOTTO_SIDECAR_IP": "10.0.0.1"}, {}, "grpc://10.0.0.1:34904"),
        ({"runtime_GRPC_PORT": "7"}, {}, "grpc://127.0.0.1:7"),
        ({"LAYOTTO_GRPC_ENDPOINT": "h:1"}, {"config": {"layotto": {"grpc_endpoint": "h:2"}}}, "h:2"),
        ({}, {"config": {"layotto": {"grpc_endpoint": "h:2"}}, "endpoint": "unix:///run/x"}, "unix:///run/x"),
    ],
)
def test_addresses(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], arguments: dict[str, Any], url: str
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with CloudRuntimesClient(runtime="layotto", **arguments) as client:
        runtime: Any = client._context.runtime()
        assert runtime.transport.url == url


@pytest.mark.parametrize("endpoint", ["http://localhost:34904", "localhost:34904", "ftp://x"])
def test_endpoints_that_are_refused(endpoint: str) -> None:
    with CloudRuntimesClient(endpoint, runtime="layotto") as client, pytest.raises(InvalidArgumentError, match="gRPC"):
        client.state.get("s", "k")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"grpc_endpoin": "h:1"}, "did you mean 'grpc_endpoint'"),
        ({"max_message": "1KiB"}, "64KiB"),
        ({"callback_port": 0}, "1 to 65535"),
        ({"file_roots": {"s": ""}}, "store = "),
        ({"configuration_refresh": 0}, "more than 0"),
    ],
)
def test_settings_that_are_refused(table: dict[str, Any], message: str) -> None:
    with CloudRuntimesClient(runtime="layotto", config={"layotto": table}) as client:
        with pytest.raises(InvalidArgumentError, match=message):
            client.state.get("s", "k")


def test_over_a_unix_socket(beneath: CloudRuntimesClient, socket_path: str, api: Api) -> None:
    with FakeLayotto(beneath, address=socket_path) as fake:
        with CloudRuntimesClient(fake.endpoint, runtime="layotto", app_id="suite") as client:
            api.call(client, "wait_ready")
            api.call(client.state, "save", "s", "k", 1)
            assert api.call(client.state, "get", "s", "k") == 1


# -- readiness -----------------------------------------------------------------


def test_ready_by_hello(clients: Any, api: Api) -> None:
    api.call(clients(), "wait_ready")
    api.call(clients(hello="nobody"), "wait_ready")  # a refusal shows as well that it serves


def test_not_ready(api: Api) -> None:
    with CloudRuntimesClient("grpc://127.0.0.1:1", runtime="layotto") as client:
        api.fails(DeadlineExceededError, match="not ready")(client, "wait_ready", timeout=0.3)
        error = api.fails(UnavailableError, match=r"grpc://127\.0\.0\.1:1.*layotto start")(
            client.state, "save", "s", "k", 1, timeout=2
        )
        assert not error.maybe_applied


class Actuator(HttpServer):
    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: set[str] = set()
        super().__init__()

    def answered(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        self.asked.add(path)
        return self.status, b"", ()


def test_ready_by_its_actuator(clients: Any, api: Api) -> None:
    with Actuator(200) as server:
        api.call(clients(actuator=f"{server.url}/"), "wait_ready")
        server.status = 503
        api.fails(DeadlineExceededError, match="503")(clients(actuator=f"{server.url}/"), "wait_ready", timeout=0.3)
    assert server.asked == {"/actuator/health/readiness"}


# -- what it lacks -------------------------------------------------------------


def test_what_it_lacks_is_refused_before_anything_is_sent(api: Api) -> None:
    with CloudRuntimesClient("grpc://127.0.0.1:1", runtime="layotto") as client:
        api.fails(UnsupportedError, match="fallback")(client.database, "query", "s", "SELECT 1")
        api.fails(UnsupportedError, match="fallback")(client.schedule, "list_jobs")
        for call in (
            lambda: api.call(client.state, "list_keys", "s"),
            lambda: api.call(client.state, "save", "s", "k", 1, fence=1),
            lambda: api.call(client.pubsub, "publish", "s", "t", 1, raw=True),
            lambda: api.call(client.pubsub, "publish", "s", "t", 1, delay=1),
            lambda: api.call(client.file, "get_file", "s", "f", start=1),
            lambda: api.call(client.file, "put_file", "s", "f", b"", overwrite=False),
            lambda: api.call(client.file, "copy_file", "s", "f", "g"),
        ):
            with pytest.raises(UnsupportedError):
                call()
        assert not client.supports("database")
        assert client.supports("state.etag", "s")


def test_what_it_lacks_falls_to_the_process(fake: FakeLayotto, api: Api) -> None:
    config = {
        "fallback": "capa",
        "capa": {"home": ":memory:fallback", "strict": True},
        "database": {"bank": {"component": "sqlalchemy", "url": "sqlite+aiosqlite:///:memory:"}},
    }
    with CloudRuntimesClient(fake.endpoint, runtime="layotto", app_id="suite", config=config) as client:
        assert api.call(client.database, "query", "bank", "SELECT 1 AS one")[0]["one"] == 1
        assert client.supports("database.transaction", "bank")
        api.fails(ComponentNotFoundError)(client.database, "query", "other", "SELECT 1")
        api.call(client.state, "save", "s", "k", 1)
        assert api.call(client.state, "get", "s", "k") == 1
        assert api.call(fake.client.state, "get", "s", "k", type=bytes) == b"1"
        api.call(client, "wait_ready")


def test_tables_that_do_not_fit() -> None:
    table = {"component": "sqlite"}
    for config, message in (
        ({"state": {"s": table}}, "the sidecar has the components"),
        ({"state": {"s": table}, "fallback": "capa"}, "the sidecar has the components"),
        ({"database": {"s": {"component": "sqlalchemy"}}}, 'fallback = "capa" has it in the process'),
        ({"fallback": "dapr"}, "only 'capa'"),
        ({"fallback": 1}, "must be text"),
    ):
        with CloudRuntimesClient("grpc://127.0.0.1:1", runtime="layotto", config=config) as client:
            with pytest.raises(InvalidArgumentError, match=message):
                client.state.get("s", "k")


def test_one_file_serves_all_runtimes() -> None:
    config = {
        "fallback": "capa",
        "capa": {"home": ":memory:one"},
        "dapr": {"grpc_endpoint": "grpc://127.0.0.1:1"},
        "layotto": {"grpc_endpoint": "grpc://127.0.0.1:1"},
    }
    for runtime in ("capa", "dapr", "layotto"):
        with CloudRuntimesClient(runtime=runtime, config=config) as client:
            assert client.supports("state.etag", "s")
            assert client.supports("database", "s")


# -- state ---------------------------------------------------------------------


def test_exact_values(client: CloudRuntimesClient, api: Api, beneath: CloudRuntimesClient) -> None:
    for value in (9007199254740993, 3.14159265, 1.2e-7, b"\xff\x00", b"", "text", None, {"cloud_runtimes": 1}):
        api.call(client.state, "save", "s", "k", value)
        got = api.call(client.state, "get_item", "s", "k")
        assert (got.value, type(got.value)) == (value, type(value))
    api.call(client.state, "save", "s", "k", {"n": 9007199254740993})
    assert beneath.state.get("s", "k", type=bytes) == b'{"n":9007199254740993}'


def test_a_delete_needs_no_etag(client: CloudRuntimesClient, api: Api) -> None:
    api.call(client.state, "save_bulk", "s", {"a": 1, "b": 2, "c": 3})
    api.call(client.state, "delete", "s", "a")
    api.call(client.state, "delete_bulk", "s", ["b", "absent"])
    assert api.call(client.state, "get_bulk", "s", ["a", "b", "c"]).keys() == {"c"}


def test_an_etag_of_an_absent_key_is_a_conflict(client: CloudRuntimesClient, api: Api) -> None:
    api.fails(ConflictError)(client.state, "save", "s", "k", 1, etag="1")
    api.fails(ConflictError)(client.state, "delete", "s", "k", etag="1")
    assert api.call(client.state, "get_item", "s", "k") is None


def test_transactions_delete(client: CloudRuntimesClient, api: Api) -> None:
    api.call(client.state, "save_bulk", "s", {"a": 1, "b": 2})
    with api.opened(client.state.transaction("s")) as tx:
        tx.save("c", 3)
        tx.delete("a")
        tx.delete("absent")
        tx.save("b", 4)
        tx.delete("b")
        tx.save("a", 5)
        tx.delete("a")
    results = api.call(client.state, "get_bulk", "s", ["a", "b", "c", "absent"])
    assert {key: item.value for key, item in results.items()} == {"c": 3}


def test_a_transaction_whose_delete_was_too_late_is_written_once_more(
    client: CloudRuntimesClient, api: Api, beneath: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Any = client._context.runtime()
    api.call(client.state, "save", "s", "a", 1)
    inner = runtime.transport.transact
    tried: list[int] = []

    def transact(*arguments: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            beneath.state.save("s", "a", b"2")  # just before
        return inner(*arguments)

    monkeypatch.setattr(runtime.transport, "transact", transact)
    with api.opened(client.state.transaction("s")) as tx:
        tx.delete("a")
        tx.save("b", 1)
    assert len(tried) == 2
    assert api.call(client.state, "get_bulk", "s", ["a", "b"]).keys() == {"b"}


def test_conditions_in_a_transaction_are_refused(client: CloudRuntimesClient, api: Api) -> None:
    with pytest.raises(UnsupportedError):
        with api.opened(client.state.transaction("s")) as tx:
            tx.save("a", 1, etag="1")
    assert api.call(client.state, "get_item", "s", "a") is None


# -- the others ----------------------------------------------------------------


def test_no_such_component(client: CloudRuntimesClient, api: Api) -> None:
    for service, method, *arguments in (
        ("state", "get", "none", "k"),
        ("state", "save", "none", "k", 1),
        ("state", "delete", "none", "k"),
        ("secret", "get_secret", "none", "k"),
        ("lock", "try_lock", "none", "r"),
        ("file", "get_file", "none", "f"),
        ("file", "put_file", "none", "f", b""),
        ("file", "list_files", "none"),
    ):
        api.fails(ComponentNotFoundError)(getattr(client, service), method, *arguments)
    with pytest.raises(InternalError):  # configuration has no code of its own for it
        api.call(client.configuration, "get_configuration", "none", ["k"])
    api.fails(ComponentNotFoundError)(Sequencer(client), "next_id", "none", "k")


def test_configuration_that_the_sidecar_does_not_tell_of(clients: Any, api: Api) -> None:
    one, two = clients(), clients()
    api.call(one.configuration, "save_configuration", "c", {"a": "1", "b": "1"})
    runtime: Any = two._context.runtime()
    with api.opened(api.call(one.configuration, "subscribe_configuration", "c")) as sub:
        assert {key: item.value for key, item in api.call(sub, "receive", SOON).items()} == {"a": "1", "b": "1"}
        # another process comes and goes, which silences this one's stream
        from cloud_runtimes.protocols.layotto.messages import messages

        first = messages().SubscribeConfigurationRequest(store_name="c")
        other = runtime.transport.open_alone("configuration", first, lambda message: None, lambda why: None)
        other.cancel()
        assert other.join(SOON)
        api.call(two.configuration, "save_configuration", "c", {"a": "2"})
        api.call(two.configuration, "delete_configuration", "c", ["b"])
        seen: dict[str, Any] = {}
        while seen.get("a") != "2" or seen.get("b", "") is not None:
            for key, item in api.call(sub, "receive", SOON).items():
                seen[key] = None if item.deleted else item.value


def test_subscriptions_to_a_store_share_a_stream(clients: Any, fake: FakeLayotto, api: Api) -> None:
    one, two = clients(), clients()
    with api.opened(api.call(one.configuration, "subscribe_configuration", "c", ["a"])) as first:
        assert api.call(first, "receive", SOON) == {}
        with api.opened(api.call(two.configuration, "subscribe_configuration", "c", ["b"])) as second:
            assert api.call(second, "receive", SOON) == {}
            api.call(one.configuration, "save_configuration", "c", {"a": "1", "b": "2"})
            assert api.call(first, "receive", SOON)["a"].value == "1"
            assert api.call(second, "receive", SOON)["b"].value == "2"
        api.call(one.configuration, "save_configuration", "c", {"a": "3"})
        assert api.call(first, "receive", SOON)["a"].value == "3"


def test_locks(client: CloudRuntimesClient, api: Api) -> None:
    lease = api.call(client.lock, "try_lock", "l", "r", "me", expiry=30)
    assert lease.token is None
    assert api.call(client.lock, "try_lock", "l", "r", "me") is None
    assert api.call(client.lock, "unlock", "l", "r", "you") is UnlockStatus.NOT_OWNER
    api.fails(UnsupportedError)(lease, "renew")
    api.call(lease, "release")
    assert api.call(client.lock, "unlock", "l", "r", "me") is UnlockStatus.NOT_FOUND


def test_sequencers(client: CloudRuntimesClient, api: Api) -> None:
    sequencer = Sequencer(client)
    numbers = [api.call(sequencer, "next_id", "q", f"k-{api.name}", strong=strong) for strong in (False, True)]
    assert numbers == [1, 2]
    for key in ("", "a||b", 5):
        api.fails(InvalidArgumentError)(sequencer, "next_id", "q", key)
    with CloudRuntimesClient(runtime="capa", config={"capa": {"home": ":memory:"}}) as other:
        api.fails(UnsupportedError, match="Layotto's")(Sequencer(other), "next_id", "q", "k")


@pytest.mark.parametrize("local", [False, True])
def test_files_of_both_kinds_of_components(clients: Any, fake: FakeLayotto, api: Api, local: bool) -> None:
    if local:
        fake.files.local.add("f")
    client = clients(file_roots={"f": "root"} if local else {"f": "bucket"})
    big = bytes(range(256)) * 2000
    for name in ("a", "b/c", "b/d/e", "b/d/f", "bc"):
        info = api.call(client.file, "put_file", "f", name, big)
        assert (info.name, info.size) == (name, len(big))
    assert api.call(client.file, "get_file", "f", "b/d/e") == big
    names = [info.name for info in api.call(client.file, "list_files", "f")]
    assert names == ["a", "b/c", "b/d/e", "b/d/f", "bc"]
    assert [info.name for info in api.call(client.file, "list_files", "f", recursive=False)] == ["a", "b/", "bc"]
    assert [info.name for info in api.call(client.file, "list_files", "f", "b/d")] == ["b/d/e", "b/d/f"]
    assert [info.name for info in api.call(client.file, "list_files", "f", after="b/c", limit=2)] == ["b/d/e", "b/d/f"]
    assert api.call(client.file, "list_files", "f", "none/") == []
    for method in ("get_file", "stat_file"):
        api.fails(MissingFileError)(client.file, method, "f", "absent")
    api.call(client.file, "delete_file", "f", "a")
    api.call(client.file, "delete_file", "f", "a")
    assert not api.call(client.file, "exists", "f", "a")


def test_a_foreign_application_s_status_is_unavailable(
    fake: FakeLayotto, client: CloudRuntimesClient, api: Api
) -> None:
    with Actuator(418) as server:
        fake.invoke.routes["teapot"] = server.url.removeprefix("http://")
        error = api.fails(UnavailableError, match="418")(
            client.rpc, "invoke_method", "teapot", "actuator/health/readiness", http_method="GET"
        )
        assert (error.retryable, error.maybe_applied) == (False, True)
    assert server.asked == {"/actuator/health/readiness"}


# -- what it declares ----------------------------------------------------------


def test_what_is_declared_is_what_is_pinned() -> None:
    # a conformance test is skipped where its feature is not declared: this is against dropping one in silence
    assert features.runtimes()["layotto"] == {
        "configuration": {"group", "label", "subscribe", "write"},
        "file": {"sizes"},
        "lock": set(),
        "pubsub": {"dead_letter", "subscribe", "ttl"},
        "rpc": {"headers", "host", "http_method"},
        "secret": {"bulk"},
        "state": {"consistency", "etag", "first_write", "transaction", "ttl"},
    }
    assert features.runtimes()["dapr"] == {
        "configuration": {"subscribe", "version"},
        "database": set(),
        "file": set(),
        "lock": set(),
        "pubsub": {"dead_letter", "raw", "subscribe", "ttl"},
        "rpc": {"headers", "host", "http_method", "status"},
        "schedule": {"list_jobs"},
        "secret": {"bulk"},
        "state": {"consistency", "etag", "first_write", "transaction", "transaction_etag", "ttl"},
    }


def test_what_a_delete_takes_along_is_told_where_it_cannot_be_put_back(
    client: CloudRuntimesClient, fake: FakeLayotto, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = client.configuration
    api.call(configuration, "save_configuration", "c", {"a": "1", "ab": "2", "b": "3"})
    api.call(configuration, "delete_configuration", "c", ["a"])
    assert api.call(configuration, "get_configuration", "c") == {"ab": "2", "b": "3"}
    api.call(configuration, "save_configuration", "c", {"a": "1"})

    def broken(self: Any, *arguments: Any) -> Any:
        raise UnavailableError("away")

    monkeypatch.setattr("cloud_runtimes.runtimes.layotto.stores.LayottoConfiguration._save", broken)
    error = api.fails(UnavailableError)(configuration, "delete_configuration", "c", ["a"])
    assert error.maybe_applied
    assert "'ab'" in "".join(getattr(error.__cause__ or error, "__notes__", []))
