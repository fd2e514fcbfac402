"""Undeclared names: on the home of all services, or of one, whatever is declared beside them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ComponentNotFoundError, InvalidArgumentError, UnsupportedError
from cloud_runtimes.runtimes.capa.homes import SERVICES
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support.objectstore import buckets, table

pytestmark = pytest.mark.usefixtures("clean_environment")

Make = Callable[..., CloudRuntimesClient]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a client whose home is a folder; the arguments are those of ``[capa]``."""
    with ExitStack() as resources:

        def client(declared: dict[str, Any] | None = None, **capa: Any) -> CloudRuntimesClient:
            config = {"capa": {"home": str(tmp_path / "home"), **capa}, **(declared or {})}
            return resources.enter_context(CloudRuntimesClient(config=config, app_id="suite", timeout=30))

        yield client


def use(api: Api, client: CloudRuntimesClient, service: str, name: str) -> None:
    """Write with a service and read it back."""
    mark = uuid.uuid4().hex
    if service == "state":
        api.call(client.state, "save", name, mark, 1)
        assert api.call(client.state, "get", name, mark) == 1
    elif service == "pubsub":
        with api.opened(api.call(client.pubsub, "subscribe", name, mark, group="suite")) as events:
            api.call(client.pubsub, "publish", name, mark, {"mark": mark})
            event = api.call(events, "receive", timeout=30)
            assert event.data == {"mark": mark}
            event.ack()
    elif service == "configuration":
        api.call(client.configuration, "save_configuration", name, {mark: "1"})
        assert api.call(client.configuration, "get_configuration", name, [mark]) == {mark: "1"}
    elif service == "lock":
        with api.opened(client.lock.hold(name, mark, expiry=10)) as lease:
            assert lease.token
    elif service == "file":
        api.call(client.file, "put_file", name, mark, b"1")
        assert api.call(client.file, "get_file", name, mark) == b"1"
    elif service == "database":
        api.call(client.database, "execute", name, f"CREATE TABLE t{mark} (x INTEGER)")
        assert api.call(client.database, "query", name, f"SELECT x FROM t{mark}") == []
    elif service == "schedule":
        api.call(client.schedule, "schedule_job", mark, schedule="@daily")
        assert api.call(client.schedule, "get_job", mark).name == mark
        api.call(client.schedule, "delete_job", mark)


def test_undeclared_names_of_every_service_beside_declared_ones(make: Make, api: Api, tmp_path: Path) -> None:
    elsewhere = {"component": "sqlite", "path": str(tmp_path / "elsewhere.db")}
    client = make({"state": {"orders": elsewhere}, "pubsub": {"bus": elsewhere}})
    plain = make()
    for service in SERVICES:
        use(api, client, service, "other")
    api.call(client.state, "save", "other", "k", 1)
    api.call(client.state, "save", "orders", "k", 2)
    assert api.call(plain.state, "get", "other", "k") == 1, "it is on the home"
    assert api.call(plain.state, "get", "orders", "k") is None, "it is where it is declared"


def test_strict(make: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_SECRET_S_A", "1")
    client = make({"state": {"orders": {"component": "sqlite"}}}, strict=True)
    api.call(client.state, "save", "orders", "k", 1)
    declared = r"is strict and declares \[state\.orders\]: add \["
    for service in SERVICES:
        if service != "rpc":  # services are found by the registry
            with pytest.raises(ComponentNotFoundError, match=declared):
                use(api, client, service, "other")
    with pytest.raises(ComponentNotFoundError, match=declared):
        api.call(client.secret, "get_secret", "s", "a")
    with pytest.raises(ComponentNotFoundError, match="declares none"):
        api.call(make(strict=True).state, "get", "other", "k")


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return the home of a service on an engine, by its URL alone where that is enough."""

    def home_of(engine: str) -> Any:
        get = request.getfixturevalue
        if engine == "objectstore":
            url = get("objectstore_url")
            (bucket,) = buckets(url)
            settings = {name: value for name, value in table(url, bucket).items() if name not in ("component", "url")}
            return {"url": f"s3://{bucket}/prefix", **settings}
        if engine == "kafka":
            return {"url": f"kafka://{get('kafka_servers')}", "ensure": "create", "prefix": uuid.uuid4().hex[:8]}
        if engine == "rabbitmq":
            return {"url": get("rabbitmq_url"), "groups": ["suite"], "prefix": uuid.uuid4().hex[:8] + ".{name}."}
        if engine == "folder":
            return str(tmp_path / "other")
        return get("postgres_database") if engine == "postgres" else get(f"{engine}_server").url

    return home_of


ENGINES = {
    "folder": SERVICES,
    "postgres": SERVICES,
    "valkey": ("state", "pubsub", "lock", "configuration", "schedule", "rpc"),
    "nats": ("state", "pubsub", "lock", "configuration", "schedule", "rpc", "file"),
    "etcd": ("state", "lock", "configuration", "schedule", "rpc"),
    "kafka": ("pubsub",),
    "rabbitmq": ("pubsub",),
    "objectstore": ("state", "file"),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_one_service_has_a_home_of_its_own(
    make: Make, url_of: Callable[[str], Any], api: Api, engine: str, tmp_path: Path
) -> None:
    home = url_of(engine)
    for service in ENGINES[engine]:
        client = make(homes={service: home})
        use(api, client, service, "other")
        api.call(client, "wait_ready", timeout=30)
    assert not (tmp_path / "home").exists(), "nothing was in need of the home"
    for service in set(SERVICES) - {*ENGINES[engine]}:
        with pytest.raises(
            InvalidArgumentError, match=rf"\[capa.homes\] {service}: .* has no {service}: give a folder"
        ):
            make(homes={service: home}).supports("state")
            make(homes={service: home}).state.get("s", "k")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_home_lacks_names_the_remedy(make: Make, url_of: Callable[[str], Any], api: Api, engine: str) -> None:
    client = make(home=url_of(engine))
    for service in ("state", "pubsub", "lock", "configuration", "schedule", "file", "database"):
        if service not in ENGINES[engine]:
            with pytest.raises(
                UnsupportedError, match=rf"\[capa\.homes\] {service} or CLOUD_RUNTIMES_HOME_{service.upper()}"
            ):
                use(api, client, service, "default")


def test_by_the_environment(make: Make, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME_FILE", str(tmp_path / "files"))
    use(api, make(), "file", "docs")
    assert (tmp_path / "files/files/docs").is_dir()
    use(api, make(homes={"file": str(tmp_path / "configured")}), "file", "docs")
    assert (tmp_path / "configured/files/docs").is_dir()


def test_a_folder_lies_beside_the_file(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/cloud-runtimes.toml").write_text('[capa.homes]\nfile = "assets"\n')
    monkeypatch.chdir(tmp_path)
    with CloudRuntimesClient(config=tmp_path / "conf/cloud-runtimes.toml") as client:
        use(api, client, "file", "docs")
    assert (tmp_path / "conf/assets/files/docs").is_dir()


def test_names_in_a_bucket_are_folders_of_their_own(make: Make, url_of: Callable[[str], Any], api: Api) -> None:
    client = make(homes={"file": url_of("objectstore")})
    names = ["a", "a/b", "..", "a%2Fb", "b\\c", "c.", "é"]
    for name in names:
        api.call(client.file, "put_file", name, "b/c", name.encode())
    for name in names:
        assert api.call(client.file, "get_file", name, "b/c") == name.encode()
        assert [each.name for each in api.call(client.file, "list_files", name, recursive=True)] == ["b/c"]


def test_a_declared_component_has_the_settings_of_its_services_home(make: Make, api: Api, valkey_server: Any) -> None:
    homes = {"pubsub": valkey_server.url, "state": {"url": valkey_server.url, "prefix": "own"}}
    client = make({"state": {"orders": {"component": "redis"}}, "pubsub": {"bus": {"component": "redis"}}}, homes=homes)
    for name in ("orders", "other"):
        use(api, client, "state", name)
    use(api, client, "pubsub", "bus")
    assert client._context.runtime().component("state", "orders").settings.prefix == "own"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("capa", "message"),
    [
        ({"home": "postgress://u:{}@h/d"}, r"\[capa\] home: .* postgress:// as a home; did you mean 'postgres"),
        (
            {"home": "memcached://u:{}@h"},
            r"\[capa\] home: .* memcached:// as a home; known: amqp, .*; else give a folder",
        ),
        (
            {"homes": {"pubsub": "kafak://u:{}@h:9092"}},
            r"\[capa.homes\] pubsub: .* kafak:// as a home; did you mean 'kafka'",
        ),
        (
            {"homes": {"file": "redis://u:{}@h"}},
            r"\[capa.homes\] file: redis:// has no file: give a folder, nats://…, ",
        ),
        (
            {"homes": {"pubsub": "kafka://u:{}@h/x"}},
            r"\[capa.homes\] pubsub: give a URL such as kafka://user:password@",
        ),
        ({"homes": {"files": "x"}}, "unknown service 'files'; did you mean 'file'"),
        ({"homes": {"secret": "{}"}}, "unknown service, key 1 of the table; known: configuration, database, file"),
        ({"homes": {"file": ["{}"]}}, "file: expected a folder or a URL"),
        ({"homes": {"file": {"path": "{}"}}}, "file: a table needs url ="),
        ({"home": {"url": "folder-{}", "prefix": "x"}}, "url must be that of a server"),
    ],
)
def test_homes_that_cannot_be(make: Make, canary: Canary, capa: dict[str, Any], message: str) -> None:
    secret = canary.value()

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(each) for key, each in value.items()}
        return [filled(each) for each in value] if isinstance(value, list) else value.replace("{}", secret)

    with canary.raises(InvalidArgumentError, match=message):
        make(**filled(capa)).pubsub.publish("bus", "t", 1)


def test_a_home_that_has_pubsub_alone_is_told_to_be_that_of_pubsub(make: Make, canary: Canary) -> None:
    with canary.raises(
        UnsupportedError, match=r"kafka://h:9092 has pubsub alone: name it by \[capa.homes\] pubsub or CLOUD"
    ):
        make(home=f"kafka://u:{canary.value()}@h:9092").state.get("s", "k")


def test_a_name_that_is_nearly_declared_is_told_once(make: Make, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    names = {f"orders-{uuid.uuid4().hex}s", "shard1"}
    client = make({"state": {name: {"component": "sqlite"} for name in names}})
    (declared,) = names - {"shard1"}
    for name in (declared[:-1], "shard2", "quite-another", declared[:-1]):
        client._context.service("state")._frame.drivers.clear()
        api.call(client.state, "save", name, "k", 1)
    (record,) = caplog.records
    assert f"is [state.{declared}] meant?" in record.getMessage()


def test_the_repr_of_a_client_shows_its_home(make: Make, canary: Canary, tmp_path: Path) -> None:
    client = make(homes={"pubsub": f"kafka://u:{canary.value()}@h:9092"})
    assert repr(client) == "<CloudRuntimesClient runtime=not chosen yet>"
    client.state.save("s", "k", 1)
    expected = f"<CloudRuntimesClient runtime=capa at {tmp_path}/home, pubsub: kafka://h:9092>"
    assert repr(client) == expected
    assert repr(client.state) == f"<StateService of {expected}>"
